"""Trust: how far what is kept may be believed. Levels, and what is derived has the least of its sources."""

from __future__ import annotations

NAMES = ("untrusted", "ordinary", "owner")


def level(given: int | str) -> int:
    """A level of trust by name or number.

    >>> level("untrusted"), level(2)
    (0, 2)
    """
    if isinstance(given, str) and given in NAMES:
        return NAMES.index(given)
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(NAMES):
        return given
    raise ValueError(f"trust={given!r} is not a level; choose {', '.join(NAMES)}")

"""What was said, as it is remembered: `role: words`, without memories that were recalled into it."""

from __future__ import annotations

from collections.abc import Iterable

from loci.app.quote import stripped


def words(texts: Iterable[str]) -> str:
    """The words of one turn, without recalled memories; halves of characters are joined, since alone none can be kept."""
    own = stripped("\n".join(texts)).strip()
    return own.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def turn(role: str, texts: Iterable[str]) -> str:
    r"""One turn as text; empty when it holds no words of its own.

    >>> turn("user", ["I adopted", "a kitten"])
    'user: I adopted\na kitten'
    """
    own = words(texts)
    return f"{role}: {own}" if own else ""

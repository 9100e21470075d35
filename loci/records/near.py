"""Near duplicates: texts that say the same in almost the same words, and never by dropping a *not* or a number."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['’]t\b)?")
_DIGIT = re.compile(r"\d+(?:[.,:]\d+)*")
_NOT = frozenset("no not never none nobody nothing neither nor cannot without hardly".split())


def same(a: str, b: str, *, least: float = 0.9) -> bool:
    """Whether two texts are near duplicates: word overlap (Jaccard) of at least `least`, same negations, same numbers,
    and the words they share in the same order.

    >>> same("Ana likes green tea a lot.", "Ana likes green tea a lot!"), same("I eat meat", "I don't eat meat")
    (True, False)
    >>> same("Ana pays Bo", "Bo pays Ana")
    False
    """
    one, two = words(a), words(b)
    if min(len(one), len(two)) < least * max(len(one), len(two)):
        return False
    if overlap(one, two) < least or key(a) != key(b):
        return False
    shared = one & two
    return [word for word in _spoken(a) if word in shared] == [word for word in _spoken(b) if word in shared]


def overlap(one: frozenset[str], two: frozenset[str]) -> float:
    """Jaccard similarity of two sets of words."""
    return len(one & two) / len(one | two) if one or two else 1.0


@lru_cache(maxsize=4096)
def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(_spoken(text))


def _spoken(text: str) -> list[str]:
    return _WORD.findall(text.lower())


@lru_cache(maxsize=4096)
def key(text: str) -> tuple[int, tuple[str, ...]]:
    """What near duplicates must share exactly: how often they deny, and their numbers."""
    denials = sum(word in _NOT or word.endswith(("n't", "n’t")) for word in _spoken(text))
    return denials, tuple(_DIGIT.findall(text))  # in their order: 3 to 1 is not 1 to 3

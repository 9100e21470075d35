"""Near duplicates: texts that say the same in almost the same words, and never by dropping a *not* or a number."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+")
_NOT = re.compile(r"\b(?:not?|never|none|nobody|nothing|neither|nor|cannot|without|hardly|\w+n['’]t)\b", re.IGNORECASE)
_DIGIT = re.compile(r"\d+(?:[.,:]\d+)*")


def same(a: str, b: str, *, least: float = 0.9) -> bool:
    """Whether two texts are near duplicates: word overlap (Jaccard) of at least `least`, same negations, same numbers.

    >>> same("Ana likes green tea a lot.", "Ana likes green tea a lot!"), same("I eat meat", "I don't eat meat")
    (True, False)
    """
    return key(a) == key(b) and overlap(a, b) >= least


def key(text: str) -> tuple[int, tuple[str, ...]]:
    """What near duplicates must share exactly: how often they deny, and their numbers."""
    return len(_NOT.findall(text)), tuple(sorted(_DIGIT.findall(text)))


def overlap(a: str, b: str) -> float:
    """Jaccard similarity of the words."""
    one, two = set(_WORD.findall(a.lower())), set(_WORD.findall(b.lower()))
    return len(one & two) / len(one | two) if one | two else 1.0

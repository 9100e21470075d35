"""How near a text is to others: BLEU, METEOR with exact matches only, and edit distance. Words are any hashables.

    BLEU     BP exp(1/4 sum_n log p_n),    BP = min(1, exp(1 - r / c)),    p_n = clipped n-grams that match / n-grams said
    METEOR   10 P R / (R + 9 P) (1 - (chunks / matches)^3 / 2),            P, R of single words

c and r are lengths of what was said and of the references (of a text's the nearest, of two the shorter), summed over the
corpus, as are the counts in p_n. Without stems and synonyms METEOR is not the published one, hence `meteor_exact`.

Papers: Papineni et al., ACL 2002 (BLEU); Banerjee, Lavie, ACL workshop 2005 (METEOR); Levenshtein, 1966.
Differs: BLEU is not smoothed, so that it is 0 where any n has no match. Among METEOR's largest alignments the one with the
fewest chunks counts, which the score is made of (as in later versions of METEOR), not the one with the fewest crossings.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeAlias

Words: TypeAlias = Sequence[Hashable]


def bleu(said: Sequence[Words], references: Sequence[Sequence[Words]], *, order: int = 4) -> float:
    """BLEU of a corpus: what was said, and for each text the references it is held against, in [0, 1].

    >>> bleu(["the cat sat on the mat".split()], [["the cat sat on the mat".split()]])
    1.0
    """
    _require(said, references)
    if order < 1:
        raise ValueError(f"order={order} leaves no n-grams to compare; choose at least 1")
    pairs = list(zip(said, references, strict=True))
    logs = 0.0
    for n in range(1, order + 1):
        right, total = map(sum, zip(*(clipped(one, many, n) for one, many in pairs), strict=True))
        if not right:
            return 0.0
        logs += math.log(right / total)
    r = sum(min(map(len, many), key=lambda length: (abs(length - len(one)), length)) for one, many in pairs)
    return math.exp(min(0.0, 1 - r / sum(map(len, said))) + logs / order)


def clipped(text: Words, references: Sequence[Words], n: int) -> tuple[int, int]:
    """Of the n-grams of a text, those in a reference, each at most as often as the reference richest in it has it; and all.

    >>> clipped("the the the the the the the".split(), ["the cat is on the mat".split()], 1)
    (2, 7)
    """
    here, most = _grams(text, n), Counter[Words]()
    for reference in references:
        most |= _grams(reference, n)
    return (here & most).total(), here.total()


def meteor_exact(text: Words, references: Sequence[Words], *, beam: int = 40) -> float:
    """METEOR of one text against the reference that suits it best, words matching only themselves, in [0, 1].

    >>> round(meteor_exact("on the mat sat the cat".split(), ["the cat sat on the mat".split()]), 4)
    0.9375
    """
    _require([text], [references])
    scores = []
    for reference in references:
        matches, chunks = alignment(text, reference, beam=beam)
        P, R = matches / max(len(text), 1), matches / max(len(reference), 1)
        scores.append(10 * P * R / (R + 9 * P) * (1 - (chunks / matches) ** 3 / 2) if matches else 0.0)
    return max(scores)


def alignment(text: Words, reference: Words, *, beam: int = 40) -> tuple[int, int]:
    """Most words matched one to one, and the fewest chunks (runs of neighbours in both) they can then be in.

    Fewest chunks is a hard problem: at most `beam` partial alignments are followed at a time, so that it may be missed.
    """
    if beam < 1:
        raise ValueError(f"beam={beam} follows no alignment; choose at least 1")
    places = {word: [place for place, other in enumerate(reference) if other == word] for word in text}
    ahead, due = Counter(text), Counter(text) & Counter(reference)
    found = {(frozenset[int](), -1): 0}  # places taken, the place that would go on with the chunk -> chunks
    for word in text:
        longer: dict[tuple[frozenset[int], int], int] = {}
        ahead[word] -= 1
        for (taken, beside), chunks in found.items():
            free = [place for place in places[word] if place not in taken]
            steps = [((taken | {place}, place + 1), chunks + (place != beside)) for place in free]
            if ahead[word] >= due[word] - (len(places[word]) - len(free)):  # enough of them are still to come
                steps.append(((taken, -1), chunks))
            for key, count in steps:
                longer[key] = min(count, longer.get(key, count))
        found = dict(heapq.nsmallest(beam, longer.items(), key=lambda step: step[1]))
    return due.total(), min(found.values())


def edit_distance(one: Words, two: Words) -> int:
    """The fewest insertions, deletions and replacements of single symbols that make two of one.

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(two) + 1))  # from what was read of one to every beginning of two
    for i, here in enumerate(one, 1):
        before, row = row, [i]
        for j, there in enumerate(two, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (here != there)))
    return row[-1]


def _grams(text: Words, n: int) -> Counter[Words]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def _require(said: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    if not said or len(said) != len(references) or not all(references):
        raise ValueError(
            f"{len(said)} texts, {len(references)} lists of references; give each text one of at least one"
        )
    if any(isinstance(words, str) for words in (*said, *(one for many in references for one in many))):
        raise TypeError("a text is a string, of which the words are not known; give a list of words")

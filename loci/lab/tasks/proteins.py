"""Families of proteins in one text: a model reads homologs one after another, and then one more of the same family.

A family is a random consensus; a homolog of it is the consensus with some letters drawn anew. Without homologs nothing
is known of the next letter, ln 20 = 3.0 nats; who reads eight of them and takes the most frequent one needs
about 0.85.

`infilled` is the authors' fill-in-the-middle: the number of spans is Poisson(1), drawn again above 5; a span is marked
where it was and appended behind the text, each letter with the position that it had.

After Sgarbossa, Malbranke, Bitbol, "ProtMamba", and Schmidinger et al., "Bio-xLSTM", arXiv:2411.04165.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LETTERS, LENGTH, MUTATED, HOMOLOGS = 20, 30, 0.15, 8
MOST_SPANS, LONGEST = 5, 0.2  # spans in a protein; the share of the way to the next span that one may take
EOS = LETTERS  # before every protein, and between a text and its spans
MASKS = tuple(range(EOS + 1, EOS + 1 + MOST_SPANS))
SYMBOLS = EOS + 1 + MOST_SPANS

Ids = npt.NDArray[np.int64]


def family(random: np.random.Generator, *, homologs: int = HOMOLOGS + 1) -> Ids:
    """Homologs (homologs, LENGTH) of one new consensus."""
    consensus = random.integers(0, LETTERS, LENGTH)
    other = random.integers(0, LETTERS, (homologs, LENGTH))
    return np.where(random.random((homologs, LENGTH)) < MUTATED, other, consensus)


def concatenated(proteins: Ids) -> Ids:
    """One text: every protein behind an EOS, without any alignment."""
    return np.insert(proteins, 0, EOS, axis=-1).reshape(-1)


def span_count(random: np.random.Generator) -> int:
    """Poisson(1), drawn again where it is above MOST_SPANS."""
    while (count := int(random.poisson(1.0))) > MOST_SPANS:
        pass
    return count


def infilled(protein: Sequence[int] | Ids, random: np.random.Generator) -> tuple[list[int], list[int]]:
    """A protein with its spans taken out and put behind it, and the position of each symbol in the whole protein.

    >>> text, places = infilled(range(20), np.random.default_rng(1))
    >>> restored(text) == list(range(20)), len(text) == len(places)
    (True, True)
    """
    whole = [int(letter) for letter in protein]
    count = min(span_count(random), max(len(whole) - 1, 0))
    starts = sorted(1 + random.choice(len(whole) - 1, count, replace=False)) if count else []
    text, behind, places, places_behind, read = [], [], [], [], 0
    for mask, start, following in zip(MASKS, starts, [*starts[1:], len(whole)], strict=False):
        end = start + int(random.integers(1, max(int((following - start) * LONGEST), 2)))
        text += [*whole[read:start], mask]
        places += [*range(read, start), int(start)]
        behind += [mask, *whole[start:end]]
        places_behind += [int(start), *range(start, end)]
        read = end
    text, places = text + whole[read:], [*places, *range(read, len(whole))]
    if not count:
        return text, places
    return [*text, EOS, *behind], [*places, 0, *places_behind]


def restored(text: Sequence[int]) -> list[int]:
    """The protein that `infilled` took apart."""
    if EOS not in text:
        return list(text)
    cut = list(text).index(EOS)
    spans: dict[int, list[int]] = {}
    for symbol in text[cut + 1 :]:
        if symbol in MASKS:
            last = spans.setdefault(symbol, [])
        else:
            last.append(symbol)
    return [letter for symbol in text[:cut] for letter in (spans[symbol] if symbol in MASKS else [symbol])]

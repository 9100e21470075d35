"""Families of proteins in one text: a model reads homologs one after another, and then one more of the same family.

A family is a random consensus; a homolog of it is the consensus with some letters drawn anew. Without homologs nothing
is known of the next letter, ln 20 = 3.0 nats; who reads eight of them and takes the most frequent one needs
about 0.85.

After Sgarbossa, Malbranke, Bitbol, "ProtMamba", and Schmidinger et al., "Bio-xLSTM", arXiv:2411.04165.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LETTERS, LENGTH, MUTATED, HOMOLOGS = 20, 30, 0.15, 8
EOS = LETTERS  # before every protein
SYMBOLS = EOS + 6  # and five masks, for the spans of state/fill_in_the_middle.py

Ids = npt.NDArray[np.int64]


def family(random: np.random.Generator, *, homologs: int = HOMOLOGS + 1) -> Ids:
    """Homologs (homologs, LENGTH) of one new consensus."""
    consensus = random.integers(0, LETTERS, LENGTH)
    other = random.integers(0, LETTERS, (homologs, LENGTH))
    return np.where(random.random((homologs, LENGTH)) < MUTATED, other, consensus)


def concatenated(proteins: Ids) -> Ids:
    """One text: every protein behind an EOS, without any alignment."""
    return np.insert(proteins, 0, EOS, axis=-1).reshape(-1)

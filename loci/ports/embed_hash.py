"""Hashed words and letters: an embedder without a model, for tests, tiny machines and as the floor to beat.

x = sum over words and letter trigrams f of sign(f) e[h(f) mod dim], brought to length 1; h is blake2b.

Paper: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", arXiv:0902.2206, sec. 2.
Differs: features are words and the trigrams of " word ", so that *dog* and *dogs* stay close; no task part.
Keeps: nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

from loci.core.card import method
from loci.core.ports import F32
from loci.ports.arrays import listed, positive, unit

_WORD = re.compile(r"\w+|[^\w\s]+")


@method(
    name="hash",
    kind="embedder",
    title="Feature Hashing for Large Scale Multitask Learning",
    paper="arXiv:0902.2206",
    says="embeds words and letter trigrams by signed hashing: no model, no download, the same everywhere",
    bytes="0",
    example={"dim": 64},
)
class HashEmbedder:
    """Texts to unit vectors by signed hashing: close means shared words and spelling, not shared meaning.

    >>> cat, cats, stocks = HashEmbedder().embed(["a black cat", "black cats", "the price of shares"])
    >>> bool(cat @ cats > cat @ stocks)
    True
    """

    name = "hash"
    version = "1"

    def __init__(self, dim: int = 256) -> None:
        self.dim = positive(dim, name="dim")

    def embed(self, texts: Sequence[str]) -> F32:
        """Embed texts: (N, dim) float32, unit rows; a blank text gives zeros. TypeError if not texts."""
        given = listed(texts)
        rows = np.zeros((len(given), self.dim), np.float32)
        for row, text in zip(rows, given, strict=True):
            self._fill(row, text)
        return unit(rows)

    def _fill(self, row: F32, text: str) -> None:
        code = 0
        for feature in _features(text):
            code = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "little")
            row[(code >> 1) % self.dim] += 1.0 if code & 1 else -1.0
        if code and not row.any():  # the signs cancelled: what has content keeps a direction
            row[(code >> 1) % self.dim] = 1.0


def _features(text: str) -> Iterator[str]:
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        yield word
        padded = f" {word} "
        for start in range(len(padded) - 2):
            yield padded[start : start + 3]

"""Exact search: every vector is compared. Fast enough up to about 20,000; the oracle of every faster index.

score(i) = <v_i, q>

Paper: none.
Differs: ties go to the lower id. A matrix product rounds equal rows differently by their place, so what comes
within its rounding error of the k-th is scored again, row by row.
Keeps: 4 N d of vectors, 8 N of ids and about 112 N of the table from id to row.
"""

from __future__ import annotations

import sys

import numpy as np

from loci.core.card import method
from loci.core.ports import F32, I64
from loci.ports.arrays import keys, nothing, pairs, point, positive

_GROWTH = 1.25
_EPSILON = float(np.finfo(np.float32).eps)


@method(
    name="exact",
    kind="index",
    title="Exact inner product search",
    says="finds the true nearest vectors by comparing all of them",
    bytes="4*N*d + 8*N + 112*N",
    example={"dim": 32},
)
class ExactIndex:
    """Nearest vectors by inner product, all compared; one thread at a time while it is written.

    >>> index = ExactIndex(2)
    >>> index.add(np.array([7, 3]), np.eye(2, dtype=np.float32))
    >>> ids, scores = index.search(np.array([1.0, 0.0], np.float32), k=1)
    >>> ids.tolist(), scores.tolist()
    ([7], [1.0])
    """

    def __init__(self, dim: int) -> None:
        self.dim = positive(dim, name="dim")
        self._ids: I64 = np.empty(0, np.int64)
        self._rows: F32 = np.empty((0, dim), np.float32)
        self._at: dict[int, int] = {}
        self._longest = 0.0  # length of the longest vector ever held: bounds the rounding error

    def add(self, ids: I64, vectors: F32) -> None:
        """Put vectors (N, dim) under ids (N,), replacing what is there; ValueError when the shapes do not fit."""
        names, rows = pairs(ids, vectors, self.dim)
        if not len(names):
            return
        new = sum(name not in self._at for name in names.tolist())
        self._reserve(len(self._at) + new)
        places = [self._at.setdefault(name, len(self._at)) for name in names.tolist()]
        self._ids[places] = names
        self._rows[places] = rows
        self._longest = max(self._longest, float(np.linalg.norm(rows, axis=1).max()))

    def remove(self, ids: I64) -> int:
        """Drop ids (N,); how many were there. The last row moves into the gap."""
        before = len(self._at)
        for name in keys(ids).tolist():
            place = self._at.pop(name, None)
            last = len(self._at)
            if place is None or place == last:
                continue
            self._ids[place], self._rows[place] = self._ids[last], self._rows[last]
            self._at[int(self._ids[place])] = place
        if len(self._ids) > 2 * len(self._at):
            self._resize(len(self._at))
        return before - len(self._at)

    def search(self, query: F32, k: int) -> tuple[I64, F32]:
        """The k nearest of one query (dim,): ids and inner products (<= k,), best first, ties by id."""
        vector, size = point(query, k, self.dim), len(self._at)
        k = min(k, size)
        if not k:
            return nothing()
        rough = self._rows[:size] @ vector
        slack = 2 * self.dim * _EPSILON * self._longest * float(np.linalg.norm(vector))
        cut = rough[np.argpartition(rough, size - k)[size - k]] - slack
        near = np.flatnonzero(rough >= cut)
        scores = (self._rows[near] * vector).sum(axis=1)
        order = np.lexsort((self._ids[near], -scores))[:k]
        return self._ids[near][order], scores[order]

    def __len__(self) -> int:
        return len(self._at)

    @property
    def nbytes(self) -> int:
        """Bytes held: vectors, ids, and the table from id to row with its two numbers an entry."""
        return self._ids.nbytes + self._rows.nbytes + sys.getsizeof(self._at) + 2 * 32 * len(self._at)

    def _reserve(self, size: int) -> None:
        if size > len(self._ids):
            self._resize(max(size, int(_GROWTH * len(self._ids))))

    def _resize(self, size: int) -> None:
        held = len(self._at)
        ids, rows = np.empty(size, np.int64), np.empty((size, self.dim), np.float32)
        ids[:held], rows[:held] = self._ids[:held], self._rows[:held]
        self._ids, self._rows = ids, rows

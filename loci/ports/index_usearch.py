"""Approximate search by a navigable graph (usearch): sublinear, half precision, from about 20,000 vectors on.

Paper: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs", arXiv:1603.09320, alg. 1, 2 and 5.
Differs: vectors are kept as float16, so scores err by up to 1e-2; an id is replaced by removing and adding; the
place of a removed vector is used again, not given back.
Keeps: 2 N d of vectors and about 4 (2 M + 2) + 8 + 8 of graph and id each, with M = connectivity.
"""

from __future__ import annotations

import numpy as np

from loci.core.card import method
from loci.core.errors import need
from loci.core.ports import F32, I64
from loci.ports.arrays import keys, nothing, pairs, point, positive


@method(
    name="usearch",
    kind="index",
    title="Efficient and robust approximate nearest neighbor search using HNSW graphs",
    paper="arXiv:1603.09320",
    says="finds nearly always the true nearest vectors, in half the bytes and without comparing all",
    bytes="N*(2*d + 8*M + 24)",
    example={"dim": 32},
    needs=("ann",),
)
class USearchIndex:
    """Nearest vectors by inner product, nearly always the true ones; `expansion` trades time for recall.

    One thread builds the graph unless `threads` says more: with one, the same calls build the same graph.
    MissingExtra without the extra `ann`.

    >>> index = USearchIndex(2)
    >>> index.add(np.array([7, 3]), np.eye(2, dtype=np.float32))
    >>> ids, scores = index.search(np.array([1.0, 0.0], np.float32), k=1)
    >>> ids.tolist(), scores.tolist()
    ([7], [1.0])
    """

    def __init__(
        self,
        dim: int,
        *,
        connectivity: int = 16,
        expansion_add: int = 128,
        expansion: int = 128,
        threads: int = 1,
    ) -> None:
        self.dim = positive(dim, name="dim")
        self.threads = positive(threads, name="threads")
        self._graph = need("usearch.index", extra="ann", who="USearchIndex").Index(
            ndim=dim,
            metric="ip",
            dtype="f16",
            connectivity=positive(connectivity, name="connectivity"),
            expansion_add=positive(expansion_add, name="expansion_add"),
            expansion_search=positive(expansion, name="expansion"),
        )

    def add(self, ids: I64, vectors: F32) -> None:
        """Put vectors (N, dim) under ids (N,), replacing what is there; ValueError when the shapes do not fit."""
        names, rows = pairs(ids, vectors, self.dim)
        if not len(names):
            return
        self.remove(names)
        self._graph.add(names.astype(np.uint64), rows, threads=self.threads)

    def remove(self, ids: I64) -> int:
        """Drop ids (N,); how many were there."""
        names = np.unique(keys(ids)).astype(np.uint64)
        if not len(names):
            return 0
        there = names[np.asarray(self._graph.contains(names), bool)]
        if len(there):
            self._graph.remove(there, threads=self.threads)
        return len(there)

    def search(self, query: F32, k: int) -> tuple[I64, F32]:
        """The k nearest of one query (dim,): ids and inner products (<= k,), best first, ties by id."""
        vector = point(query, k, self.dim)
        k = min(k, len(self))
        if not k:
            return nothing()
        found = self._graph.search(vector, k, threads=1)
        ids, scores = found.keys.astype(np.int64), np.asarray(1.0 - found.distances, np.float32)
        order = np.lexsort((ids, -scores))
        return ids[order], scores[order]

    def __len__(self) -> int:
        return len(self._graph)

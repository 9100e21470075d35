"""Product-key memory: n * n rows found by two lists of n keys, since the best sums lie among the best of each list.

    q = norm(W_q h) = [q_1 | q_2],    S[i, j] = q_1 . K_1[i] + q_2 . K_2[j]                            (secs. 3.1, 3.2)
    y = sum over heads and over the m best (i, j) of softmax(S)[i, j] V[i n + j]                       (eq. 3)

A sum grows with each of its parts, so the m best of the n * n sums are among the m * m of the m best on each side: the
search is exact, for 2 n K/2 products in place of n n K.

Paper: Lample et al., "Large Memory Layers with Product Keys", arXiv:1907.05242.
Differs: the query is normalised over its own width, where the paper normalises over the batch (in which tokens mix).
Keeps: b*(n*n*D + H*(n*K + D*K + K) + 2*K) bytes of parameters, of which a token reads H*m*D*b of rows.

Shapes: N tokens, D width, H heads, K width of a query, n keys on each side, m rows a head.

>>> ProductKeyMemory(8, n=16)(torch.ones(3, 8)).shape
torch.Size([3, 8])
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import method
from loci.state.sparse_memory.base import SparseMemory


def best_sums(s1: Tensor, s2: Tensor, *, m: int) -> tuple[Tensor, Tensor]:
    """Scores of both sides (..., n) -> the m largest sums (..., m), best first, and their places i n + j.

    >>> best_sums(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 5.0]), m=2)[1].tolist()
    [3, 1]
    """
    (first, i), (second, j) = s1.topk(m), s2.topk(m)
    sums, best = (first.unsqueeze(-1) + second.unsqueeze(-2)).flatten(-2).topk(m)
    return sums, i.gather(-1, best // m) * s2.shape[-1] + j.gather(-1, best % m)


@method(
    name="product-key-memory",
    kind="sparse-memory",
    title="Large Memory Layers with Product Keys",
    paper="arXiv:1907.05242",
    says="a layer of n * n rows that finds the best of them exactly by 2 n comparisons, and reads only those",
    bytes="b*(n*n*D + H*(n*K + D*K + K) + 2*K)",
    example={"D": 6, "n": 7, "m": 3, "K": 8, "heads": 2},
    needs=("torch",),
    system="ultramem_v2",
)
class ProductKeyMemory(SparseMemory):
    """n * n rows D wide, shared by the heads; each head has its own queries and keys and reads m rows."""

    def __init__(self, D: int, *, n: int = 128, m: int = 16, K: int = 64, heads: int = 4) -> None:
        super().__init__()
        m = min(m, n)
        if min(D, n, m, K, heads) < 1 or K % 2:
            raise ValueError(
                f"D={D}, n={n}, m={m}, K={K}, heads={heads} is no product-key memory; choose each at least 1, and K even"
            )
        self.D, self.n, self.m, self.K, self.heads, self.touches = D, n, m, K, heads, heads * m
        self.query = nn.Linear(D, heads * K)
        self.norm = nn.LayerNorm(K)
        bound = 1 / math.sqrt(K // 2)
        self.keys = nn.Parameter(torch.empty(2, heads, n, K // 2).uniform_(-bound, bound))
        self.values = nn.Parameter(torch.randn(n * n, D) / math.sqrt(D))

    def scores(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """What the keys of each side say of the tokens, (N, H, n) each."""
        queries = self.norm(self.query(h).unflatten(-1, (self.heads, self.K))).chunk(2, -1)
        s1, s2 = (torch.einsum("nhk,hik->nhi", q, keys) for q, keys in zip(queries, self.keys, strict=True))
        return s1, s2

    def rows(self, h: Tensor) -> Tensor:
        """Head after head, best first."""
        return best_sums(*self.scores(h), m=self.m)[1].flatten(1)

    def read(self, h: Tensor) -> Tensor:
        """Rows by the softmax of their sums, head by head."""
        sums, places = best_sums(*self.scores(h), m=self.m)
        weights = sums.softmax(-1).to(self.values.dtype).flatten(1)
        found = functional.embedding(places.flatten(1), self.values)  # (N, H m, D)
        return torch.einsum("nm,nmd->nd", weights, found)

    def densely(self, h: Tensor) -> Tensor:
        """All n * n sums, -inf where they are not of the m largest."""
        s1, s2 = self.scores(h)
        grid = (s1.unsqueeze(-1) + s2.unsqueeze(-2)).flatten(-2)
        least = grid.sort(-1, descending=True).values[..., self.m - 1 : self.m]
        weights = grid.masked_fill(grid < least, -torch.inf).softmax(-1)
        return weights.sum(1) @ self.values

    def tables(self) -> tuple[nn.Parameter, ...]:
        """The values."""
        return (self.values,)

    def shapes(self) -> Mapping[str, float]:
        """H heads of n keys a side, queries K wide, rows D wide, b bytes a number."""
        sizes = {"D": self.D, "n": self.n, "K": self.K, "H": self.heads}
        return {**sizes, "b": self.values.element_size()}

"""Tucker-decomposed query-key retrieval: scores of a grid from small factors, its best places in two stages.

    S[i, j] = sum_{a, b} s1[i, a] C[a, b] s2[j, b],    C = sum_c C_c                              (i, j < n;  a, b < r)
    1.  C ~ sigma u v':  the m largest of s1 u and the m largest of s2 v survive
    2.  the m largest S of the m * m survivors; their weights are s1 C_c s2, one for each core c

Stage 1 is an approximation, for two reasons. C has more than one singular value, which `spectral_penalty` can press down.
And a product does not grow with each of its factors: where s1 u and s2 v are both negative their product is large and
positive, and stage 1 does not see it. It is exact where m = n, and where C has rank one, the
scores of one side (s1 u or s2 v) are nowhere below 0 and those of the other somewhere above.

Paper: Huang et al., "Ultra-Sparse Memory Network", arXiv:2411.12364; as in "UltraMemV2", arXiv:2508.18756.
Differs: nothing.
Keeps: nothing; in a call, c*N*H*m*m scores.

Shapes: N tokens, H heads, n places a side, r rank, c cores, m places that are kept.

>>> s1, s2 = torch.tensor([[[[1.0], [2.0], [4.0]]]]), torch.tensor([[[[3.0], [1.0], [0.0]]]])
>>> one = torch.ones(1, 1)
>>> found = search(s1, s2, one.view(1, 1, 1, 1), one, one, m=2)
>>> found.places.tolist(), found.weights.tolist()
([[[6, 3]]], [[[[12.0, 6.0]]]])
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Found(NamedTuple):
    """Places of the grid, best first, and what each core gives them."""

    places: Tensor  # (N, H, m) of int64: i n + j
    weights: Tensor  # (c, N, H, m)


def search(s1: Tensor, s2: Tensor, cores: Tensor, u: Tensor, v: Tensor, *, m: int) -> Found:
    """Scores (N, H, n, r) of both sides, cores (c, H, r, r), leading vectors (H, r) -> the m best that stage 1 lets through."""
    i, j = (projected(s, vector).topk(m).indices for s, vector in ((s1, u), (s2, v)))
    first, second = (s.gather(2, at.unsqueeze(-1).expand(-1, -1, -1, s.shape[-1])) for s, at in ((s1, i), (s2, j)))
    each = scores(first, second, cores)
    best = each.sum(0).topk(m).indices
    places = i.gather(2, best // m) * s2.shape[2] + j.gather(2, best % m)
    return Found(places, each.gather(3, best.expand(len(cores), *best.shape)))


def weights_of_all(s1: Tensor, s2: Tensor, cores: Tensor, u: Tensor, v: Tensor, *, m: int) -> Tensor:
    """The same as weights (c, N, H, n * n) of the whole grid, zero where nothing was found: slow, and the oracle."""
    each = scores(s1, s2, cores)
    survives = (_largest(projected(s1, u), m).unsqueeze(-1) & _largest(projected(s2, v), m).unsqueeze(-2)).flatten(-2)
    found = _largest(each.sum(0).masked_fill(~survives, -torch.inf), m)
    return torch.where(found, each, 0.0)


def scores(s1: Tensor, s2: Tensor, cores: Tensor) -> Tensor:
    """The grid (c, N, H, n * n) that each core gives."""
    return torch.einsum("nhir,chrs,nhjs->cnhij", s1, cores, s2).flatten(-2)


def projected(s: Tensor, vector: Tensor) -> Tensor:
    """(N, H, n, r) along a vector (H, r): the scores of stage 1."""
    return (s * vector.unsqueeze(1)).sum(-1)


def leading(cores: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The first singular vectors (H, r) of the cores' sum, of the sign that is nearer to the given ones; no gradient.

    >>> one = torch.ones(1, 2)
    >>> u, v = leading(torch.tensor([[[[2.0, 0.0], [0.0, 1.0]]]]), -one, -one)
    >>> u.tolist(), v.tolist()
    ([[-1.0, -0.0]], [[-1.0, -0.0]])
    """
    whole = cores.detach().sum(0)
    left, _, right = torch.linalg.svd(whole.to(torch.promote_types(whole.dtype, torch.float32)))
    new_u, new_v = left[..., 0].to(u.dtype), right[..., 0, :].to(v.dtype)
    kept, turned = (((u - sign * new_u).abs() + (v - sign * new_v).abs()).sum(-1, keepdim=True) for sign in (1, -1))
    sign = torch.where(turned < kept, -1.0, 1.0).to(u.dtype)
    return sign * new_u, sign * new_v


def spectral_penalty(cores: Tensor, *, margin: float = 0.15) -> Tensor:
    """Mean relu(sigma_k - margin)^2 over the singular values but the first: keeps stage 1 near to S. Zero for rank 1.

    >>> round(float(spectral_penalty(torch.tensor([[[[2.0, 0.0], [0.0, 1.15]]]]))), 4)
    1.0
    """
    rest = torch.linalg.svdvals(cores.sum(0).to(torch.promote_types(cores.dtype, torch.float32)))[..., 1:]
    return (rest - margin).relu().square().mean() if rest.numel() else cores.new_zeros(())


def _largest(x: Tensor, m: int) -> Tensor:
    """Where the m largest of the last axis are."""
    return x >= x.sort(-1, descending=True).values[..., m - 1 : m]

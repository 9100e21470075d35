"""One pool of rows for the memories of all layers: each reads a window of it, and neighbours' windows overlap.

    T = layers n^2,    side = floor(sqrt(T share)),    window of layer l:  (l n^2 + 0 .. side^2 - 1) mod T
    row of a virtual index v:  ((v mod side^2) + l n^2) mod T                             (implicit value expansion)

A row is a neuron: `gates` P holds what it listens to, `values` V what it says. With share = 1 / layers no window meets
another; with share = 1 and a square number of layers each is the whole pool. Virtual indices beyond the window stand for
the same rows once more.

Paper: Huang et al., "UltraMemV2", arXiv:2508.18756.
Differs: nothing; the scale of rows is 0.02 as in the first of the code, and `balanced_std` that of the paper's appendix.
Keeps: b*T*(d_v + d_p) bytes.

>>> pool = Pool(3, layers=4, d_v=2, d_p=2)
>>> pool.rows(torch.tensor([0, 1, 10]), layer=3, side=pool.side(1 / 4)).tolist()
[27, 28, 28]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

ROUNDING = 1e-9  # of T share, which is a whole number where share is 1 / layers


class Pool(nn.Module):
    """n * n rows for each of `layers` layers, of d_v numbers to say and d_p to listen with; d_p = 0: none of those."""

    gates: nn.Parameter | None

    def __init__(self, n: int, *, layers: int, d_v: int, d_p: int, std: float = 0.02) -> None:
        super().__init__()
        if min(n, layers, d_v) < 1 or d_p < 0 or std <= 0:
            raise ValueError(
                f"n={n}, layers={layers}, d_v={d_v}, d_p={d_p}, std={std} is no pool; choose n, layers and d_v at least 1, "
                f"d_p at least 0 and std above 0"
            )
        self.n, self.layers, self.d_v, self.d_p = n, layers, d_v, d_p
        self.T = layers * n * n
        self.values = nn.Parameter(torch.randn(self.T, d_v) * std)
        self.gates = nn.Parameter(torch.randn(self.T, d_p) * std) if d_p else None

    def side(self, share: float) -> int:
        """The side of a window over that part of the pool: at least 1 row, at most all."""
        if not 0 < share <= 1:
            raise ValueError(f"share={share} is no part of a pool; choose 0 < share <= 1")
        return max(1, math.isqrt(math.floor(self.T * share + ROUNDING)))

    def rows(self, index: Tensor, *, layer: int, side: int) -> Tensor:
        """Virtual indices -> the rows they stand for in a layer with windows of that side."""
        return (index % side**2 + layer * self.n**2) % self.T


def balanced_std(
    D: int, *, m: int, heads: int, d_v: int, d_p: int, layers: int, ffn: float = 4.0, spread: float = 0.0
) -> float:
    """The scale of rows at which a memory's output varies as much as that of a feed-forward layer `ffn` times as wide.

        (0.2 ffn D / (m heads (1 + spread) d_p d_v layers))^(1/4)                                   (eq. 26, app. A.3)

    `spread` is the variance of the best score where its mean is 1; the fourth root leaves little of it.

    >>> round(balanced_std(64, m=8, heads=1, d_v=64, d_p=64, layers=4), 3)
    0.141
    """
    return float((0.2 * ffn * D / (m * heads * (1 + spread) * max(d_p, 1) * d_v * layers)) ** 0.25)

"""LoRA on chosen linear maps: W + (alpha / r) L R with W frozen (Hu et al., arXiv:2106.09685).

On Mamba's x_proj one factor R feeds Delta, B and C together, which ties their changes: see `tying`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """A frozen linear map and its low-rank change, none at the start: L is zero."""

    def __init__(self, base: nn.Linear, rank: int, *, alpha: float, random: torch.Generator) -> None:
        super().__init__()
        if not 1 <= rank <= min(base.weight.shape):
            m, n = base.weight.shape
            raise ValueError(f"rank={rank} does not fit a linear map ({m}, {n}); choose rank <= {min(m, n)}")
        self.base, self.scale = base.requires_grad_(requires_grad=False), alpha / rank
        self.L = nn.Parameter(torch.zeros(base.out_features, rank))
        self.R = nn.Parameter(torch.randn(rank, base.in_features, generator=random) / base.in_features**0.5)

    def change(self) -> Tensor:
        """(alpha / r) L R."""
        return self.scale * self.L @ self.R

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        y: Tensor = self.base(x) + self.scale * (x @ self.R.T.to(x.dtype) @ self.L.T.to(x.dtype))
        return y

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One linear map that does the same."""
        bias = self.base.bias
        linear = nn.Linear(self.base.in_features, self.base.out_features, bias=bias is not None)
        linear.weight.copy_(self.base.weight + self.change())
        if bias is not None:
            linear.bias.copy_(bias)
        return linear


def adapt(model: nn.Module, targets: Sequence[str], *, rank: int, alpha: float, seed: int) -> list[LowRank]:
    """Freeze a model and put LoRA on every linear map of these names, in place."""
    random = torch.Generator().manual_seed(seed)
    model.requires_grad_(requires_grad=False)
    found = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in targets and isinstance(child, nn.Linear):
                found.append(LowRank(child, rank, alpha=alpha, random=random))
                parent.add_module(name, found[-1])
    if not found:
        raise ValueError(f"targets={list(targets)} name no linear map of the model; see model.named_modules()")
    return found


def tying(change: Tensor, sizes: Sequence[int]) -> tuple[int, list[int]]:
    """The rank of a change as a whole, and of its blocks of rows.

    On x_proj the blocks are those of Delta, B and C. LoRA of rank r gives each block rank r, yet the whole has rank r
    too: the three move along the same r directions of the input, where factors of their own would give up to 3 r.
    """
    blocks = [int(torch.linalg.matrix_rank(block)) for block in torch.split(change, list(sizes))]
    return int(torch.linalg.matrix_rank(change)), blocks

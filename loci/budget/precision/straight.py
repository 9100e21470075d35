"""The straight-through estimator: rounded forward, the identity backward.

y = Q(x),   dL/dx := dL/dy                                                     Bengio et al., arXiv:1308.3432, sec. 4
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loci.budget.precision.format import NumberFormat
from loci.budget.precision.modes import Mode


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, format: NumberFormat, mode: Mode, random: torch.Generator | None) -> Tensor:  # noqa: A002 - the house's word
        """Round."""
        return format.grid(x).round(x, mode, random=random)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, None, None, None]:
        """Hand the gradient on."""
        return grads[0], None, None, None


def rounded(format: NumberFormat, x: Tensor, mode: Mode, random: torch.Generator | None) -> Tensor:  # noqa: A002
    """A tensor rounded to a format; its gradient passes straight through, also where x saturates."""
    if not (x.requires_grad and torch.is_grad_enabled()):
        return format.grid(x).round(x, mode, random=random)
    y: Tensor = _Straight.apply(x, format, mode, random)  # type: ignore[no-untyped-call]
    return y

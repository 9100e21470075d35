"""Leaky integrate-and-fire neurons with a soft reset, and what stands for the slope of a spike.

    u_t = lam (u_{t-1} - V s_{t-1}) + i_t,    s_t = [u_t >= V],    lam = 1 - 1/tau

A spike has slope 0 almost everywhere; backward takes a surrogate of x = u - V instead.

>>> cell, v = LIF(tau=2.0), torch.zeros(1)
>>> for _ in range(4):
...     s, v = cell(torch.tensor([0.75]), v)
...     print(int(s), float(v))
0 0.75
1 0.125
0 0.8125
1 0.15625
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Slope: TypeAlias = Callable[[Tensor, float], Tensor]


def triangle(x: Tensor, threshold: float) -> Tensor:
    """1 - |x| where that is positive."""
    return (1 - x.abs()).clamp_(min=0)


def rectangle(x: Tensor, threshold: float) -> Tensor:
    """1/V within V/2 of the threshold, else 0: area 1."""
    return (x.abs() <= threshold / 2).to(x) / threshold


def sigmoid(x: Tensor, threshold: float) -> Tensor:
    """The slope of a sigmoid of steepness 4, which is 1 at the threshold."""
    s = torch.sigmoid(4 * x)
    return 4 * s * (1 - s)


SURROGATES: dict[str, Slope] = {"triangle": triangle, "rectangle": rectangle, "sigmoid": sigmoid}


class Spike(torch.autograd.Function):
    """1 at or above the threshold, else 0; keeps u and nothing else."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: float, slope: Slope) -> Tensor:
        """(u, V, slope) -> s."""
        ctx.save_for_backward(u)
        ctx.threshold, ctx.slope = threshold, slope
        return (u >= threshold).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The gradient times the surrogate's slope."""
        (u,) = ctx.saved_tensors
        return grad * ctx.slope(u - ctx.threshold, ctx.threshold), None, None


class LIF(nn.Module):
    """One step of a layer of neurons; the state v = u - V s after the reset is the caller's to keep."""

    def __init__(self, *, tau: float = 1.1, threshold: float = 1.0, surrogate: str = "triangle") -> None:
        super().__init__()
        if tau < 1:
            raise ValueError(f"tau={tau} makes the leak 1 - 1/tau negative; give at least 1 (1 forgets at once)")
        if threshold <= 0:
            raise ValueError(f"threshold={threshold} would fire at rest; give a positive one")
        if surrogate not in SURROGATES:
            raise ValueError(f"surrogate={surrogate!r} is unknown; choose one of {', '.join(SURROGATES)}")
        self.lam, self.threshold, self.slope = 1 - 1 / tau, threshold, SURROGATES[surrogate]

    def forward(self, current: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes, and the state to come back with; no state is rest."""
        u = current if v is None else current.add(v, alpha=self.lam)
        s: Tensor = Spike.apply(u, self.threshold, self.slope)  # type: ignore[no-untyped-call]
        return s, u.sub(s, alpha=self.threshold)

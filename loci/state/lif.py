"""A leaky neuron that integrates and fires, along a sequence.

    h_t = v_{t-1} + (x_t - v_{t-1}) / tau,    s_t = 1 if h_t >= threshold else 0,    v_t = h_t (1 - s_t)
    ds/dh := k sigma (1 - sigma), sigma = sigmoid(k (h - threshold)), k = 4           a step has no gradient to go back by

Where it fires the potential falls to zero (hard reset), and no gradient goes back by way of the reset.

Paper: as in Liu et al., "LMUFormer", arXiv:2402.04882, who take the neuron of SpikingJelly.
Differs: nothing.
Keeps: b bytes for each neuron.

>>> spikes, v = LIF()(torch.ones(1, 3, 1) * 1.5, torch.zeros(1, 1))
>>> spikes.flatten().tolist(), v.item()  # potentials 0.75, 1.125 (fires, falls to 0), 0.75
([0.0, 1.0, 0.0], 0.75)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SHARPNESS = 4.0  # k


class Spike(torch.autograd.Function):
    """The step function, with the slope of a sigmoid."""

    @staticmethod
    def forward(ctx: Any, above: Tensor) -> Tensor:
        """1 where the potential is at or above the threshold, else 0."""
        ctx.save_for_backward(above)
        return (above >= 0).to(above.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The slope in place of none."""
        (above,) = ctx.saved_tensors
        soft: Tensor = (SHARPNESS * above).sigmoid()
        return grad * SHARPNESS * soft * (1 - soft)


class LIF(nn.Module):
    """Neurons without parameters: one for each row and channel."""

    def __init__(self, *, tau: float = 2.0, threshold: float = 1.0) -> None:
        super().__init__()
        if not tau >= 1 or not threshold > 0:
            raise ValueError(f"tau={tau}, threshold={threshold} is no neuron; choose tau >= 1 and a threshold > 0")
        self.tau, self.threshold = tau, threshold

    def step(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """One moment: currents and potentials (B, D) -> spikes and potentials (B, D)."""
        h = v + (x - v) / self.tau
        spike: Tensor = Spike.apply(h - self.threshold)  # type: ignore[no-untyped-call]
        return spike, h * (1 - spike.detach())

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All moments, one after the other: (B, T, D) and (B, D) -> spikes (B, T, D) and potentials (B, D)."""
        spikes = []
        for current in x.unbind(1):
            spike, v = self.step(current, v)
            spikes.append(spike)
        return torch.stack(spikes, 1), v

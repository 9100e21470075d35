"""Precision modes of training: a step in float32, under autocast, and mixed precision in its obvious form.

Mixed precision after Micikevicius et al. (arXiv:1710.03740): float16 weights and activations, float32 master weights
that are stepped, and a loss that is scaled so that small gradients do not underflow,

    g = grad(S * L) / S;    not finite: skip, S /= 2;    finite for 2,000 steps running: S *= 2

`Autocast` is torch's own form, which keeps the float32 weights alone and casts within each operation; `Masters` is the
oracle. bfloat16 has the exponents of float32 and needs no scale. A step takes a function that returns the loss; the
loss and softmax belong in float32: `lambda: cross_entropy(model(x).float(), y)`.
Keeps: 16*P bytes for P weights under Adam: Masters 2 + 2 + 4 + 8, Autocast 4 + 4 + 8, as in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

Loss: TypeAlias = Callable[[], Tensor]


class Mode(Protocol):
    """One way to make a training step."""

    def step(self, loss: Loss) -> bool:
        """Forward, backward, update; whether the weights were updated."""


class Plain:
    """The dtype of the weights throughout."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, loss: Loss) -> bool:
        """One step."""
        self.optimizer.zero_grad()
        torch.autograd.backward(loss())
        self.optimizer.step()
        return True


class Autocast:
    """torch.autocast over float32 weights; with torch's GradScaler for float16."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        dtype: torch.dtype = torch.bfloat16,
        *,
        device: str = "cpu",
        scale: float = 2.0**15,
    ) -> None:
        if dtype not in (torch.bfloat16, torch.float16):
            raise ValueError(f"dtype={dtype} is no half precision; give torch.bfloat16 or torch.float16")
        self.optimizer, self.dtype, self.device = optimizer, dtype, device
        self.scaler = torch.amp.GradScaler(device, init_scale=scale, enabled=dtype == torch.float16)

    def step(self, loss: Loss) -> bool:
        """One step; skipped when a gradient is not finite."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device, self.dtype):
            value = loss()
        torch.autograd.backward(self.scaler.scale(value))
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return bool(self.scaler.get_scale() >= before)


@dataclass(slots=True)
class Scale:
    """The dynamic scale of a loss.

    >>> scale = Scale(8.0, patience=2)
    >>> [(scale.update(finite=finite), scale.now)[1] for finite in (True, True, False, True)]
    [8.0, 16.0, 8.0, 8.0]
    """

    now: float = 2.0**15
    patience: int = 2000
    good: int = 0

    def update(self, *, finite: bool) -> None:
        """Halve after a step that overflowed, double after `patience` that did not."""
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.now /= 2
        elif self.good == self.patience:
            self.now, self.good = self.now * 2, 0


class Masters:
    """Casts a model to half precision in place and steps float32 copies of its weights, which are written back.

    `build` makes the optimizer for the copies: `lambda params: torch.optim.Adam(params, lr=1e-3)`. `scale=None` leaves
    the loss as it is, as for bfloat16. Buffers are cast too.
    """

    def __init__(
        self,
        model: nn.Module,
        build: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
        *,
        dtype: torch.dtype = torch.float16,
        scale: Scale | None = None,
    ) -> None:
        self.params = [param for param in model.parameters() if param.requires_grad]
        if strange := {param.dtype for param in self.params} - {torch.float32}:
            raise ValueError(f"the model has weights in {strange}; give one in float32, its values become the masters")
        self.masters = [nn.Parameter(param.detach().clone()) for param in self.params]
        self.optimizer = build(self.masters)
        self.scale = scale
        model.to(dtype)

    @torch.no_grad()
    def step(self, loss: Loss) -> bool:
        """One step; skipped when a gradient is not finite."""
        scale = self.scale.now if self.scale else 1.0
        with torch.enable_grad():
            torch.autograd.backward(loss() * scale)
        self._unscale(scale)
        finite = all(bool(master.grad.isfinite().all()) for master in self.masters if master.grad is not None)
        if self.scale:
            self.scale.update(finite=finite)
        if not finite and self.scale:
            return False
        self.optimizer.step()
        for param, master in zip(self.params, self.masters, strict=True):
            param.copy_(master)
        return True

    def _unscale(self, scale: float) -> None:
        """Move gradients to the masters, in float32 and divided by the scale."""
        for param, master in zip(self.params, self.masters, strict=True):
            master.grad = None if param.grad is None else param.grad.float() / scale
            param.grad = None

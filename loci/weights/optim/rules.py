"""Update rules: what turns a gradient, whole or projected, into an update. Points of the optimizers, not optimizers.

A rule reads its options from the parameter group, so that schedulers can move them, and keeps its moments in the
tensor's state. `one` is the obvious form; `many` takes lists and is its fused form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

Group: TypeAlias = dict[str, Any]
State: TypeAlias = dict[str, Any]


class Rule(Protocol):
    """Gradient in, update out, moments in `state`; `state["step"]` counts from 1."""

    def one(self, grad: Tensor, state: State, group: Group) -> Tensor:
        """The update of one tensor."""
        ...

    def many(self, grads: list[Tensor], states: Sequence[State], group: Group) -> list[Tensor]:
        """The updates of many tensors of one device and dtype."""
        ...


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam: m / (sqrt(v) + eps) with both bias corrections (Kingma and Ba, arXiv:1412.6980, algorithm 1).

    `hat` says where eps stands: beside sqrt(v / (1 - beta2^t)) as in the paper and in torch, or beside sqrt(v), as in
    the AdamW of Hugging Face on which GaLore and APOLLO were built. Group: betas, eps.
    """

    hat: bool = False
    corrected: bool = True

    def one(self, grad: Tensor, state: State, group: Group) -> Tensor:
        """The update of one tensor."""
        beta1, beta2 = group["betas"]
        m, v = _moment(state, "exp_avg", grad), _moment(state, "exp_avg_sq", grad)
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        scale, eps = self._factors(state, group)
        return m.div(v.sqrt().add_(eps)).mul_(scale)

    def many(self, grads: list[Tensor], states: Sequence[State], group: Group) -> list[Tensor]:
        """The updates of many tensors."""
        beta1, beta2 = group["betas"]
        ms = [_moment(state, "exp_avg", grad) for state, grad in zip(states, grads, strict=True)]
        vs = [_moment(state, "exp_avg_sq", grad) for state, grad in zip(states, grads, strict=True)]
        torch._foreach_lerp_(ms, grads, 1 - beta1)
        torch._foreach_mul_(vs, beta2)
        torch._foreach_addcmul_(vs, grads, grads, 1 - beta2)
        scales, epses = zip(*(self._factors(state, group) for state in states), strict=True)
        below = torch._foreach_sqrt(vs)
        torch._foreach_add_(below, list(epses))
        if len(below) == 1:  # in its place: a new tensor costs a CPU as much as the division
            torch.div(ms[0], below[0], out=below[0])
        updates = list(below if len(below) == 1 else torch._foreach_div(ms, below))
        if any(scale != 1 for scale in scales):
            torch._foreach_mul_(updates, list(scales))
        return updates

    def _factors(self, state: State, group: Group) -> tuple[float, float]:
        root = math.sqrt(1 - group["betas"][1] ** state["step"]) if self.hat else 1
        return correction(state, group) if self.corrected else 1.0, group["eps"] * root


def widened(x: Tensor) -> Tensor:
    """In float32 at least, for norms: float64 stays what it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def correction(state: State, group: Group) -> float:
    """What both bias corrections of Adam do to its step size: sqrt(1 - beta2^t) / (1 - beta1^t)."""
    beta1, beta2 = group["betas"]
    return float(math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"]))


@dataclass(frozen=True, slots=True)
class Momentum:
    """SGD with momentum as in torch, b = mu*b + g; with `mean` a mean, b = mu*b + (1 - mu)*g. The first b is g.

    Group: momentum.
    """

    mean: bool = False

    def one(self, grad: Tensor, state: State, group: Group) -> Tensor:
        """The update of one tensor."""
        momentum = group["momentum"]
        if momentum == 0:
            return grad
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = grad.clone()
        else:
            state["momentum_buffer"].mul_(momentum).add_(grad, alpha=1 - momentum if self.mean else 1)
        held: Tensor = state["momentum_buffer"]
        return held

    def many(self, grads: list[Tensor], states: Sequence[State], group: Group) -> list[Tensor]:
        """The updates of many tensors; those that start are taken one by one."""
        momentum = group["momentum"]
        if momentum == 0:
            return grads
        pairs = list(zip(grads, states, strict=True))
        old = [(grad, state) for grad, state in pairs if "momentum_buffer" in state]
        if old:
            buffers = [state["momentum_buffer"] for _, state in old]
            given = [grad for grad, _ in old]
            if self.mean:
                torch._foreach_lerp_(buffers, given, 1 - momentum)
            else:
                torch._foreach_mul_(buffers, momentum)
                torch._foreach_add_(buffers, given)
        for grad, state in pairs:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = grad.clone()
        return [state["momentum_buffer"] for state in states]


@dataclass(frozen=True, slots=True)
class Adafactor:
    """Adafactor: a second moment of rank one, no first moment (Shazeer and Stern, arXiv:1804.04235, algorithm 4).

    As GaLore uses it: step size from outside, no parameter scaling, updates clipped to a root mean square of 1.
    beta2_t = 1 - t^-0.8. A vector keeps its whole second moment. Group: nothing.
    """

    floor = 1e-30

    def one(self, grad: Tensor, state: State, group: Group) -> Tensor:
        """The update of one tensor."""
        rest = float(state["step"]) ** -0.8
        square = grad.square().add_(self.floor)
        if grad.dim() < 2:
            v = _moment(state, "exp_avg_sq", grad).lerp_(square, rest)
            update = grad * v.rsqrt()
        else:
            row = _moment(state, "exp_avg_sq_row", grad[..., 0]).lerp_(square.mean(-1), rest)  # (m)
            col = _moment(state, "exp_avg_sq_col", grad[..., 0, :]).lerp_(square.mean(-2), rest)  # (n)
            del square  # one tensor of full size lives at a time
            update = (row / row.mean(-1, keepdim=True)).rsqrt().unsqueeze(-1) * col.rsqrt().unsqueeze(-2)
            update.mul_(grad)
        size = torch.linalg.vector_norm(update) / math.sqrt(max(update.numel(), 1))
        return update.div_(size.clamp_(min=1))

    def many(self, grads: list[Tensor], states: Sequence[State], group: Group) -> list[Tensor]:
        """The updates of many tensors: means over rows have no fused form."""
        return [self.one(grad, state, group) for grad, state in zip(grads, states, strict=True)]


def _moment(state: State, name: str, like: Tensor) -> Tensor:
    if name not in state:
        state[name] = torch.zeros_like(like, memory_format=torch.contiguous_format)
    held: Tensor = state[name]
    return held

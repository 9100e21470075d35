"""Moments in 8-bit blocks: one byte an element and one float32 a block of 256.

Paper: Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", arXiv:2110.02861, sec. 2.
Differs: every tensor is quantised, small ones too; the code is rounded to nearest by bisection.
Under `fully_shard` blocks begin anew in each shard: where shards are multiples of 256 elements nothing changes by it.
Keeps: d + 4*ceil(d/256) bytes for a moment of d elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from loci.weights.optim.rules import Group, Rule, State
from loci.weights.optim.sharding import alongside, largest, own, rejoined, sharded

BLOCK = 256


@cache
def levels(*, signed: bool) -> Tensor:
    """The 256 levels of the dynamic tree code in [-1, 1] or [0, 1], ascending, 0 and 1 among them.

    A value has a decimal exponent of 0 to -6 and, of the bits that the exponent leaves, a linear fraction of [0.1, 1]:
    small numbers keep their order of magnitude, large ones their digits.

    >>> code = levels(signed=True); len(code), float(code.min()) < -0.99, float(code.max()), bool((code == 0).any())
    (256, True, 1.0, True)
    """
    values = [0.0, 1.0]
    for exponent in range(7):  # 10^-6 ... 10^0
        count = 2**exponent if signed else 2 ** (exponent + 1)
        edges = torch.linspace(0.1, 1, count + 1, dtype=torch.float64)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - 6)
        values += middles.tolist()
        if signed:
            values += (-middles).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32)


def quantize(x: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes (uint8, the shape of x) and the largest magnitude of each block (float32)."""
    if sharded(x):  # each rank's rows have blocks of their own
        codes, absmax = quantize(own(x), signed=signed)
        absmax = torch.nn.functional.pad(absmax, (0, -(-largest(x) // BLOCK) - len(absmax)))
        return rejoined(codes, x), alongside(absmax, x)
    flat = x.detach().reshape(-1).float()
    rows = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    absmax = rows.abs().amax(1)
    unit = rows / torch.where(absmax > 0, absmax, 1).unsqueeze(1)
    code = levels(signed=signed).to(x.device)
    codes = torch.bucketize(unit, (code[1:] + code[:-1]) / 2, out_int32=True).to(torch.uint8)
    return codes.view(-1)[: len(flat)].clone().view(x.shape), absmax


def dequantize(codes: Tensor, absmax: Tensor, *, signed: bool) -> Tensor:
    """What the codes stand for, float32.

    >>> x = torch.tensor([0.0, -1.0, 0.5, 1e-4])
    >>> bool((dequantize(*quantize(x, signed=True), signed=True) - x).abs().max() < 0.02)
    True
    """
    if sharded(codes):
        return rejoined(dequantize(own(codes), own(absmax), signed=signed), codes)
    flat = levels(signed=signed).to(codes.device)[codes.reshape(-1).int()]
    scale = absmax.repeat_interleave(BLOCK)[: len(flat)]
    return (flat * scale).view(codes.shape)


@dataclass(frozen=True, slots=True)
class EightBit:
    """A rule over moments that are kept in 8-bit blocks: unpacked to float32, stepped, packed again."""

    inner: Rule

    def one(self, grad: Tensor, state: State, group: Group) -> Tensor:
        """The update of one tensor."""
        wide: State = {"step": state["step"]}
        for name in [name for name in state if name + "_absmax" in state]:
            wide[name] = dequantize(state[name], state[name + "_absmax"], signed=_signed(name))
        update = self.inner.one(grad.float(), wide, group).to(grad.dtype, copy=True)
        for name, value in wide.items():
            if isinstance(value, Tensor):
                state[name], state[name + "_absmax"] = quantize(value, signed=_signed(name))
        return update

    def many(self, grads: list[Tensor], states: Sequence[State], group: Group) -> list[Tensor]:
        """The updates of many tensors, one after the other: only one is unpacked at a time."""
        return [self.one(grad, state, group) for grad, state in zip(grads, states, strict=True)]


def _signed(name: str) -> bool:
    return "_sq" not in name  # second moments are never negative

"""The frame of recurrent cells: what depends on the input alone is computed for all moments at once.

    d_1..T = W x_1..T + b          one product for the whole sequence
    out_t, s_t = advance(d_t, s_{t-1})                moment by moment
    y_1..T = V out_1..T + c        one product again

A cell is a choice of `gates` (how many rows of n its input drives), `parts` (how many states it has) and `advance`. `step` is
the same for one moment and the oracle of `scan`, which saves two of three products a moment. Where torch has a fused kernel
for the equations of a cell, the cell's own `scan` runs that.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from loci.state.mixer import Mixer, State


class Recurrent(Mixer):
    """A cell of n units between an input map and a readout, both linear."""

    gates: ClassVar[int] = 1  # rows of n units that the input drives
    parts: ClassVar[int] = 1  # tensors (B, n) in the state

    def __init__(self, D: int, n: int, *, recurrent_bias: bool = False) -> None:
        super().__init__()
        if min(D, n) < 1:
            raise ValueError(f"D={D}, n={n} is no layer; give a width and a number of units of at least 1")
        self.D, self.n = D, n
        self.inward = nn.Linear(D, self.gates * n)
        self.recurrent = nn.Linear(n, self.gates * n, bias=recurrent_bias)
        self.readout = nn.Linear(n, D)

    @abstractmethod
    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment, given what the input drives (B, gates * n): the units' output (B, n) and the state after it."""

    def emit(self, out: Tensor) -> Tensor:
        """What is made of the units' outputs, at one moment or at all of them: (..., n) -> (..., D)."""
        y: Tensor = self.readout(out)
        return y

    def initial_state(self, batch: int) -> State:
        """Zeros."""
        return tuple(self.readout.weight.new_zeros(batch, self.n) for _ in range(self.parts))

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows of n units, D wide, of b bytes each."""
        return {"B": batch, "n": self.n, "D": self.D, "b": self.readout.weight.element_size()}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Drive, advance, emit."""
        out, state = self.advance(self.inward(x), state)
        return self.emit(out), state

    def weights(self) -> list[Tensor]:
        """Its weights as torch's fused kernels take them, which add two biases."""
        bias, none = self.recurrent.bias, torch.zeros_like(self.inward.bias)
        return [self.inward.weight, self.recurrent.weight, self.inward.bias, none if bias is None else bias]

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Drive all moments, advance through them, emit all."""
        outs = []
        for driven in self.inward(x).unbind(1):
            out, state = self.advance(driven, state)
            outs.append(out)
        return (self.emit(torch.stack(outs, 1)) if outs else x.new_zeros(x.shape)), state

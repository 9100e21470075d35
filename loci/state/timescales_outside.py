"""A leaky recurrent network that learns how slow each unit is, the leak outside the nonlinearity: a running mean of its units.

    h_t = (1 - 1/tau) * h_{t-1} + (1/tau) * f(W h_{t-1} + W_in x_t + b),       y_t = V h_t + c

The rest is as in `EmergentTimescales`. What is remembered passes no nonlinearity, so with W = 0 and no drive a unit fades by
exactly 1 - 1/tau a moment whatever f is, and with a bounded f the state is bounded.

Paper: Khajehabdollahi, Zeraati, Giannakakis, Schaefer, Martius, Levina, "Emergent mechanisms for long timescales depend on
training curriculum and affect performance in memory tasks", arXiv:2309.12927, the modified model of its appendix.
Differs: as `EmergentTimescales` does.
Keeps: b*B*n bytes.

>>> cell = OutsideTimescales(3, 5, activation="tanh")
>>> y, (h,) = cell(torch.ones(2, 4, 3))
>>> y.shape, bool((h.abs() < 1).all())
(torch.Size([2, 4, 3]), True)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from loci.core.card import method
from loci.state.mixer import State
from loci.state.timescales import Timescales


@method(
    name="emergent-timescales-outside",
    kind="mixer",
    title="Emergent mechanisms for long timescales depend on training curriculum and affect performance in memory tasks",
    paper="arXiv:2309.12927",
    says="a leaky recurrent network that learns a time constant for each unit, the leak outside the nonlinearity",
    bytes="b*B*n",
    example={"D": 4, "n": 6},
    needs=("torch",),
    system="emergent_timescales",
)
class OutsideTimescales(Timescales):
    """The leak outside: each unit is a running mean of what f makes of the others."""

    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment, as the equation has it."""
        tau, (last,) = self.timescales(), state
        h = (1 - 1 / tau) * last + self.act(functional.linear(last, self.between()) + driven) / tau
        return h, (h,)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments; what is the same in each is computed once."""
        rate, W, (h,) = 1 / self.timescales(), self.between(), state
        outs = []
        for driven in self.inward(x).unbind(1):
            h = h.lerp(self.act(functional.linear(h, W) + driven).to(h.dtype), rate)
            outs.append(h)
        return (self.emit(torch.stack(outs, 1)) if outs else x.new_zeros(x.shape)), (h,)

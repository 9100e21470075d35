"""A leaky recurrent network that learns how slow each unit is: one time constant a unit, the leak inside the nonlinearity.

    h_t = f( (1 - 1/tau) * h_{t-1} + (1/tau) * (W h_{t-1} + W_in x_t + b) ),       y_t = V h_t + c
    tau = max(1, tau') elementwise, tau' learned from 1 + U(0, 1) on;        diag(W) = 0

A unit left alone forgets within about tau moments; a network of fast units can still remember for longer, through W. No unit
is connected to itself, which would be a second time constant. Below 1 no gradient reaches tau', so that such a unit stays a
plain one: with tau = 1 everywhere this is a vanilla network.

`step` is the equation. `scan` folds the leak into the weights once for the whole sequence, since inside f all is linear:
A = diag(1 - 1/tau) + diag(1/tau) W and h_t = f(A h_{t-1} + (W_in x_t + b) / tau), one product a moment.

Paper: Khajehabdollahi, Zeraati, Giannakakis, Schaefer, Martius, Levina, "Emergent mechanisms for long timescales depend on
training curriculum and affect performance in memory tasks", arXiv:2309.12927, equation 1.
Differs: the state starts at 0.1 * U(0, 1) as in the paper, but drawn once, at construction, and then kept as a buffer;
`random_state` draws one for each row, as the authors do in every run. The diagonal of W is subtracted in place of being
overwritten before every run, which is the same network. One bias for the code's two, which are only ever added.
Keeps: b*B*n bytes; tau is n numbers beside the n^2 + n*D + n + D*n + D of the weights.

>>> cell = EmergentTimescales(3, 5)
>>> y, (h,) = cell(torch.ones(2, 4, 3))
>>> y.shape, h.shape, bool((cell.timescales() >= 1).all())
(torch.Size([2, 4, 3]), torch.Size([2, 5]), True)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import method
from loci.state.mixer import State
from loci.state.recurrent import Recurrent

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "leaky_relu": functional.leaky_relu,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


class Timescales(Recurrent):
    """n units with a learned time constant each and none connected to itself; members say where the leak is."""

    start: Tensor

    def __init__(self, D: int, n: int, *, activation: str = "leaky_relu") -> None:
        super().__init__(D, n)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
        self.activation = activation
        self.tau = nn.Parameter(1 + torch.rand(n))
        self.register_buffer("start", 0.1 * torch.rand(n))

    def timescales(self) -> Tensor:
        """The time constants (n,) in moments: what is learned, but at least 1; without gradient below."""
        return self.tau.clamp(min=1.0)

    def between(self) -> Tensor:
        """W (n, n), without connections of a unit to itself; no gradient reaches those."""
        W: Tensor = self.recurrent.weight
        return W - W.diagonal().diag_embed()

    def act(self, total: Tensor) -> Tensor:
        """The nonlinearity f."""
        return ACTIVATIONS[self.activation](total)

    def initial_state(self, batch: int) -> State:
        """The same for every row: 0.1 * U(0, 1), drawn at construction."""
        return (self.start.expand(batch, -1).clone(),)

    def random_state(self, batch: int, *, random: torch.Generator) -> State:
        """The paper's start, 0.1 * U(0, 1) anew for each row; for training."""
        return (0.1 * torch.rand(batch, self.n, generator=random).to(self.start),)


@method(
    name="emergent-timescales",
    kind="mixer",
    title="Emergent mechanisms for long timescales depend on training curriculum and affect performance in memory tasks",
    paper="arXiv:2309.12927",
    says="a leaky recurrent network that learns a time constant for each unit, the leak inside the nonlinearity",
    bytes="b*B*n",
    example={"D": 4, "n": 6},
    needs=("torch",),
    system="emergent_timescales",
)
class EmergentTimescales(Timescales):
    """The leak inside: f of the whole, so that the nonlinearity acts on what is remembered too."""

    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment, as the equation has it."""
        tau, (last,) = self.timescales(), state
        h = self.act((1 - 1 / tau) * last + (functional.linear(last, self.between()) + driven) / tau)
        return h, (h,)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments, the leak folded into the weights and into what the input drives."""
        tau, (h,) = self.timescales(), state
        A = (1 - 1 / tau).diag_embed() + self.between() / tau.unsqueeze(1)
        outs = []
        for driven in (self.inward(x) / tau).unbind(1):
            h = self.act(functional.linear(h, A) + driven)
            outs.append(h)
        return (self.emit(torch.stack(outs, 1)) if outs else x.new_zeros(x.shape)), (h,)

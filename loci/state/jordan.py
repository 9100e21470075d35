"""Jordan's network: the units see the input and what the network last said.

    h_t = tanh(W x_t + U c_{t-1} + b),    y_t = V h_t + a,    c_t = decay * c_{t-1} + y_t

The context c is fed by outputs with weight 1 and decays; neither is trained. With V = I, a = 0, decay = 0 it is Elman's.

Paper: Jordan, "Serial Order: A Parallel Distributed Processing Approach", 1986, in the notation of Lipton, Berkowitz, Elkan, "A
Critical Review of Recurrent Neural Networks for Sequence Learning", arXiv:1506.00019.
Differs: tanh for the logistic function; the output that is fed back is linear, no softmax.
Keeps: b*B*D bytes: as wide as the output, however many units there are.

>>> y, (context,) = Jordan(3, 5)(torch.ones(2, 4, 3))
>>> bool((context == y[:, -1]).all())
True
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.mixer import Mixer, State


@method(
    name="jordan",
    kind="mixer",
    title="Serial Order: A Parallel Distributed Processing Approach",
    paper="doi:10.1016/S0166-4115(97)80111-2",
    says="a recurrent network whose memory is its own decaying output",
    bytes="b*B*D",
    example={"D": 4, "n": 6, "decay": 0.5},
    needs=("torch",),
    system="rnn_review",
)
class Jordan(Mixer):
    """n tanh units that see the context; `decay` in [0, 1) is what a context keeps of itself."""

    def __init__(self, D: int, n: int, *, decay: float = 0.0) -> None:
        super().__init__()
        if min(D, n) < 1:
            raise ValueError(f"D={D}, n={n} is no layer; give a width and a number of units of at least 1")
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} would keep or grow the context for ever; choose 0 <= decay < 1")
        self.D, self.n, self.decay = D, n, decay
        self.inward = nn.Linear(D, n)
        self.recurrent = nn.Linear(D, n, bias=False)
        self.readout = nn.Linear(n, D)

    def initial_state(self, batch: int) -> State:
        """An empty context."""
        return (self.readout.weight.new_zeros(batch, self.D),)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows of outputs, D wide, of b bytes each."""
        return {"B": batch, "n": self.n, "D": self.D, "b": self.readout.weight.element_size()}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Look, speak, keep what was said."""
        return self.speak(self.inward(x), state)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The same, with the input's part computed for all moments at once."""
        said = []
        for driven in self.inward(x).unbind(1):
            y, state = self.speak(driven, state)
            said.append(y)
        return (torch.stack(said, 1) if said else x.new_zeros(x.shape)), state

    def speak(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment, given what the input drives (B, n)."""
        (context,) = state
        y: Tensor = self.readout(torch.tanh(driven + self.recurrent(context)))
        return y, (self.decay * context + y if self.decay else y,)

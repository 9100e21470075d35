"""A simple recurrent network of rectified units that starts by remembering: its recurrent weights are the identity.

    h_t = max(0, W x_t + U h_{t-1} + b),    U = I, b = 0 at the start,        y_t = V h_t + c

With no input a state is kept as it is, and so is a gradient, for as long as U stays near the identity.

Paper: Le, Jaitly, Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units", arXiv:1504.00941.
Differs: nothing; `scale` below 1 is the paper's choice for tasks of short lags.
Keeps: b*B*n bytes.

>>> cell = IRNN(3, 5)
>>> bool((cell.recurrent.weight == torch.eye(5)).all())
True
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.mixer import State
from loci.state.recurrent import Recurrent


@method(
    name="irnn",
    kind="mixer",
    title="A Simple Way to Initialize Recurrent Networks of Rectified Linear Units",
    paper="arXiv:1504.00941",
    says="rectified recurrent units that start as an exact memory: identity weights",
    bytes="b*B*n",
    example={"D": 4, "n": 6},
    needs=("torch",),
    system="rnn_review",
)
class IRNN(Recurrent):
    """n rectified units; `scale` times the identity is where their recurrent weights start."""

    def __init__(self, D: int, n: int, *, scale: float = 1.0, std: float = 0.001) -> None:
        super().__init__(D, n)
        with torch.no_grad():
            self.recurrent.weight.copy_(scale * torch.eye(n))
            nn.init.normal_(self.inward.weight, std=std)
            nn.init.zeros_(self.inward.bias)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments in torch's fused kernel, which is cuDNN's on a GPU."""
        out, h = torch.rnn_relu(x, state[0].unsqueeze(0), self.weights(), True, 1, 0.0, True, False, True)
        return self.emit(out), (h[0],)

    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment of the units."""
        h = torch.relu(driven + self.recurrent(state[0]))
        return h, (h,)

"""The LSTM before it could forget: what enters the inner state stays in it.

    s_t = g * i + s_{t-1},    h_t = tanh(s_t) * o,        i, o, g as in the LSTM: the forget gate is 1

The constant error carousel: along s a gradient is multiplied by 1, exactly. The price is that s only ever adds up.

Paper: Hochreiter, Schmidhuber, "Long Short-Term Memory", 1997, in the notation of Lipton, Berkowitz, Elkan, "A Critical Review
of Recurrent Neural Networks for Sequence Learning", arXiv:1506.00019.
Differs: tanh for the paper's logistic functions stretched to [-2, 2] and [-1, 1]; one cell a block. Gradients are full: for
the paper's truncated ones see `lstm-1997`.
Keeps: 2*b*B*n bytes.

>>> cell = NoForgetLSTM(3, 5)
>>> cell.inward.weight.shape
torch.Size([15, 3])
"""

from __future__ import annotations

import torch
from torch import Tensor

from loci.core.card import method
from loci.state.mixer import State
from loci.state.recurrent import Recurrent


@method(
    name="lstm-no-forget",
    kind="mixer",
    title="Long Short-Term Memory",
    paper="doi:10.1162/neco.1997.9.8.1735",
    says="an LSTM without forget gate: its inner state only adds up, and carries gradients unchanged",
    bytes="2*b*B*n",
    example={"D": 4, "n": 6},
    needs=("torch",),
    system="rnn_review",
)
class NoForgetLSTM(Recurrent):
    """n cells with input and output gates (rows i, g, o); the state is (h, s)."""

    gates = 3
    parts = 2

    def __init__(self, D: int, n: int) -> None:
        super().__init__(D, n)

    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """Gate, add, show."""
        h, s = state
        i, g, o = (driven + self.feed_back(h)).chunk(3, -1)
        s = torch.tanh(g) * torch.sigmoid(i) + s
        h = torch.tanh(s) * torch.sigmoid(o)
        return h, (h, s)

    def feed_back(self, h: Tensor) -> Tensor:
        """What the last outputs drive."""
        drive: Tensor = self.recurrent(h)
        return drive

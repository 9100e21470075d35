"""An LSTM whose gates see the inner state itself, so that it can count and time.

    i = sigmoid(a_i + p_i * s_{t-1}),    f = sigmoid(a_f + p_f * s_{t-1}),    g = tanh(a_g),    a = W x_t + U h_{t-1} + b
    s_t = g * i + s_{t-1} * f,    o = sigmoid(a_o + p_o * s_t),    h_t = tanh(s_t) * o,        y_t = V h_t + c

The output gate sees the new state, the other two the old one. With p = 0 it is the LSTM.

Paper: Gers, Schmidhuber, "Recurrent Nets that Time and Count", 2000, in the notation of Lipton, Berkowitz, Elkan, "A Critical
Review of Recurrent Neural Networks for Sequence Learning", arXiv:1506.00019.
Differs: gradients flow through the peepholes (Graves 2013); the paper cut them.
Keeps: 2*b*B*n bytes.

>>> sum(p.numel() for p in PeepholeLSTM(3, 5).parameters()) - sum(p.numel() for p in LSTM(3, 5).parameters())
15
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.lstm import LSTM
from loci.state.mixer import State
from loci.state.recurrent import Recurrent


@method(
    name="lstm-peephole",
    kind="mixer",
    title="Recurrent Nets that Time and Count",
    paper="doi:10.1109/IJCNN.2000.861302",
    says="an LSTM whose gates see the inner state, so that it can count and time",
    bytes="2*b*B*n",
    example={"D": 4, "n": 6},
    needs=("torch",),
    system="rnn_review",
)
class PeepholeLSTM(LSTM):
    """n cells, each with three peepholes (rows i, f, o), drawn as small as the recurrent weights; the state is (h, s)."""

    def __init__(self, D: int, n: int, *, forget_bias: float = 1.0) -> None:
        super().__init__(D, n, forget_bias=forget_bias)
        self.peephole = nn.Parameter(torch.empty(3, n).uniform_(-(n**-0.5), n**-0.5))

    scan = Recurrent.scan  # no fused kernel knows of peepholes

    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """Gate, write, gate again, show."""
        h, s = state
        i, f, g, o = (driven + self.recurrent(h)).chunk(4, -1)
        p_i, p_f, p_o = self.peephole
        s = torch.tanh(g) * torch.sigmoid(i + p_i * s) + s * torch.sigmoid(f + p_f * s)
        h = torch.tanh(s) * torch.sigmoid(o + p_o * s)
        return h, (h, s)

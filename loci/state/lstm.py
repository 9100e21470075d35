"""Long short-term memory: an inner state that gates write, keep and show.

    i, f, o = sigmoid(W x_t + U h_{t-1} + b),    g = tanh(...) likewise
    s_t = g * i + s_{t-1} * f,    h_t = tanh(s_t) * o,        y_t = V h_t + c

Along s alone a gradient is multiplied by f, and by nothing else. The rows of W, U and b are those of torch.nn.LSTM: i, f,
g, o.

Paper: Hochreiter, Schmidhuber 1997, with the forget gate of Gers, Schmidhuber, Cummins 2000, in the notation of Lipton,
Berkowitz, Elkan, "A Critical Review of Recurrent Neural Networks for Sequence Learning", arXiv:1506.00019.
Differs: the forget gate's bias starts at 1 (Jozefowicz et al. 2015), `forget_bias=0.0` has it as published; one bias, where
torch.nn.LSTM adds two.
Keeps: 2*b*B*n bytes.

>>> cell = LSTM(3, 5)
>>> y, (h, s) = cell(torch.ones(2, 4, 3))
>>> h.shape, s.shape
(torch.Size([2, 5]), torch.Size([2, 5]))
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.mixer import State
from loci.state.recurrent import Recurrent


@method(
    name="lstm",
    kind="mixer",
    title="Learning to Forget: Continual Prediction with LSTM",
    paper="doi:10.1162/089976600300015015",
    says="long short-term memory: an inner state that gates write, keep and show",
    bytes="2*b*B*n",
    example={"D": 4, "n": 6},
    needs=("torch",),
    system="rnn_review",
)
class LSTM(Recurrent):
    """n cells with input, forget and output gates; the state is (h, s)."""

    gates = 4
    parts = 2

    def __init__(self, D: int, n: int, *, forget_bias: float = 1.0) -> None:
        super().__init__(D, n)
        nn.init.constant_(self.inward.bias[n : 2 * n], forget_bias)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments in torch's fused kernel, which is cuDNN's on a GPU."""
        if x.is_cpu and torch.is_autocast_enabled("cpu"):
            return super().scan(x, state)  # torch's own LSTM fails there on a CPU without bfloat16
        h, s = (part.unsqueeze(0) for part in state)
        out, h, s = torch.lstm(x, (h, s), self.weights(), True, 1, 0.0, True, False, True)
        return self.emit(out), (h[0], s[0])

    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """Gate, write, show."""
        h, s = state
        i, f, g, o = (driven + self.recurrent(h)).chunk(4, -1)
        s = torch.tanh(g) * torch.sigmoid(i) + s * torch.sigmoid(f)
        h = torch.tanh(s) * torch.sigmoid(o)
        return h, (h, s)

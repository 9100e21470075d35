"""The gated recurrent unit: one gate blends the old state with a new one, another hides the old from the new.

    r, z = sigmoid(W x_t + U h_{t-1} + b),    g = tanh(W_g x_t + b_g + r * (U_g h_{t-1} + d_g))
    h_t = (1 - z) * g + z * h_{t-1},        y_t = V h_t + c

The rows of W, U and b are those of torch.nn.GRU: r, z, g.

Paper: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
arXiv:1406.1078.
Differs: r gates U_g h, where the paper's first version has U_g (r * h); so do torch.nn.GRU and cuDNN, and it saves waiting.
Keeps: b*B*n bytes.

>>> y, (h,) = GRU(3, 5)(torch.ones(2, 4, 3))
>>> y.shape, h.shape
(torch.Size([2, 4, 3]), torch.Size([2, 5]))
"""

from __future__ import annotations

import torch
from torch import Tensor

from loci.core.card import method
from loci.state.mixer import State
from loci.state.recurrent import Recurrent


@method(
    name="gru",
    kind="mixer",
    title="Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
    paper="arXiv:1406.1078",
    says="gated recurrent units: a state that is blended with its successor",
    bytes="b*B*n",
    example={"D": 4, "n": 6},
    needs=("torch",),
    system="rnn_review",
)
class GRU(Recurrent):
    """n units with reset and update gates; the state is h."""

    gates = 3

    def __init__(self, D: int, n: int) -> None:
        super().__init__(D, n, recurrent_bias=True)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments in torch's fused kernel, which is cuDNN's on a GPU."""
        out, h = torch.gru(x, state[0].unsqueeze(0), self.weights(), True, 1, 0.0, True, False, True)
        return self.emit(out), (h[0],)

    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """Hide, propose, blend."""
        (h,) = state
        r, z, g = driven.chunk(3, -1)
        r_of_h, z_of_h, g_of_h = self.recurrent(h).chunk(3, -1)
        g = torch.tanh(g + torch.sigmoid(r + r_of_h) * g_of_h)
        z = torch.sigmoid(z + z_of_h)
        h = g + z * (h - g)
        return h, (h,)

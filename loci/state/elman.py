"""The simple recurrent network: the units see the input and a copy of what they were.

    h_t = tanh(W x_t + U h_{t-1} + b),        y_t = V h_t + c

Elman's context units are the copy; the weight of copying is 1 and not trained. Gradients through k moments are products
of k Jacobians diag(1 - h^2) U, so their norm is at most sigma_max(U)^k: they vanish where sigma_max(U) < 1.

Paper: Elman, "Finding Structure in Time", 1990, in the notation of Lipton, Berkowitz, Elkan, "A Critical Review of Recurrent
Neural Networks for Sequence Learning", arXiv:1506.00019.
Differs: tanh for the logistic function; the readout is linear, a softmax is the loss's.
Keeps: b*B*n bytes.

>>> y, (h,) = Elman(3, 5)(torch.ones(2, 4, 3))
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
    name="elman",
    kind="mixer",
    title="Finding Structure in Time",
    paper="doi:10.1207/s15516709cog1402_1",
    says="a simple recurrent network: tanh units that see their own last values",
    bytes="b*B*n",
    example={"D": 4, "n": 6},
    needs=("torch",),
    system="rnn_review",
)
class Elman(Recurrent):
    """n tanh units; the state is their last values."""

    def __init__(self, D: int, n: int) -> None:
        super().__init__(D, n)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments in torch's fused kernel, which is cuDNN's on a GPU."""
        out, h = torch.rnn_tanh(x, state[0].unsqueeze(0), self.weights(), True, 1, 0.0, True, False, True)
        return self.emit(out), (h[0],)

    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment of the units."""
        h = torch.tanh(driven + self.recurrent(state[0]))
        return h, (h,)

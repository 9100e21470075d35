"""The LSTM as it was first trained: errors flow back through the inner state alone.

    s_t = g * i + s_{t-1} as in `lstm-no-forget`, with d h_{t-1} / d(anything) taken as 0 where h feeds back

An error that leaves a cell through its gates is cut after it has changed their weights. So no gradient can explode, and
those that stay on the carousel reach back unchanged; the gradient is not that of the loss.

Paper: Hochreiter, Schmidhuber, "Long Short-Term Memory", 1997, section 4 and appendix A.1: truncated backpropagation.
Differs: as `lstm-no-forget` does.
Keeps: 2*b*B*n bytes.

>>> import torch
>>> cell, x = LSTM1997(1, 2), torch.ones(1, 9, 1, requires_grad=True)
>>> cell(x)[1][1].sum().backward()
>>> bool((x.grad[0, 0] != 0).all())
True
"""

from __future__ import annotations

from torch import Tensor

from loci.core.card import method
from loci.state.lstm_no_forget import NoForgetLSTM


@method(
    name="lstm-1997",
    kind="mixer",
    title="Long Short-Term Memory",
    paper="doi:10.1162/neco.1997.9.8.1735",
    says="the first LSTM: no forget gate, and gradients through the inner state alone",
    bytes="2*b*B*n",
    example={"D": 4, "n": 6},
    needs=("torch",),
    system="rnn_review",
)
class LSTM1997(NoForgetLSTM):
    """A NoForgetLSTM under truncated backpropagation; outputs are the same."""

    def feed_back(self, h: Tensor) -> Tensor:
        """What the last outputs drive; they are given, for the gradient."""
        return super().feed_back(h.detach())

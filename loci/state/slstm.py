"""sLSTM: an LSTM with exponential gates, a normaliser beside the cell, and heads that feed back only to themselves.

    [i, f, z, o]_t = W x_t + R h_{t-1} + b                    block-diagonal by head; i and f see silu(conv(x))
    m_t = max(logsigmoid(f) + m_{t-1}, i),   f' = exp(logsigmoid(f) + m_{t-1} - m_t),   i' = exp(i - m_t)     equations (15)-(17)
    c_t = f' c_{t-1} + i' tanh(z),   n_t = f' n_{t-1} + i',   h_t = sigmoid(o) c_t / n_t                      equations (8)-(14)
    y_t = norm(h_t)                                           layer norm of each head

One of f', i' is 1, so n >= 1 from the first moment on: c / n is a weighted mean of what was seen, and never a division
by zero. h feeds back, so there is no parallel form; `scan` computes all that does not depend on h at once.

Paper: Beck et al., "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517; as in Schmidinger et al., "Bio-xLSTM",
arXiv:2411.04165.
Differs: m starts below everything, row by row; the authors' code starts from i where all rows of the batch are new, else
from 0, so that a row which starts anew beside others depends on them. m carries no gradient: h does not depend on it.
Keeps: s*B*(4*D + (W - 1)*D) bytes for a convolution of width W; s is 4, or 8 in float64.

>>> mixer = SLSTM(8, heads=2)
>>> y, state = mixer(torch.randn(3, 100, 8))
>>> y.shape, [tuple(part.shape) for part in state]
(torch.Size([3, 100, 8]), [(3, 2, 4), (3, 2, 4), (3, 2, 4), (3, 2, 4), (3, 3, 8)])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import method
from loci.state.mixer import Mixer, State
from loci.state.xlstm import UNSEEN, CausalConv, HeadNorm, Headwise, carried_dtype, require_heads


class Cell(NamedTuple):
    """The state of the cell, each (..., d): the true cell is exp(m) c, the true normaliser exp(m) n."""

    h: Tensor
    c: Tensor
    n: Tensor
    m: Tensor


@method(
    name="slstm",
    kind="mixer",
    title="Bio-xLSTM: Generative modeling, representation and in-context learning of biological and chemical sequences",
    paper="arXiv:2411.04165",
    says="an LSTM that can revise what it stored: exponential gates, a normaliser, and memory mixing within heads",
    bytes="s*B*(4*D + (W - 1)*D)",
    example={"D": 8, "heads": 2},
    needs=("torch",),
    system="bio_xlstm",
)
class SLSTM(Mixer):
    """The layer of the paper's sLSTM block: what is between its first norm and its first residual connection."""

    def __init__(
        self,
        D: int,
        *,
        heads: int = 4,
        conv: int = 4,
        depth: float = 0.0,  # of the block in the model, 0 the first and 1 the last: deeper ones forget later at the start
    ) -> None:
        super().__init__()
        self.D, self.heads, self.d = D, heads, require_heads(D, heads, "heads")
        self.conv = CausalConv(D, width=conv)
        self.W_if, self.W_zo = Headwise(D, blocks=heads, out=2), Headwise(D, blocks=heads, out=2)
        self.R = nn.Parameter(torch.zeros(heads, self.d, 4 * self.d))
        self.b = nn.Parameter(torch.zeros(heads, 4 * self.d))
        self.norm = HeadNorm(D)
        with torch.no_grad():  # as the authors do: from channels that remember to channels that forget, by a power law
            ramp = torch.linspace(0, 1, self.d) ** (0.3 + 1.3 * depth)
            self.b[:, self.d : 2 * self.d] = 5.0 - 12.0 * ramp

    def initial_state(self, batch: int) -> State:
        """h, c, n, m and the last inputs of the convolution."""
        like: dict[str, Any] = {"dtype": carried_dtype(self.R), "device": self.R.device}
        nothing = (torch.zeros(batch, self.heads, self.d, **like) for _ in range(3))
        return (
            *nothing,
            torch.full((batch, self.heads, self.d), UNSEEN, **like),
            torch.zeros(batch, self.conv.width - 1, self.D, **like),
        )

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B, D, W the convolution's width, s bytes of a number of the state."""
        return {"B": batch, "D": self.D, "W": self.conv.width, "s": carried_dtype(self.R).itemsize}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The recurrence, as the paper writes it."""
        fed, buffer = self._fed(x.unsqueeze(1), state)
        cell = Cell(*state[:4])
        with torch.autocast(x.device.type, enabled=False):
            back = torch.einsum("bhi,hio->bho", cell.h, self.R.to(cell.h.dtype))
            cell = moment(fed.squeeze(1) + back, cell)
        return self.norm(cell.h).to(x.dtype), (*cell, buffer)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The same, with every map of x before the loop and every norm after it."""
        fed, buffer = self._fed(x, state)
        cell, out = Cell(*(part.transpose(0, 1) for part in state[:4])), []  # (H, B, d), as batched products want it
        with torch.autocast(x.device.type, enabled=False):
            R = self.R.to(cell.h.dtype)
            for now in fed.permute(1, 2, 0, 3).unbind(0):  # (H, B, 4 d)
                cell = moment(torch.baddbmm(now, cell.h, R), cell)
                out.append(cell.h)
        h = torch.stack(out).permute(2, 0, 1, 3)  # (B, T, H, d)
        return self.norm(h).to(x.dtype), (*(part.transpose(0, 1).contiguous() for part in cell), buffer)

    def _fed(self, x: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """W x + b (B, T, H, 4 d), and the convolution's state."""
        mixed, buffer = self.conv(x, state[4])
        by_head = (self.heads, 2 * self.d)
        gates = self.W_if(functional.silu(mixed)).unflatten(-1, by_head)
        fed = torch.cat([gates, self.W_zo(x).unflatten(-1, by_head)], -1)
        return (fed + self.b).to(state[0].dtype), buffer


def moment(fed: Tensor, cell: Cell) -> Cell:
    """One moment of the cell, from the sums [i, f, z, o] (..., 4 d) that its gates take."""
    i, f, z, o = fed.chunk(4, -1)
    stays = functional.logsigmoid(f) + cell.m
    m = torch.maximum(stays, i).detach()
    kept, let = (stays - m).exp(), (i - m).exp()
    c = kept * cell.c + let * z.tanh()
    n = kept * cell.n + let
    return Cell(o.sigmoid() * c / n, c, n, m)

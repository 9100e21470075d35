"""The delta rule: a matrix memory that corrects what it says of a key, instead of adding to it.

    M_t = alpha_t M_{t-1} (I - eta_t k_t k_t^T) + eta_t v_t k_t^T,    y_t = M_t q_t              alpha, eta in (0, 1)

which is M_t = alpha_t M_{t-1} + u_t k_t^T with u_t = eta_t (v_t - alpha_t M_{t-1} k_t). With alpha = 1, eta = 1 and a unit
key the memory then says v_t, exactly. Two equal forms: `moment` is the recurrence; `parallel` finds all u of T moments by one
triangular system (the WY form), (I + L) U = diag(eta) (V - diag(A) K M_0^T), where A_t = alpha_1 ... alpha_t and
L_ts = eta_t (A_t / A_s) k_t . k_s for s < t; `scan` does so piece after piece.

Paper: Yang et al., "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", arXiv:2406.06484; with alpha
Yang, Kautz, Hatamizadeh, "Gated Delta Networks", arXiv:2412.06464.
Differs: alpha is a sigmoid, the second paper's exp(-A softplus) is Mamba's; keys and values pass no SiLU, and what is read
no norm and no gate of its own. The triangular system is solved, not inverted.
Keeps: b*B*(H*d*d + (W - 1)*3*H*d) bytes for H heads of d channels and a convolution of width W.

>>> mixer = DeltaRule(8, heads=2)
>>> y, (M, buffer) = mixer(torch.randn(3, 100, 8))
>>> y.shape, M.shape
(torch.Size([3, 100, 8]), torch.Size([3, 2, 4, 4]))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from loci.core.card import method
from loci.state.keyed import Keyed
from loci.state.mixer import Mixer, State
from loci.state.mlstm import segment_sums


class Fed(NamedTuple):
    """What the memory is fed at some moments, or at one, where T is absent."""

    q: Tensor  # (B, H, T, d)
    k: Tensor  # (B, H, T, d)
    v: Tensor  # (B, H, T, d)
    log_alpha: Tensor  # (B, H, T), what is kept
    eta: Tensor  # (B, H, T), how far it is corrected


@method(
    name="delta-rule",
    kind="mixer",
    title="Parallelizing Linear Transformers with the Delta Rule over Sequence Length",
    paper="arXiv:2406.06484",
    says="a matrix memory that overwrites what it says of a key, trained in parallel",
    bytes="b*B*(H*d*d + (W - 1)*3*H*d)",
    example={"D": 4, "heads": 2, "chunk": 5},
    needs=("torch",),
    system="atlas",
)
class DeltaRule(Mixer):
    """H heads of `head` channels, D // H unless given; the state is (M, last inputs of the convolution)."""

    def __init__(self, D: int, *, heads: int = 4, head: int | None = None, conv: int = 4, chunk: int = 64) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError(f"chunk={chunk} holds no moment; choose at least 1")
        self.D, self.chunk = D, chunk
        self.keyed = Keyed(
            D, heads=heads, head=head, conv=conv, biases=torch.stack([keeping(heads), torch.zeros(heads)])
        )

    def initial_state(self, batch: int) -> State:
        """An empty memory."""
        buffer, d = self.keyed.buffer(batch), self.keyed.d
        return buffer.new_zeros(batch, self.keyed.heads, d, d), buffer

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows of H heads of d channels, W the convolution's width, b bytes of a number of the state."""
        keyed = self.keyed
        return {"B": batch, "H": keyed.heads, "d": keyed.d, "W": keyed.conv.width, "b": keyed.dtype.itemsize}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The recurrence."""
        fed, buffer = self._fed(x.unsqueeze(1), state[1])
        with torch.autocast(x.device.type, enabled=False):
            read, M = moment(Fed(*(part.squeeze(2) for part in fed)), state[0])
        return self.keyed.say(read.unsqueeze(2), x).squeeze(1), (M, buffer)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Piece by piece, a triangular system each."""
        fed, buffer = self._fed(x, state[1])
        with torch.autocast(x.device.type, enabled=False):
            read, M = chunkwise(fed, state[0], self.chunk)
        return self.keyed.say(read, x), (M, buffer)

    def _fed(self, x: Tensor, buffer: Tensor) -> tuple[Fed, Tensor]:
        pairs, (alpha, eta), buffer = self.keyed(x, buffer)
        return Fed(pairs.q, pairs.k, pairs.v, logsigmoid(alpha), torch.sigmoid(eta)), buffer


def moment(fed: Fed, M: Tensor) -> tuple[Tensor, Tensor]:
    """One moment, as the paper writes it: what is read (B, H, d), and the memory after it."""
    q, k, v, log_alpha, eta = fed
    kept = log_alpha.exp()[..., None, None] * M
    u = eta.unsqueeze(-1) * (v - (kept @ k.unsqueeze(-1)).squeeze(-1))
    M = kept + u.unsqueeze(-1) * k.unsqueeze(-2)
    return (M @ q.unsqueeze(-1)).squeeze(-1), M


def parallel(fed: Fed, M: Tensor) -> tuple[Tensor, Tensor]:
    """All moments at once, quadratic in their number: (B, H, T, d), and the memory after the last."""
    q, k, v, log_alpha, eta = fed
    D = segment_sums(log_alpha).exp()  # (B, H, T, T), A_t / A_s
    A = log_alpha.cumsum(-1).exp().unsqueeze(-1)
    L = (eta.unsqueeze(-1) * D * (k @ k.mT)).tril(-1)
    due = eta.unsqueeze(-1) * (v - A * (k @ M.mT))
    one = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    U = torch.linalg.solve_triangular(one + L, due, upper=False, unitriangular=True)
    read = A * (q @ M.mT) + ((q @ k.mT) * D) @ U
    return read, A[..., -1:, :] * M + (U * D[..., -1, :, None]).mT @ k


def chunkwise(fed: Fed, M: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """`parallel` over `chunk` moments after `chunk` moments: linear in time."""
    out = []
    for piece in zip(*(torch.split(part, chunk, 2) for part in fed), strict=True):
        read, M = parallel(Fed(*piece), M)
        out.append(read)
    return (torch.cat(out, 2) if out else fed.q), M


def keeping(heads: int) -> Tensor:
    """Biases of a gate that keeps 0.998 to 0.95 of a memory, each head less than the one before."""
    return torch.linspace(6.0, 3.0, heads)

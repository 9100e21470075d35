"""mLSTM: a matrix memory written by outer products under exponential gates, kept in range by a running maximum.

    m_t = max(log f_t + m_{t-1}, i_t),   f' = exp(log f_t + m_{t-1} - m_t),   i' = exp(i_t - m_t)        equations (15)-(17)
    C_t = f' C_{t-1} + i' k_t v_t^T,     n_t = f' n_{t-1} + i' k_t,           k scaled by 1/sqrt(d)      equations (19), (20)
    h_t = C_t^T q_t / ( max(|n_t . q_t|, exp(-m_t)) + eps )                                              equation (21)
    y   = W_down( (norm(h) + s * a) * silu(z) ),   a = silu(conv(u)),   q, k from a,   v from u,   [u, z] = W_up x

log f is logsigmoid of the forget gate, i the input gate as it is. Three forms of the cell, equal: `moment` is the
recurrence; `parallel` is quadratic in time, h = (S * D) v with S = q k^T and D_ts = exp(sum_{s<l<=t} log f_l + i_s - m_t);
`chunkwise`, the one that `scan` uses, is the second over pieces of the text with the state carried from each to the next.

Paper: Beck et al., "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517; as in Schmidinger et al., "Bio-xLSTM",
arXiv:2411.04165.
Differs: m starts below everything in all forms; in the authors' code it does in the parallel form and is 0 in the
recurrent one, so theirs differ by eps. Decays are summed only over the moments between, so that a gate that shuts
costs no precision behind it. m carries no gradient: h does not depend on it but through eps, and exp(-m) may overflow.
Keeps: s*B*(H*(d*d + d + 1) + (W - 1)*H*d) bytes for H heads of d channels and a convolution of width W; s is 4, or 8 in
float64.

>>> mixer = MLSTM(8, heads=2)
>>> y, state = mixer(torch.randn(3, 100, 8))
>>> y.shape, [tuple(part.shape) for part in state]
(torch.Size([3, 100, 8]), [(3, 2, 8, 8), (3, 2, 8), (3, 2), (3, 3, 16)])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import method
from loci.state.mixer import Mixer, State
from loci.state.xlstm import UNSEEN, CausalConv, HeadNorm, Headwise, carried_dtype, require_heads

EPS = 1e-6
Turn: TypeAlias = Callable[[Tensor], Tensor]  # what q and k (B, T, I) become before gates and cell see them


def unturned(x: Tensor) -> Tensor:
    """As it is: where places play no part."""
    return x


class Fed(NamedTuple):
    """What the cell is fed at some moments, or at one, where T is absent; k is scaled already."""

    q: Tensor  # (B, H, T, d)
    k: Tensor  # (B, H, T, d)
    v: Tensor  # (B, H, T, d)
    i: Tensor  # (B, H, T)
    log_f: Tensor  # (B, H, T)


class Memory(NamedTuple):
    """The state of the cell: the true memory is exp(m) C, the true normaliser exp(m) n."""

    C: Tensor  # (B, H, d, d), keys by values
    n: Tensor  # (B, H, d)
    m: Tensor  # (B, H)


@method(
    name="mlstm",
    kind="mixer",
    title="Bio-xLSTM: Generative modeling, representation and in-context learning of biological and chemical sequences",
    paper="arXiv:2411.04165",
    says="a matrix memory with exponential gates and a normaliser: constant state, trained in parallel",
    bytes="s*B*(H*(d*d + d + 1) + (W - 1)*H*d)",
    example={"D": 8, "heads": 2, "chunk": 5},
    needs=("torch",),
    system="bio_xlstm",
)
class MLSTM(Mixer):
    """The layer of the paper's mLSTM block: what is between its norm and its residual connection."""

    def __init__(
        self,
        D: int,
        *,
        heads: int = 4,
        inner: int | None = None,  # 2 * D unless given
        conv: int = 4,
        block: int = 4,  # channels of a block of the maps to q, k and v
        chunk: int = 64,
        blocks: int = 1,  # of the whole model: its depth scales the last map at the start
    ) -> None:
        super().__init__()
        self.inner = 2 * D if inner is None else inner
        self.d = require_heads(self.inner, heads, "heads")
        require_heads(self.inner, block, "block")
        if chunk < 1:
            raise ValueError(f"chunk={chunk} holds no moment; choose at least 1")
        self.D, self.heads, self.chunk = D, heads, chunk
        self.up = nn.Linear(D, 2 * self.inner, bias=False)
        self.conv = CausalConv(self.inner, width=conv)
        self.q, self.k, self.v = (Headwise(self.inner, blocks=self.inner // block) for _ in range(3))
        self.gates = nn.Linear(3 * self.inner, 2 * heads)  # i of every head, then f of every head
        self.norm = HeadNorm(self.inner)
        self.skip = nn.Parameter(torch.ones(self.inner))
        self.down = nn.Linear(self.inner, D, bias=False)
        self._start(blocks)

    def _start(self, blocks: int) -> None:
        """As the authors do: gates that remember, and do not yet look at their input."""
        small = math.sqrt(2 / (5 * self.D))
        for part in (self.up, self.q, self.k, self.v):
            nn.init.normal_(part.weight, std=small)
        nn.init.normal_(self.down.weight, std=2 / blocks / math.sqrt(self.D))
        nn.init.zeros_(self.gates.weight)
        with torch.no_grad():
            self.gates.bias[: self.heads].normal_(std=0.1)
            self.gates.bias[self.heads :] = torch.linspace(3.0, 6.0, self.heads)

    def initial_state(self, batch: int) -> State:
        """C, n, m and the last inputs of the convolution."""
        like: dict[str, Any] = {"dtype": carried_dtype(self.up.weight), "device": self.up.weight.device}
        H, d = self.heads, self.d
        return (
            torch.zeros(batch, H, d, d, **like),
            torch.zeros(batch, H, d, **like),
            torch.full((batch, H), UNSEEN, **like),
            torch.zeros(batch, self.conv.width - 1, self.inner, **like),
        )

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B, H heads of d channels, W the convolution's width, s bytes of a number of the state."""
        s = carried_dtype(self.up.weight).itemsize
        return {"B": batch, "H": self.heads, "d": self.d, "W": self.conv.width, "s": s}

    def step(self, x: Tensor, state: State, *, turn: Turn = unturned) -> tuple[Tensor, State]:
        """The recurrence; `turn` is how a model with places turns q and k."""
        fed, a, z, buffer = self._fed(x.unsqueeze(1), state, turn)
        with torch.autocast(x.device.type, enabled=False):
            h, memory = moment(Fed(*(part.squeeze(2) for part in fed)), Memory(*state[:3]))
        return self._out(h.unsqueeze(2), a, z).squeeze(1), (*memory, buffer)

    def scan(self, x: Tensor, state: State, *, turn: Turn = unturned) -> tuple[Tensor, State]:
        """Chunk by chunk, quadratic inside a chunk."""
        fed, a, z, buffer = self._fed(x, state, turn)
        with torch.autocast(x.device.type, enabled=False):
            h, memory = chunkwise(fed, Memory(*state[:3]), self.chunk)
        return self._out(h, a, z), (*memory, buffer)

    def _fed(self, x: Tensor, state: State, turn: Turn) -> tuple[Fed, Tensor, Tensor, Tensor]:
        """What the cell is fed at (B, T, D), the two branches beside it, and the convolution's state."""
        u, z = self.up(x).chunk(2, -1)
        mixed, buffer = self.conv(u, state[3])
        a = functional.silu(mixed)
        q, k, v = turn(self.q(a)), turn(self.k(a)), self.v(u)
        i, f = self.gates(torch.cat([q, k, v.to(q.dtype)], -1)).to(state[2].dtype).transpose(1, 2).chunk(2, 1)
        q, k, v = (part.to(state[0].dtype).unflatten(-1, (self.heads, self.d)).transpose(1, 2) for part in (q, k, v))
        return Fed(q, k / math.sqrt(self.d), v, i, functional.logsigmoid(f)), a, z, buffer

    def _out(self, h: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """(B, H, T, d) and the branches (B, T, I) -> (B, T, D)."""
        normed = self.norm(h.transpose(1, 2)).to(a.dtype)
        gated = (normed + self.skip * a) * functional.silu(z)
        return self.down(gated.to(z.dtype))  # type: ignore[no-any-return]


def moment(fed: Fed, memory: Memory) -> tuple[Tensor, Memory]:
    """One moment of the cell, as the paper writes it: h (B, H, d) and the memory after it."""
    q, k, v, i, log_f = fed
    m = torch.maximum(log_f + memory.m, i).detach()
    kept, let = (log_f + memory.m - m).exp().unsqueeze(-1), (i - m).exp().unsqueeze(-1)
    C = kept.unsqueeze(-1) * memory.C + (let * k).unsqueeze(-1) * v.unsqueeze(-2)
    n = kept * memory.n + let * k
    found = (q.unsqueeze(-2) @ C).squeeze(-2)
    return found / _scale((q * n).sum(-1), m), Memory(C, n, m)


def parallel(fed: Fed, memory: Memory) -> tuple[Tensor, Memory]:
    """All moments at once, quadratic in their number: h (B, H, T, d) and the memory after the last."""
    q, k, v, i, log_f = fed
    log_D = segment_sums(log_f) + i.unsqueeze(-2)  # (B, H, T, T), -inf above the diagonal
    log_kept = log_f.cumsum(-1) + memory.m.unsqueeze(-1)  # (B, H, T)
    m = torch.maximum(log_D.amax(-1), log_kept).detach()
    D, kept = (log_D - m.unsqueeze(-1)).exp(), (log_kept - m).exp().unsqueeze(-1)
    S = (q @ k.transpose(-1, -2)) * D
    found = S @ v + kept * (q @ memory.C)
    h = found / _scale(S.sum(-1) + (kept * q @ memory.n.unsqueeze(-1)).squeeze(-1), m)
    let, last = k * D[..., -1, :, None], kept[..., -1, :]  # what each moment leaves in the memory, and what stays there
    C = last.unsqueeze(-1) * memory.C + let.transpose(-1, -2) @ v
    return h, Memory(C, last * memory.n + let.sum(-2), m[..., -1].clone())  # a view would keep all of m


def chunkwise(fed: Fed, memory: Memory, chunk: int) -> tuple[Tensor, Memory]:
    """`parallel` over `chunk` moments after `chunk` moments: linear in time."""
    out = []
    for piece in zip(*(torch.split(part, chunk, 2) for part in fed), strict=True):
        h, memory = parallel(Fed(*piece), memory)
        out.append(h)
    return (torch.cat(out, 2) if out else fed.q), memory


def segment_sums(x: Tensor) -> Tensor:
    """(..., T) -> (..., T, T): at [t, s] the sum of x over s < l <= t, -inf where s > t.

    Summed by themselves and not as differences of one running sum, which lose what is small beside what came before.

    >>> segment_sums(torch.tensor([1.0, 2.0, 3.0]))
    tensor([[0., -inf, -inf],
            [2., 0., -inf],
            [5., 3., 0.]])
    """
    T = x.shape[-1]
    below = torch.ones(T, T, dtype=torch.bool, device=x.device).tril(-1)
    sums = torch.where(below, x.unsqueeze(-1), 0).cumsum(-2)
    return sums.masked_fill(below.T, -math.inf)


def _scale(dot: Tensor, m: Tensor) -> Tensor:
    return (torch.maximum(dot.abs(), (-m).exp()) + EPS).unsqueeze(-1)

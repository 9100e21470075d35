"""Linear attention: what was read is a sum of outer products, so that its size does not grow with what was read.

    S_i = S_{i-1} + phi(k_i) v_i^T,    z_i = z_{i-1} + phi(k_i)                              equations (18), (19)
    y_i = W_o concat_heads( phi(q_i)^T S_i / ( phi(q_i)^T z_i + eps ) )                      equation (20)

phi is the second-order Taylor map of the exponential on f features a head (see `taylor`), so that it is close to softmax
attention where q . k is small. Two forms of the cell, equal: `moment` is the recurrence; `chunkwise`, the one that `scan`
uses, is quadratic inside a chunk, where phi is not needed, and reads S from what came before it.

Paper: Katharopoulos, Vyas, Pappas, Fleuret, "Transformers are RNNs", arXiv:2006.16236; with the feature map and the
projections of Arora et al. (Based), arXiv:2402.18668.
Differs: phi is Taylor's, not elu + 1; S and z are summed in float32 or wider, whatever the weights are.
Keeps: s*B*H*(1 + f + f*f)*(d + 1) bytes for H heads of d channels; s is 4, or 8 in float64.

Shapes: B batch, T time, D width, H heads, d channels of a head's value, f of its key, P = 1 + f + f^2 of phi.

>>> mixer = LinearAttention(8, heads=2, feature=3)
>>> y, (S, z) = mixer(torch.randn(3, 100, 8))
>>> y.shape, S.shape, z.shape
(torch.Size([3, 100, 8]), torch.Size([3, 2, 13, 4]), torch.Size([3, 2, 13]))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.mixer import Mixer, State
from loci.state.taylor import expanded, similarity, taylor
from loci.state.xlstm import carried_dtype, require_heads

EPS = 1e-12


class Memory(NamedTuple):
    """The state of the cell."""

    S: Tensor  # (B, H, P, d), features of keys by values
    z: Tensor  # (B, H, P)


@method(
    name="linear-attention",
    kind="mixer",
    title="Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
    paper="arXiv:2006.16236",
    says="attention whose keys and values are summed as they come: constant state, trained in parallel",
    bytes="s*B*H*(1 + f + f*f)*(d + 1)",
    example={"D": 8, "heads": 2, "feature": 3, "chunk": 5},
    needs=("torch",),
    system="jrt",
)
class LinearAttention(Mixer):
    """Causal linear attention with a normaliser; no positions: give it a short convolution beside it, as Based does."""

    def __init__(self, D: int, *, heads: int = 4, feature: int = 16, chunk: int = 64) -> None:
        super().__init__()
        self.d = require_heads(D, heads, "heads")
        if min(feature, chunk) < 1:
            raise ValueError(f"feature={feature}, chunk={chunk} is no layer; choose at least 1 for both")
        self.D, self.heads, self.feature, self.chunk = D, heads, feature, chunk
        self.q = nn.Linear(D, heads * feature, bias=False)
        self.k = nn.Linear(D, heads * feature, bias=False)
        self.v = nn.Linear(D, D, bias=False)
        self.out = nn.Linear(D, D, bias=False)

    def initial_state(self, batch: int) -> State:
        """Sums of nothing: S (B, H, P, d) and z (B, H, P)."""
        weight = self.out.weight
        zeros = weight.new_zeros(batch, self.heads, expanded(self.feature), self.d + 1, dtype=carried_dtype(weight))
        return zeros[..., 1:].contiguous(), zeros[..., 0].contiguous()

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows, H heads of d channels and f features, s bytes of a number of the state."""
        s = carried_dtype(self.out.weight).itemsize
        return {"B": batch, "H": self.heads, "d": self.d, "f": self.feature, "s": s}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The recurrence."""
        q, k, v = self._heads(x.unsqueeze(1), self.q, self.k, self.v)
        with torch.autocast(x.device.type, enabled=False):
            y, memory = moment(q.squeeze(2), k.squeeze(2), v.squeeze(2), Memory(*state))
        return self._out(y.unsqueeze(2), x).squeeze(1), memory

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Chunk by chunk, quadratic inside a chunk."""
        q, k, v = self._heads(x, self.q, self.k, self.v)
        with torch.autocast(x.device.type, enabled=False):
            y, memory = chunkwise(q, k, v, Memory(*state), chunk=self.chunk)
        return self._out(y, x), memory

    def _heads(self, x: Tensor, *maps: nn.Linear) -> list[Tensor]:
        """Each map of (B, T, D), head by head (B, H, T, ...), in the dtype of the state."""
        dtype = carried_dtype(self.out.weight)
        return [to(x).to(dtype).unflatten(-1, (self.heads, -1)).transpose(1, 2) for to in maps]

    def _out(self, y: Tensor, x: Tensor) -> Tensor:
        """(B, H, T, d) -> (B, T, D), in the dtype of the weights."""
        return self.out(y.transpose(1, 2).flatten(2).to(x.dtype))  # type: ignore[no-any-return]


def moment(q: Tensor, k: Tensor, v: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """One moment of the cell, as the paper writes it: y (B, H, d) and the memory after it."""
    phi = taylor(k)
    S, z = memory.S + phi.unsqueeze(-1) * v.unsqueeze(-2), memory.z + phi
    asked = taylor(q).unsqueeze(-2)
    return ((asked @ S) / (asked @ z.unsqueeze(-1) + EPS)).squeeze(-2), Memory(S, z)


def chunkwise(
    q: Tensor, k: Tensor, v: Tensor, memory: Memory, *, chunk: int, heard: Tensor | None = None
) -> tuple[Tensor, Memory]:
    """All moments, `chunk` at a time: y (B, H, T, d) and the memory after the last.

    Where `heard` (B, T) does not hold, a moment asks but is not remembered: its value and its one are masked, not its key,
    since phi(0) is not 0.
    """
    values, held, out = with_ones(v, heard), torch.cat([memory.S, memory.z.unsqueeze(-1)], -1), []
    for start in range(0, q.shape[2], chunk):
        here = slice(start, start + chunk)
        asked, key, value = q[:, :, here], k[:, :, here], values[:, :, here]
        out.append(similarity(asked, key).tril() @ value + taylor(asked) @ held)
        held = held + taylor(key).mT @ value
    said = torch.cat(out, 2) if out else values
    return said[..., :-1] / (said[..., -1:] + EPS), Memory(held[..., :-1].contiguous(), held[..., -1].contiguous())


def summed(k: Tensor, v: Tensor, memory: Memory, *, heard: Tensor | None = None) -> Memory:
    """The memory after keys (B, H, T, f) and values (B, H, T, d), those of them that are `heard` (B, T)."""
    added = taylor(k).mT @ with_ones(v, heard)
    return Memory(memory.S + added[..., :-1], memory.z + added[..., -1])


def with_ones(v: Tensor, heard: Tensor | None) -> Tensor:
    """Values (B, H, T, d) and a one beside each, whose sum is the normaliser: one product gives both. Zeros if not `heard`."""
    values = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    return values if heard is None else torch.where(heard[:, None, :, None], values, 0)

"""A small causal transformer whose attention is open: keys and values may be put before it, heads may be seen and replaced.

    H^{l+1/2} = H^l + W_o edit(l, heads_l),   heads_l = softmax_{i <= t}(R_t q_t . [prefix keys | R_i k_i] / sqrt(d)) [prefix values | v_i]
    H^{l+1} = H^{l+1/2} + W_down (SiLU(W_gate n) * W_up n),   n = norm(H^{l+1/2}),   logits = W norm(H^L)

R turns pairs of numbers by an angle that grows with the place. The keys of a prefix are turned already and are not turned
again; the tokens' places start behind it, at its length. G keys' heads serve H queries' heads (grouped queries).

Paper: Vaswani et al., arXiv:1706.03762; RMSNorm arXiv:1910.07467, places arXiv:2104.09864, gates arXiv:2002.05202, grouped
queries arXiv:2305.13245: the decoder that Llama made common.
Differs: nothing; no dropout, no bias, and neighbours (2i, 2i + 1) are the pairs that turn.
Keeps: nothing but weights.

Shapes: B batch, T time, V tokens, D width, L layers, H heads of queries, G heads of keys, d = D / H, p prefix.

>>> model = OpenTransformer(11, D=8, heads=2, depth=2)
>>> tokens = torch.tensor([[3, 1, 4, 1, 5]])
>>> read = model.keys_values(tokens[:, :3])  # a prefix cache is what the model says of the text before
>>> bool((model(tokens[:, 3:], prefix=read) - model(tokens)[:, 3:]).abs().max() < 1e-5)
True
>>> model(tokens, edit=lambda layer, heads: heads * 0).shape  # what an edit gives back goes into the output projection
torch.Size([1, 5, 11])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from loci.state.attention import angles, turned

Prefix = Sequence[tuple[Tensor, Tensor]]  # of each layer, turned keys and values (B or 1, G, p, d)
Edit = Callable[[int, Tensor], Tensor]  # a layer's number and its heads (B, T, H, d) -> what takes their place


class RMSNorm(nn.Module):
    """x / rms(x) times a scale, the mean taken in float32 or wider."""

    def __init__(self, D: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(D)), eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scaled = wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return scaled.to(x.dtype) * self.weight


class OpenLayer(nn.Module):
    """Attention and a gated feed-forward net, one after the other, each behind its norm."""

    def __init__(self, D: int, H: int, *, G: int, hidden: int) -> None:
        super().__init__()
        d = D // H
        self.before, self.between = RMSNorm(D), RMSNorm(D)
        self.q, self.out = nn.Linear(D, H * d, bias=False), nn.Linear(H * d, D, bias=False)
        self.k, self.v = nn.Linear(D, G * d, bias=False), nn.Linear(D, G * d, bias=False)
        self.gate, self.up = nn.Linear(D, hidden, bias=False), nn.Linear(D, hidden, bias=False)
        self.down = nn.Linear(hidden, D, bias=False)
        self.d = d

    def keyed(self, h: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turned queries (B, H, T, d), turned keys and values (B, G, T, d) of h (B, T, D)."""
        x = self.before(h)
        q, k, v = (part(x).unflatten(-1, (-1, self.d)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return turned(q, turns).to(q.dtype), turned(k, turns).to(k.dtype), v

    def fed(self, h: Tensor, heads: Tensor) -> Tensor:
        """From h (B, T, D) and the heads (B, T, H, d) the layer's output (B, T, D)."""
        h = h + self.out(heads.flatten(2))
        n = self.between(h)
        passed: Tensor = h + self.down(silu(self.gate(n)) * self.up(n))
        return passed


class OpenTransformer(nn.Module):
    """Tokens (B, T) -> logits (B, T, V). A context asks no more of a model than `forward`, V, L, H, G and d."""

    def __init__(
        self,
        V: int,
        *,
        D: int = 64,
        heads: int = 4,
        depth: int = 2,
        key_heads: int | None = None,  # as many as `heads` unless given
        hidden: int | None = None,  # 8 D / 3 unless given, so that three matrices weigh what two of 4 D do
        base: float = 10000.0,
    ) -> None:
        super().__init__()
        G = heads if key_heads is None else key_heads
        if min(V, heads, depth, G) < 1 or D % (2 * heads) or heads % G:
            raise ValueError(
                f"V={V}, D={D}, heads={heads}, depth={depth}, key_heads={G} is no transformer; choose each at least 1, D in "
                f"even parts of heads, heads in whole parts of key_heads"
            )
        self.V, self.D, self.L, self.H, self.G, self.d, self.base = V, D, depth, heads, G, D // heads, base
        hidden = max(8 * D // 3, 1) if hidden is None else hidden
        self.embedding = nn.Embedding(V, D)
        self.layers = nn.ModuleList(OpenLayer(D, heads, G=G, hidden=hidden) for _ in range(depth))
        self.norm, self.head = RMSNorm(D), nn.Linear(D, V, bias=False)
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=D**-0.5)

    def forward(self, tokens: Tensor, *, prefix: Prefix | None = None, edit: Edit | None = None) -> Tensor:
        """(B, T) of int64 -> logits (B, T, V), behind `prefix` and through `edit` where they are given."""
        self.require(tokens, prefix)
        return self.read(tokens, prefix, edit)[0]

    def keys_values(self, tokens: Tensor, *, prefix: Prefix | None = None) -> list[tuple[Tensor, Tensor]]:
        """The turned keys and the values (B, G, T, d) of each layer for tokens (B, T), without those of the prefix."""
        self.require(tokens, prefix)
        return self.read(tokens, prefix, None)[1]

    def read(
        self, tokens: Tensor, prefix: Prefix | None, edit: Edit | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Logits, and the tokens' own keys and values."""
        p, T = 0 if prefix is None else prefix[0][0].shape[2], tokens.shape[1]
        h = self.embedding(tokens)
        turns = angles(p + T, self.d, self.base, h)[p:]
        seen = torch.ones(T, p + T, dtype=torch.bool, device=h.device).tril(
            p
        )  # all of the prefix, and what came before
        own = []
        for number, layer in enumerate(cast("list[OpenLayer]", self.layers)):
            q, k, v = layer.keyed(h, turns)
            own.append((k, v))
            if prefix is not None and p:
                k, v = (put_before(old, new) for old, new in zip(prefix[number], (k, v), strict=True))
            k, v = (part.repeat_interleave(self.H // self.G, 1) for part in (k, v))
            heads = scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)
            heads = heads if edit is None else edit(number, heads)
            h = layer.fed(h, heads)
        return self.head(self.norm(h)), own

    def require(self, tokens: Tensor, prefix: Prefix | None) -> None:
        """Refuse what are no tokens, or a prefix that does not fit."""
        if tokens.dim() != 2 or tokens.dtype != torch.int64:
            dtype = str(tokens.dtype).removeprefix("torch.")
            raise ValueError(f"tokens is {tuple(tokens.shape)} of {dtype}; give (B, T) of int64")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.V:
            raise ValueError(
                f"tokens go from {int(tokens.min())} to {int(tokens.max())}; the model knows 0 to {self.V - 1}"
            )
        if prefix is None:
            return
        got = {tuple(part.shape) for pair in prefix for part in pair}
        first = next(iter(got), ())
        if len(prefix) != self.L or len(got) != 1 or len(first) != 4 or first[1::2] != (self.G, self.d):
            raise ValueError(
                f"prefix has {len(prefix)} layers of shapes {sorted(got)}; give {self.L} of (B, {self.G}, p, {self.d})"
            )
        if first[0] not in {1, len(tokens)}:
            raise ValueError(f"prefix is of {first[0]} rows, tokens of {len(tokens)}; give as many, or one for all")


def put_before(old: Tensor, new: Tensor) -> Tensor:
    """(B or 1, G, p, d) before (B, G, T, d), in the dtype of the latter."""
    return torch.cat([old.to(new.dtype).expand(len(new), -1, -1, -1), new], 2)


def heads_by_loops(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The obvious form of the heads, and their oracle: the last T of p + T keys are the queries' own; (B, H, T, d)."""
    T, p = q.shape[2], k.shape[2] - q.shape[2]
    y = torch.zeros_like(q)
    for row in range(len(q)):
        for head in range(q.shape[1]):
            served = head * k.shape[1] // q.shape[1]
            for t in range(T):
                scores = [float(q[row, head, t] @ k[row, served, i]) / q.shape[3] ** 0.5 for i in range(p + t + 1)]
                weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
                y[row, head, t] = sum(w * v[row, served, i] for i, w in enumerate(weights.tolist()))
    return y

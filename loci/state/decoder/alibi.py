"""A small causal transformer without positions: distances are a price on attention, so its keys mean the same everywhere.

    H^0 = E[token],   H^{l+1} = H^l + Attn(LN(H^l)) + FFN(LN(H^l)),   logits = LN(H^L) E^T
    Attn: softmax_{i <= t}(q_t . k_i / sqrt(d) - slope_h (t - i)) v_i

Attention and feed-forward net stand side by side on one LayerNorm, as in GPT-J. A key holds no position, hence may be
kept and compared with queries of any later time: this is what LongMem (`longmem.py`) needs of its backbone.

Paper: Press et al., "Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation",
arXiv:2108.12409; as the backbone in Wang et al., arXiv:2306.07174.
Differs: nothing; no dropout.
Keeps: nothing but weights.

Shapes: B batch, T time, D width, H heads, d = D / H, V tokens.

>>> backbone = Backbone(11, D=8, heads=2, depth=4)
>>> backbone(torch.tensor([[1, 2, 3]])).shape, len(backbone.encoded(torch.tensor([[1, 2, 3]]), 3).hidden)
(torch.Size([1, 3, 11]), 5)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, gelu, linear, scaled_dot_product_attention


class Encoded(NamedTuple):
    """What a backbone knows of a segment."""

    hidden: tuple[Tensor, ...]  # H^0 (the embeddings) to H^L, each (B, T, D)
    keys: Tensor  # (B, H, T, d), of one layer
    values: Tensor  # (B, H, T, d)


class ParallelLayer(nn.Module):
    """Attention and feed-forward net beside each other on one LayerNorm."""

    def __init__(self, D: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or D % heads:
            raise ValueError(f"heads={heads} does not divide D={D}; choose a divisor")
        self.heads = heads
        self.norm = nn.LayerNorm(D)
        self.q, self.k, self.v, self.out = (nn.Linear(D, D, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> what the layer adds to it (B, T, D), and its keys and values (B, H, T, d)."""
        x = self.norm(h)
        q, k, v = self.projected(x)
        return self.added(x, self.attended(q, k, v)), k, v

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, T, d) of (B, T, D)."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return q, k, v

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention with a price on distance, (B, H, T, d)."""
        return scaled_dot_product_attention(q, k, v, attn_mask=biases(q.shape[2], q))

    def added(self, x: Tensor, heard: Tensor) -> Tensor:
        """What the heads heard (B, H, T, d), mixed, and the feed-forward net of x, (B, T, D)."""
        mixed: Tensor = self.out(heard.transpose(1, 2).flatten(2)) + self.down(gelu(self.up(x)))
        return mixed


class Backbone(nn.Module):
    """A language model over segments of any length; train it first, then freeze it as what LongMem stands on."""

    def __init__(self, V: int, *, D: int, heads: int, depth: int) -> None:
        super().__init__()
        if V < 1 or depth < 1:
            raise ValueError(f"V={V}, depth={depth} is no language model; choose at least one token and one layer")
        self.V, self.D, self.heads, self.depth = V, D, heads, depth
        self.embedding = nn.Parameter(torch.randn(V, D) / math.sqrt(D))  # and the output head
        self.layers = nn.ModuleList(ParallelLayer(D, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(D)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) of int64 -> logits (B, T, V), the text read from its start."""
        return linear(self.norm(self.encoded(tokens, 0).hidden[-1]), self.embedding)

    def encoded(self, tokens: Tensor, layer: int) -> Encoded:
        """Hidden states of all layers, and keys and values of one, for tokens (B, T)."""
        hidden, kept = [embedding(tokens, self.embedding)], []
        for part in self.layers:
            added, keys, values = part(hidden[-1])
            hidden.append(hidden[-1] + added)
            kept.append((keys, values))
        return Encoded(tuple(hidden), *kept[layer])


def slopes(heads: int) -> list[float]:
    """What a step of distance costs each head: 2^(-8 i / H), with every second one of 2H heads where H is no power of 2.

    >>> slopes(2), slopes(3)
    ([0.0625, 0.00390625], [0.0625, 0.00390625, 0.25])
    """
    whole = 2 ** int(math.log2(heads))
    known = [2.0 ** (-8 * (i + 1) / whole) for i in range(whole)]
    between = [2.0 ** (-4 * (i + 1) / whole) for i in range(0, 2 * whole, 2)]
    return known + between[: heads - whole]


def biases(length: int, like: Tensor) -> Tensor:
    """The price of distance (H, T, T) for queries like these (B, H, ...): -slope (t - i), and -inf where i is yet to come."""
    place = torch.arange(length, device=like.device)
    back = place.unsqueeze(1) - place
    price = torch.tensor(slopes(like.shape[1]), device=like.device, dtype=torch.float64).view(-1, 1, 1) * back
    return torch.where(back >= 0, -price, -math.inf).to(like.dtype)

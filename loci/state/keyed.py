"""What memories of pairs are fed: a query, a key and a value for each head, and gates that see the moment.

    q, k, v = conv(W x),    q <- q / |q|,  k <- k / |k|,    gate = W_g x + b_g

The convolution is causal and short, a filter a channel, and carries its last inputs. Gates start at their biases and do
not look at their input yet: what a bias promises of stability holds for every text at the start.

Shapes: B batch, T time, D width, H heads, d channels of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from loci.state.xlstm import CausalConv, carried_dtype, require_heads

EPS = 1e-6  # beside the squared length of a key


class Pairs(NamedTuple):
    """Queries, keys and values of some moments."""

    q: Tensor  # (B, H, T, d), of length 1
    k: Tensor  # (B, H, T, d), of length 1
    v: Tensor  # (B, H, T, d)


class Keyed(nn.Module):
    """(B, T, D) -> pairs and raw gates (B, H, T), all in the dtype that states are carried in."""

    def __init__(self, D: int, *, heads: int, head: int | None, conv: int, biases: Tensor) -> None:
        super().__init__()
        self.heads = heads
        self.d = require_heads(D, heads, "heads") if head is None else require_heads(heads * head, heads, "heads")
        inner = heads * self.d
        self.pairs = nn.Linear(D, 3 * inner, bias=False)
        self.conv = CausalConv(3 * inner, width=conv)
        self.gates = nn.Linear(D, biases.numel())  # biases (gates, H)
        self.out = nn.Linear(inner, D, bias=False)
        nn.init.zeros_(self.conv.bias)  # a constant in every key would make all keys alike
        nn.init.zeros_(self.gates.weight)
        with torch.no_grad():
            self.gates.bias.copy_(biases.flatten())

    @property
    def dtype(self) -> torch.dtype:
        """Of the state, and of everything between this and `say`."""
        return carried_dtype(self.pairs.weight)

    def buffer(self, batch: int) -> Tensor:
        """The inputs of the convolution before anything was seen, (B, W - 1, 3 H d)."""
        return torch.zeros(
            batch, self.conv.width - 1, 3 * self.heads * self.d, dtype=self.dtype, device=self.pairs.weight.device
        )

    def forward(self, x: Tensor, buffer: Tensor) -> tuple[Pairs, tuple[Tensor, ...], Tensor]:
        """The pairs, the gates in the order of their biases, and the convolution's state."""
        mixed, buffer = self.conv(self.pairs(x), buffer)
        parts = mixed.to(self.dtype).unflatten(-1, (3, self.heads, self.d)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        gates = self.gates(x).to(self.dtype).unflatten(-1, (-1, self.heads)).permute(2, 0, 3, 1)
        return Pairs(unit(q), unit(k), v), gates.unbind(0), buffer

    def say(self, read: Tensor, like: Tensor) -> Tensor:
        """What was read by the heads, (B, H, T, d) -> (B, T, D)."""
        y: Tensor = self.out(read.transpose(1, 2).flatten(-2).to(like.dtype))
        return y


def unit(x: Tensor) -> Tensor:
    """Of length 1, and shorter only near 0, where a gradient could not be had."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + EPS)

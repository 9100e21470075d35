"""What the layers of xLSTM share: a causal convolution that carries its last inputs, maps per head, and the residual block.

    conv    y_t = b + sum_w  K_w * u_{t-W+1+w}              one filter of width W a channel; the last W - 1 inputs are state
    heads   y = concat_h( x_h W_h )                         a block-diagonal map: channels of a block see only each other
    block   x + mixer(LN(x)),  then x + FFN(LN(x))          the second where there is a gated feed-forward net

Paper: Beck et al., "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517, figures 9 and 10 (appendix).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.state.mixer import Mixer, State

UNSEEN = -1e30  # the stabiliser before anything was seen: below every gate, and finite in every dtype that carries it


class CausalConv(nn.Module):
    """A depthwise convolution over the past, (B, T, I) -> (B, T, I), with the last `width - 1` inputs carried over."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"conv={width} sees nothing; choose at least 1, the moment itself")
        bound = 1 / math.sqrt(width)
        self.width = width
        self.taps = nn.Parameter(torch.empty(width, channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

    def forward(self, u: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """The filtered moments, and the inputs (B, width - 1, I) that the next ones will look back at."""
        T = u.shape[1]
        window = torch.cat([buffer.to(u.dtype), u], 1)  # (B, W - 1 + T, I)
        out = self.bias
        for tap, weight in enumerate(self.taps):
            out = out + weight * window[:, tap : tap + T]
        # a copy: a view would keep the whole window alive for as long as the state
        return out, window[:, T:].to(buffer.dtype, copy=True)


class Headwise(nn.Module):
    """A linear map for each block of channels, (..., I) -> (..., out * I), without bias."""

    def __init__(self, channels: int, *, blocks: int, out: int = 1) -> None:
        super().__init__()
        size = channels // blocks
        self.weight = nn.Parameter(torch.empty(blocks, size, out * size))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (5 * channels)))

    def forward(self, x: Tensor) -> Tensor:
        """Block by block; with `out` > 1 the outputs of one block are beside each other."""
        by_block = x.reshape(*x.shape[:-1], *self.weight.shape[:2])
        return torch.einsum("...hi,hio->...ho", by_block, self.weight).flatten(-2)


class HeadNorm(nn.Module):
    """Layer norm of each head by itself, (..., H, d) -> (..., H * d), with one weight a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, h: Tensor) -> Tensor:
        """Normed, in the dtype of h or wider."""
        return functional.layer_norm(h, h.shape[-1:]).flatten(-2) * self.weight


class GatedFeedForward(nn.Module):
    """down( gelu(gate) * up ): what follows an sLSTM in its block."""

    def __init__(self, D: int, *, inner: int, blocks: int = 1) -> None:
        super().__init__()
        self.up = nn.Linear(D, 2 * inner, bias=False)
        self.down = nn.Linear(inner, D, bias=False)
        nn.init.normal_(self.up.weight, std=math.sqrt(2 / (5 * D)))
        nn.init.normal_(self.down.weight, std=2 / blocks / math.sqrt(D))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        gate, up = self.up(x).chunk(2, -1)
        return self.down(functional.gelu(gate) * up)  # type: ignore[no-any-return]


class Block(nn.Module):
    """A mixer, and a feed-forward net if one is given, each with its layer norm, inside residual connections."""

    def __init__(self, mixer: Mixer, *, feed: GatedFeedForward | None = None) -> None:
        super().__init__()
        self.mixer, self.feed = mixer, feed
        self.norm = nn.LayerNorm(mixer.D, bias=False)
        self.feed_norm = None if feed is None else nn.LayerNorm(mixer.D, bias=False)

    def forward(self, x: Tensor, state: State | None = None, *, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """What the mixer's forward takes and gives."""
        y, state = self.mixer(self.norm(x), state, reset=reset)
        x = x + y
        return (x if self.feed is None or self.feed_norm is None else x + self.feed(self.feed_norm(x))), state


def carried_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of a state: float32 under half precision, in which a slow decay would be rounded away."""
    return torch.promote_types(weight.dtype, torch.float32)


def require_heads(channels: int, heads: int, what: str) -> int:
    """Channels of a head; ValueError if they do not come out even."""
    if heads < 1 or channels < 1 or channels % heads:
        raise ValueError(f"{what}={heads} does not divide {channels} channels; choose a divisor of {channels}")
    return channels // heads

"""Decoders of reconstructing losses: from a block's output back to what it was given, or to the image.

Features are maps (B, C, H, W), tokens (B, T, D) on a square grid, or rows (B, D); `shape` is what is to be rebuilt,
without its batch. A grid that a block made smaller is made larger again.

Shapes: B batch, T tokens, D width, C channels, H W sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from torch import Tensor, nn

Decoding: TypeAlias = Literal["linear", "mlp", "attention", "conv"]


def as_map(h: Tensor) -> Tensor:
    """Tokens on their square grid, (B, T, D) to (B, D, H, W); maps stay."""
    return h.transpose(1, 2).view(len(h), h.shape[2], side(h.shape[1]), -1) if h.ndim == 3 else h


def as_tokens(h: Tensor) -> Tensor:
    """Maps row by row, (B, C, H, W) to (B, T, C); rows are one token; tokens stay."""
    return h.flatten(2).transpose(1, 2) if h.ndim == 4 else h[:, None] if h.ndim == 2 else h


def side(tokens: int) -> int:
    """The side of a square grid of so many tokens.

    >>> side(36)
    6
    """
    root = math.isqrt(tokens)
    if root * root != tokens:
        raise ValueError(f"{tokens} tokens are no square grid; decode a block whose tokens are, without class tokens")
    return root


def _places(shape: Sequence[int]) -> tuple[int, int]:
    """Width and side of a target: (C, H, H), (T, D) or (D,)."""
    if len(shape) == 3 and shape[1] == shape[2]:
        return shape[0], shape[1]
    if len(shape) == 2:
        return shape[1], side(shape[0])
    if len(shape) == 1:
        return shape[0], 1
    raise ValueError(
        f"shape={tuple(shape)} is not a square map (C, H, H), tokens (T, D) or a row (D,); give one of them"
    )


def _fit(tokens: Tensor, shape: Sequence[int]) -> Tensor:
    """(B, T, D) in the layout of the target."""
    return as_map(tokens) if len(shape) == 3 else tokens[:, 0] if len(shape) == 1 else tokens


class TokenDecoder(nn.Module):
    """A linear map per token, or two and a GELU with `hidden`; a coarser grid is undone by pixel shuffle.

    `side` is the side of the block's own output.
    """

    def __init__(self, width: int, shape: Sequence[int], *, side: int = 1, hidden: int | None = None) -> None:
        super().__init__()
        target, fine = _places(shape)
        if fine % side:
            raise ValueError(f"side={side} does not divide the target's {fine}; use ConvDecoder, which interpolates")
        self.shape, self.times = tuple(shape), fine // side
        out = target * self.times**2
        self.map = (
            nn.Linear(width, out)
            if hidden is None
            else nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))
        )

    def forward(self, h: Tensor) -> Tensor:
        """(B, T, width) or (B, width, H, W) -> (B, *shape)."""
        tokens: Tensor = self.map(as_tokens(h))
        if self.times > 1:
            tokens = as_tokens(nn.functional.pixel_shuffle(as_map(tokens), self.times))
        return _fit(tokens, self.shape)


class AttentionDecoder(nn.Module):
    """A block of one's own making (a transformer block, say) over the tokens, then a `TokenDecoder`."""

    def __init__(self, block: nn.Module, width: int, shape: Sequence[int], *, side: int = 1) -> None:
        super().__init__()
        self.block, self.out = block, TokenDecoder(width, shape, side=side)

    def forward(self, h: Tensor) -> Tensor:
        """(B, T, width) -> (B, *shape)."""
        rebuilt: Tensor = self.out(self.block(as_tokens(h)))
        return rebuilt


class ConvDecoder(nn.Module):
    """InfoPro's: bilinear to the target's sides, then two 3x3 convolutions with batch norm and ReLU between."""

    def __init__(self, width: int, shape: Sequence[int], *, hidden: int = 12) -> None:
        super().__init__()
        target, self.side = _places(shape)
        self.shape = tuple(shape)
        self.first = nn.Conv2d(width, hidden, 3, padding=1)
        self.norm = nn.BatchNorm2d(hidden)
        self.last = nn.Conv2d(hidden, target, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """(B, T, width) or (B, width, H, W) -> (B, *shape)."""
        fine = nn.functional.interpolate(as_map(h), size=(self.side, self.side), mode="bilinear", align_corners=True)
        rebuilt: Tensor = self.last(nn.functional.relu(self.norm(self.first(fine))))
        return rebuilt if len(self.shape) == 3 else _fit(as_tokens(rebuilt), self.shape)


def decoder(kind: Decoding, out: Sequence[int], target: Sequence[int], *, block: nn.Module | None = None) -> nn.Module:
    """The decoder of a kind from a block's output to a target, both as shapes without batch.

    >>> import torch
    >>> decoder("linear", (9, 16), (36, 8))(torch.ones(2, 9, 16)).shape
    torch.Size([2, 36, 8])
    """
    width, coarse = _places(out)
    if kind == "conv":
        return ConvDecoder(width, target)
    if kind == "attention":
        if block is None:
            raise ValueError("kind='attention' needs block=, a module over the tokens such as nets.Block(width, heads)")
        return AttentionDecoder(block, width, target, side=coarse)
    if kind in {"linear", "mlp"}:
        return TokenDecoder(width, target, side=coarse, hidden=2 * width if kind == "mlp" else None)
    raise ValueError(f"kind={kind!r} is no decoder; choose one of {', '.join(get_args(Decoding))}")


def normalised(h: Tensor) -> Tensor:
    """Each place at mean 0 and variance 1 over its channels, so that a target cannot vanish by shrinking.

    >>> import torch
    >>> normalised(torch.tensor([[[1.0, 3.0]]])).round(decimals=3).tolist()
    [[[-1.0, 1.0]]]
    """
    tokens = as_tokens(h)
    return _fit(nn.functional.layer_norm(tokens, tokens.shape[-1:]), h.shape[1:])

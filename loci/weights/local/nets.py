"""Small networks in parts, ready to be cut: residual convolutions, and a transformer that merges its patches once.

Shapes: B batch, C channels, S side, T tokens, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from loci.weights.local.decoders import as_map
from loci.weights.local.heads import Pooled


class Residual(nn.Module):
    """ResNet's basic block: two 3x3 convolutions with batch norm beside a way around them."""

    def __init__(self, inputs: int, outputs: int | None = None, *, stride: int = 1) -> None:
        super().__init__()
        outputs = outputs or inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.around = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, S, S) -> (B, outputs, S / stride, S / stride)."""
        inner = self.norm2(self.conv2(nn.functional.relu(self.norm1(self.conv1(x)))))
        return nn.functional.relu(inner + self.around(x))


def conv_stem(channels: int, width: int) -> nn.Module:
    """A 3x3 convolution, batch norm and ReLU: (B, channels, S, S) -> (B, width, S, S)."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def grouped(layers: Sequence[nn.Module], count: int) -> list[nn.Module]:
    """The layers in `count` blocks of equal length.

    >>> [len(block) for block in grouped([nn.Identity() for _ in range(6)], 3)]
    [2, 2, 2]
    """
    if count < 1 or len(layers) % count:
        raise ValueError(
            f"{len(layers)} layers do not make {count} blocks of equal length; choose a divisor of {len(layers)}"
        )
    size = len(layers) // count
    return [nn.Sequential(*layers[start : start + size]) for start in range(0, len(layers), size)]


class Block(nn.Module):
    """Attention and a two-layer map over tokens, each after a norm and beside a way around it."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        self.H = H
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.H, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Patches(nn.Module):
    """Square patches of an image as tokens, each with a learned place."""

    def __init__(self, channels: int, size: int, patch: int, D: int) -> None:
        super().__init__()
        self.cut = nn.Conv2d(channels, D, patch, stride=patch)
        self.place = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, D))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, S, S) -> (B, T, D)."""
        tokens: Tensor = self.cut(x).flatten(2).transpose(1, 2) + self.place
        return tokens


class Merging(nn.Module):
    """Swin's patch merging: four neighbours become one token of twice the width."""

    def __init__(self, D: int) -> None:
        super().__init__()
        self.norm, self.map = nn.LayerNorm(4 * D), nn.Linear(4 * D, 2 * D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T / 4, 2 D)."""
        four = nn.functional.pixel_unshuffle(as_map(x), 2).flatten(2).transpose(1, 2)
        merged: Tensor = self.map(self.norm(four))
        return merged


class NormedPooled(nn.Module):
    """A norm, the mean over tokens, and a linear map: the head of a transformer."""

    def __init__(self, D: int, classes: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(D), Pooled(D, classes)

    def forward(self, h: Tensor) -> Tensor:
        """(B, T, D) -> (B, classes)."""
        scores: Tensor = self.out(self.norm(h))
        return scores


def merging_transformer(
    D: int, H: int, *, layers: int, blocks: int, shape: Sequence[int], patch: int, classes: int
) -> tuple[nn.Module, list[nn.Module], nn.Module]:
    """Stem, blocks and head: half of the layers at width D, a merging, the others at 2 D and a quarter of the tokens.

    The merging opens the second half's first block, whose decoder then has to undo it.
    """
    half = layers // 2
    second: list[nn.Module] = [Block(2 * D, H) for _ in range(layers - half)]
    second[0] = nn.Sequential(Merging(D), second[0])
    parts = grouped([*(Block(D, H) for _ in range(half)), *second], blocks)
    return Patches(shape[0], shape[1], patch, D), parts, NormedPooled(2 * D, classes)

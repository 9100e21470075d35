"""A plain decoder in the sizes of the GPT-3 paper: what `gpt:350m` stands for when a budget is planned.

Norms before attention and map, learned places, the head tied to the embedding. Shapes: B batch, T time, D width,
H heads, V tokens.

Source: Brown et al., "Language Models are Few-Shot Learners", arXiv:2005.14165, table 2.1 (layers, width, heads).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Sizes:
    """Layers, width, heads, tokens and the longest context of one model."""

    layers: int
    D: int
    H: int
    V: int = 50257
    T: int = 2048


PRESETS = {
    "nano": Sizes(4, 128, 4, V=256, T=256),  # over bytes, to train in a minute on a laptop
    "125m": Sizes(12, 768, 12),
    "350m": Sizes(24, 1024, 16),
    "760m": Sizes(24, 1536, 16),
    "1.3b": Sizes(24, 2048, 16),
    "2.7b": Sizes(32, 2560, 32),
    "7b": Sizes(32, 4096, 32),
    "13b": Sizes(40, 5120, 40),
    "175b": Sizes(96, 12288, 96),
}


class Block(nn.Module):
    """Attention over the past and a two-layer map, each after a norm and beside a way around it."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        self.H = H
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        B, T, D = x.shape
        q, k, v = (part.view(B, T, self.H, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(B, T, D))
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped


class GPT(nn.Module):
    """Embedding, blocks, norm, head."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(sizes.V, sizes.D), nn.Embedding(sizes.T, sizes.D)
        self.blocks = nn.ModuleList(Block(sizes.D, sizes.H) for _ in range(sizes.layers))
        self.norm, self.head = nn.LayerNorm(sizes.D), nn.Linear(sizes.D, sizes.V, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.02)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def next_token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of each next token of rows (B, T + 1)."""
    logits = model(tokens[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

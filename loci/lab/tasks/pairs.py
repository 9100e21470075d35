"""Recall of pairs: keys and values read one after another, then the keys again in another order; which value was each with?

Pairs are drawn anew in every text, so they can be known from the state alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence


class Recaller(nn.Module):
    """Symbols (B, T) -> logits (B, T, symbols) through one mixer inside a residual connection."""

    def __init__(self, mixer: nn.Module, symbols: int, *, D: int) -> None:
        super().__init__()
        self.embedding, self.mixer = nn.Embedding(symbols, D), mixer
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, symbols)

    def forward(self, ids: Tensor) -> Tensor:
        """What comes with each symbol."""
        x = self.embedding(ids)
        return self.head(self.norm(x + self.mixer(x)[0]))  # type: ignore[no-any-return]


def texts(batch: int, pairs: int, symbols: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Texts (batch, 3 * pairs), whose last third are the questions, and the answers (batch, pairs).

    Keys are the first half of the symbols, no two alike in a text; values are the second half.
    """
    keys = torch.rand(batch, symbols // 2, generator=random).argsort(1)[:, :pairs]
    values = torch.randint(symbols // 2, symbols, (batch, pairs), generator=random)
    order = torch.rand(batch, pairs, generator=random).argsort(1)
    read = torch.stack([keys, values], 2).flatten(1)
    return torch.cat([read, keys.gather(1, order)], 1), values.gather(1, order)


def recalled(
    entry: str, seed: int, *, D: int, options: dict[str, Any], lr: float, steps: int, pairs: int = 8, symbols: int = 64
) -> Evidence:
    """Percent of values that are recalled right, in texts that were not trained on."""
    torch.manual_seed(seed)
    model = Recaller(load(entry)(D, **options), symbols, D=D)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(steps):
        ids, answers = texts(64, pairs, symbols, random)
        loss = functional.cross_entropy(model(ids)[:, -pairs:].transpose(1, 2), answers)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        ids, answers = texts(512, pairs, symbols, random)
        right = model(ids)[:, -pairs:].argmax(-1) == answers
    kept = load("loci.state.mixer:state_bytes")(model.mixer.initial_state(1))  # type: ignore[operator]
    return Evidence(round(100 * float(right.float().mean()), 2), "percent of values recalled", int(kept))

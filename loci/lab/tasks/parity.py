"""Parity: whether the ones so far are odd, at every moment; learned on short texts, asked on long ones.

One bit of state is enough, but it has to be turned by the input: a state that is only ever scaled and added to cannot.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence


class Judge(nn.Module):
    """Bits (B, T) -> logits (B, T) of oddness, through one mixer."""

    def __init__(self, mixer: nn.Module, *, D: int) -> None:
        super().__init__()
        self.embedding, self.mixer, self.head = nn.Embedding(2, D), mixer, nn.Linear(D, 1)

    def forward(self, bits: Tensor) -> Tensor:
        """What it says after each bit."""
        return self.head(self.mixer(self.embedding(bits))[0]).squeeze(-1)  # type: ignore[no-any-return]


def odd(bits: Tensor) -> Tensor:
    """(B, T) -> (B, T), whether the ones up to each moment are odd.

    >>> odd(torch.tensor([[1, 0, 1, 1]])).tolist()
    [[1, 1, 0, 1]]
    """
    return bits.cumsum(1) % 2


def extrapolated(
    entry: str,
    seed: int,
    *,
    D: int,
    options: dict[str, Any],
    lr: float,
    steps: int,
    longest: int = 16,
    asked: int = 64,
) -> Evidence:
    """Percent right in the last half of texts of `asked` bits, after training on texts of at most `longest`."""
    torch.manual_seed(seed)
    judge = Judge(load(entry)(D, **options), D=D)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=lr, weight_decay=0.0)
    for step in range(steps):
        T = 2 + (longest - 2) * min(step, steps // 2) // max(steps // 2, 1)  # longer texts as it goes on
        bits = torch.randint(0, 2, (64, T), generator=random)
        loss = functional.binary_cross_entropy_with_logits(judge(bits), odd(bits).float())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        bits = torch.randint(0, 2, (256, asked), generator=random)
        right = ((judge(bits) > 0) == (odd(bits) > 0))[:, asked // 2 :]
    kept = load("loci.state.mixer:state_bytes")(judge.mixer.initial_state(1))  # type: ignore[operator]
    return Evidence(round(100 * float(right.float().mean()), 2), "percent right beyond the trained length", int(kept))

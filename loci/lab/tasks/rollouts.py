"""Rollouts in which episodes end: what was the first token of this one? RepeatFirst, of the POPGym suite.

Episodes of 20 to 60 moments are packed into rows without gaps. Each moment shows one of four tokens and whether an
episode begins; asked is, at every moment, the token that began the present one. So a memory has to take up one token, hold
it, and lose it at once when the next episode begins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence

TOKENS = 4


def episodes(B: int, T: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (B, T), where episodes begin (B, T), and the token that began each moment's episode (B, T).

    >>> tokens, begins, first = episodes(2, 100, torch.Generator().manual_seed(0))
    >>> bool(begins[:, 0].all()), bool((first == tokens)[begins].all()), bool((first[:, 1:20] == first[:, :1]).all())
    (True, True, True)
    """
    ends = torch.randint(20, 61, (B, T // 20 + 1), generator=random).cumsum(1)
    begins = torch.zeros(B, T + 1, dtype=torch.bool).scatter_(1, ends.clamp(max=T), value=True)[:, :T]
    begins[:, 0] = True
    tokens = torch.randint(TOKENS, (B, T), generator=random)
    since = torch.where(begins, torch.arange(T), 0).cummax(1).values
    return tokens, begins, tokens.gather(1, since)


class Player(nn.Module):
    """Tokens and beginnings -> logits of the first token, through one mixer, which is reset or is not."""

    def __init__(self, mixer: nn.Module, D: int, *, resets: bool) -> None:
        super().__init__()
        self.enter, self.mixer, self.leave, self.resets = nn.Linear(TOKENS + 1, D), mixer, nn.Linear(D, TOKENS), resets

    def forward(self, tokens: Tensor, begins: Tensor) -> Tensor:
        """(B, T) both -> (B, T, TOKENS)."""
        x = torch.cat([functional.one_hot(tokens, TOKENS), begins.unsqueeze(-1)], -1).to(self.enter.weight.dtype)
        logits: Tensor = self.leave(self.mixer(self.enter(x), reset=begins if self.resets else None)[0])
        return logits


def repeat_first(entry: str, seed: int, *, resets: bool, D: int = 32, lr: float = 0.01, updates: int = 150) -> Evidence:
    """Percent right in rollouts of 512 moments, after 150 updates on 16 rollouts of 128 each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        player = Player(load(entry)(D, D, L=2), D, resets=resets)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(player.parameters(), lr=lr)
    for _ in range(updates):
        tokens, begins, first = episodes(16, 128, random)
        loss = functional.cross_entropy(player(tokens, begins).flatten(0, 1), first.flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        tokens, begins, first = episodes(64, 512, random)
        right = player(tokens, begins).argmax(-1) == first
    kept = load("loci.state.mixer:state_bytes")(player.mixer.initial_state(1))  # type: ignore[operator]
    return Evidence(round(100 * float(right.float().mean()), 2), "percent right", int(kept))

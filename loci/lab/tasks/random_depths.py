"""The control of depths that tokens choose: as many tokens go as deep, and chance says which.

On texts of easy and hard tokens (tasks/brackets.py). `chosen` trains token choice, `drawn` the same decoder, with as many
weights, steps and bytes, whose depths are drawn for each token anew, with the shares that the router of the same seed ended at.
The gate is still the router's own probability of the depth, so that what differs is who goes how deep.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loci.lab.claim import Evidence
from loci.lab.tasks.brackets import Learned, learned
from loci.state.decoder.mixture_of_recursions import MixtureOfRecursionsTokenChoice
from loci.state.decoder.routers import Choice, TokenChoice

BUDGET, LR = 60.0, 0.005  # 10^9 operations forward, and the highest rate
SIZES = {"D": 48, "heads": 2, "hidden": 128, "layers": 1, "recursions": 3}


class Drawn(nn.Module):
    """A router whose depths are drawn with given shares of 1, ..., N; gates and losses are those of the router within."""

    def __init__(self, router: TokenChoice, shares: Sequence[float], random: torch.Generator) -> None:
        super().__init__()
        if len(shares) != len(router.theta) or min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"shares={shares} are no shares of {len(router.theta)} depths; give as many, from 0 up")
        self.router, self.shares, self.random = router, torch.tensor(shares), random

    def forward(self, h: Tensor) -> Choice:
        """(B, T, D) -> depths by chance."""
        depth = torch.multinomial(self.shares, h[..., 0].numel(), replacement=True, generator=self.random)
        depth = depth.view(h.shape[:-1])
        odds = (h @ self.router.theta.T / self.router.temperature).softmax(-1)
        return Choice(depth + 1, odds.gather(-1, depth.unsqueeze(-1)), self.router(h).loss)


def by_chance(
    V: int, *, D: int, heads: int, hidden: int, layers: int, recursions: int, window: int, shares: Sequence[float], seed: int
) -> MixtureOfRecursionsTokenChoice:  # fmt: skip
    """Token choice, of which `Drawn` makes the choices."""
    model = MixtureOfRecursionsTokenChoice(
        V, D=D, heads=heads, hidden=hidden, layers=layers, recursions=recursions, window=window
    )
    model.router = Drawn(model.router, shares, torch.Generator().manual_seed(seed))  # type: ignore[assignment]
    return model


@functools.lru_cache(maxsize=1)
def of_choice(seed: int) -> Learned:
    """Token choice as it reads when trained; kept, since the control asks how deep its tokens go."""
    entry = "loci.state.decoder.mixture_of_recursions:MixtureOfRecursionsTokenChoice"
    return learned(entry, seed, budget=BUDGET, parts=2, lr=LR, options=SIZES)


def of_chance(seed: int) -> Learned:
    """Its control."""
    options: dict[str, Any] = SIZES | {"shares": of_choice(seed).shares[1:], "seed": 1_000_000 + seed}
    return learned("loci.lab.tasks.random_depths:by_chance", seed, budget=BUDGET, parts=2, lr=LR, options=options)


def chosen(seed: int) -> Evidence:
    """Nats an answer where tokens choose."""
    return evidence(of_choice(seed))


def drawn(seed: int) -> Evidence:
    """Nats an answer where chance does."""
    return evidence(of_chance(seed))


def evidence(got: Learned) -> Evidence:
    """What the claim compares."""
    return Evidence(got.nats, "nats an answer, read token by token", got.bytes)

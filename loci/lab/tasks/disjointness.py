"""Set disjointness: two sets read one after the other share one element; which? One of them is small, and may come second.

What a causal reader has to keep is the set that came first, since it does not know what will be asked of it. Who knows both
sets may keep the small one, and needs two layers for it: one that compares, and one that chooses. Sets are marked as first
and second, not as small and large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence


def sets(count: int, sizes: tuple[int, int], *, universe: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Texts (count, first + second) of two sets that share one element, and that element (count,).

    >>> texts, shared = sets(5, (2, 3), universe=9, random=torch.Generator().manual_seed(0))
    >>> [sorted(set(row[:2]) & set(row[2:])) == [one] for row, one in zip(texts.tolist(), shared.tolist())]
    [True, True, True, True, True]
    """
    first, second = sizes
    if min(sizes) < 1 or first + second - 1 > universe:
        raise ValueError(
            f"sizes={sizes} do not fit universe={universe}; choose sets of at least 1 and at most that in all"
        )
    drawn = torch.rand(count, universe, generator=random).argsort(1)[:, : first + second - 1]
    shared = drawn[:, 0]
    places = torch.rand(count, second, generator=random).argsort(1)  # where in the second set the shared one comes
    after = torch.cat([shared.unsqueeze(1), drawn[:, first:]], 1).gather(1, places)
    order = torch.rand(count, first, generator=random).argsort(1)
    return torch.cat([drawn[:, :first].gather(1, order), after], 1), shared


class Block(nn.Module):
    """A mixer and a feed-forward net, each behind its norm and inside a residual connection."""

    def __init__(self, mixer: nn.Module, *, D: int, hidden: int) -> None:
        super().__init__()
        self.mixer, self.before, self.between = mixer, nn.LayerNorm(D), nn.LayerNorm(D)
        self.feed = nn.Sequential(nn.Linear(D, hidden, bias=False), nn.GELU(), nn.Linear(hidden, D, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Read by `prefill` where the mixer has it, else causally."""
        x = x + getattr(self.mixer, "prefill", self.mixer)(self.before(x))[0]
        return x + self.feed(self.between(x))  # type: ignore[no-any-return]


class Finder(nn.Module):
    """Texts (B, T) and which set each place is of (T,) -> logits (B, T) of being the shared element."""

    def __init__(self, mixers: Sequence[nn.Module], universe: int, *, D: int, hidden: int) -> None:
        super().__init__()
        self.element, self.which = nn.Embedding(universe, D), nn.Embedding(2, D)
        self.blocks = nn.Sequential(*(Block(mixer, D=D, hidden=hidden) for mixer in mixers))
        self.head = nn.Linear(D, 1)

    def forward(self, texts: Tensor, which: Tensor) -> Tensor:
        """Block by block over all places."""
        return self.head(self.blocks(self.element(texts) + self.which(which))).squeeze(-1)  # type: ignore[no-any-return]


def found(
    entry: str,
    seed: int,
    *,
    D: int,
    options: dict[str, Any],
    hidden: int,
    lr: float,
    steps: int,
    readings: int = 1,
    depth: int = 2,
    sizes: tuple[int, int] = (4, 16),
    universe: int = 32,
) -> Evidence:
    """Percent of shared elements found in the worse of the two orders, after training on both."""
    torch.manual_seed(seed)
    mixers = [load(entry)(D, **options) for _ in range(depth)]
    model = Finder(mixers, universe, D=D, hidden=hidden)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for step in range(steps):
        scores, right = _asked(model, 64, sizes[:: 1 if step % 2 else -1], universe, readings, random)
        loss = -(functional.log_softmax(scores, 1).masked_fill(~right, -torch.inf)).logsumexp(1).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    share = []
    with torch.no_grad():
        for order in (sizes, sizes[::-1]):
            scores, right = _asked(model, 1024, order, universe, readings, random)
            share.append(float(right.gather(1, scores.argmax(1, keepdim=True)).float().mean()))
    kept = sum(load("loci.state.mixer:state_bytes")(mixer.initial_state(1)) for mixer in mixers)
    unit = f"percent found in the worse order ({100 * share[0]:.1f} small first, {100 * share[1]:.1f} large first)"
    return Evidence(round(100 * min(share), 2), unit, kept)


def _asked(
    model: Finder, count: int, sizes: tuple[int, ...], universe: int, readings: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Scores of all places of some texts, read so many times, and at which of them the shared element stands."""
    first, second = sizes
    texts, shared = sets(count, (first, second), universe=universe, random=random)
    which = (torch.arange(first + second) >= first).long()
    texts = texts.repeat(1, readings)
    return model(texts, which.repeat(readings)), texts == shared.unsqueeze(1)

"""Ballet without a stage: events one after another, noise between them, then: what was the j-th move of that dancer?

An event is twelve moments. Each shows who dances, one of 32 directions, and a move, one of eight; twelve moments of noise
follow, which show someone unknown and any move. The question shows the dancer of one event and a number j. Moves are
drawn anew each time, and their order is lost in any mean over an event: who kept no more than that has to guess.

Shapes: B batch, n events, T = 24 n moments, W width of what is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence
from loci.state.hcam import HCAM
from loci.state.mixer import Mixer, state_bytes

DANCERS, SPACE, MOVES, STEPS, DELAY = 32, 16, 8, 12, 12
W = SPACE + MOVES + STEPS  # who, which move, and in a question which step


def dancers(random: torch.Generator) -> Tensor:
    """Who there is: 32 unit vectors."""
    return functional.normalize(torch.randn(DANCERS, SPACE, generator=random), dim=-1)


def episodes(B: int, n: int, known: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """What is shown (B, 24 n, W), the question (B, W) and its answer (B); no dancer is seen twice in an episode.

    >>> random = torch.Generator().manual_seed(0)
    >>> shown, question, answer = episodes(2, 4, dancers(random), random)
    >>> shown.shape, question.shape, bool(answer.max() < MOVES)
    (torch.Size([2, 96, 36]), torch.Size([2, 36]), True)
    """
    who = known[torch.rand(B, DANCERS, generator=random).argsort(1)[:, :n]]  # (B, n, SPACE)
    moves = torch.randint(MOVES, (B, n, STEPS + DELAY), generator=random)
    noise = functional.normalize(torch.randn(B, n, DELAY, SPACE, generator=random), dim=-1)
    seen = torch.cat([who.unsqueeze(2).expand(-1, -1, STEPS, -1), noise], 2)  # (B, n, 24, SPACE)
    steps = torch.zeros(B, n, STEPS + DELAY, STEPS)
    shown = torch.cat([seen, functional.one_hot(moves, MOVES).float(), steps], -1).flatten(1, 2)
    event, step = (torch.randint(count, (B,), generator=random) for count in (n, STEPS))
    row = torch.arange(B)
    asked = torch.cat([who[row, event], torch.zeros(B, MOVES), functional.one_hot(step, STEPS).float()], -1)
    return shown, asked, moves[row, event, step]


class Onlooker(nn.Module):
    """Watches, is asked, and answers, through one mixer between linear maps."""

    def __init__(self, mixer: Mixer, *, D: int) -> None:
        super().__init__()
        self.enter, self.mixer, self.leave = nn.Linear(W, D), mixer, nn.Linear(D, MOVES)

    def forward(self, shown: Tensor, asked: Tensor) -> Tensor:
        """(B, T, W) and (B, W) -> logits of the move, (B, MOVES)."""
        if isinstance(self.mixer, HCAM):  # no gradient enters what it stores, and nothing is asked while it watches
            state = self.mixer.remember(self.enter(shown).detach())
        else:
            state = self.mixer(self.enter(shown))[1]
        logits: Tensor = self.leave(self.mixer(self.enter(asked).unsqueeze(1), state)[0].squeeze(1))
        return logits


class SummaryOnly(HCAM):
    """The twin that keeps as many bytes and finds as many chunks, but reads of each no more than its summary."""

    def recall(self, asked: Tensor, keys: Tensor, contents: Tensor, readable: Tensor) -> Tensor:
        """As if all moments of a chunk had been their mean."""
        return super().recall(asked, keys, keys.unsqueeze(2).expand_as(contents), readable)


def trained(entry: str, seed: int, *, D: int, options: dict[str, Any], lr: float, steps: int, n: int) -> Onlooker:
    """An onlooker of episodes of n events, and of the dancers of that seed."""
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        onlooker = Onlooker(load(entry)(D, **options), D=D)
    known = dancers(random)
    optimizer = torch.optim.Adam(onlooker.parameters(), lr=lr)
    for _ in range(steps):
        shown, asked, answer = episodes(64, n, known, random)
        loss = functional.cross_entropy(onlooker(shown, asked), answer)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(onlooker.parameters(), 1.0)
        optimizer.step()
    return onlooker


@torch.no_grad()
def right(onlooker: Onlooker, seed: int, *, n: int, count: int = 1024) -> float:
    """Percent of questions answered right, in new episodes of n events with the dancers of that seed."""
    known = dancers(torch.Generator().manual_seed(seed))
    shown, asked, answer = episodes(count, n, known, torch.Generator().manual_seed(seed + 1_000_000))
    return round(100 * float((onlooker(shown, asked).argmax(-1) == answer).float().mean()), 2)


def answered(
    entry: str,
    seed: int,
    *,
    D: int,
    options: dict[str, Any],
    lr: float,
    steps: int,
    n: int = 4,
    events: Sequence[int] = (4,),
) -> Evidence:
    """Percent of questions answered right, the least over episodes of these numbers of events, learned on n."""
    onlooker = trained(entry, seed, D=D, options=options, lr=lr, steps=steps, n=n)
    percent = min(right(onlooker, seed, n=count) for count in events)
    return Evidence(percent, "percent of moves recalled", state_bytes(onlooker.mixer.initial_state(1)))

"""Streams of glyphs: a few unknown classes, one of them rare, named as they come; half-way their names may change places.

A glyph is a random binary picture of 8 by 8, a sight of it has a tenth of its points flipped. Each stream draws its classes from
a pool, and names them anew; the last answer is told with the next sight. Classes of the test are not those of the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence
from loci.state.mixer import state_bytes
from loci.state.neural_memory import NeuralMemory
from loci.state.synthetic_gradient_memory import SyntheticGradientMemory, slow_losses

POINTS = 64


class Streams(NamedTuple):
    """A batch of streams: inputs (B, T, POINTS + ways) with the label before, labels, which class, which is rare, switched."""

    x: Tensor
    labels: Tensor  # (B, T)
    kinds: Tensor  # (B, T), the class within the stream, whatever it is called; 0 is the rare one
    switched: Tensor  # (B,), whether names change at T // 2


class Scores(NamedTuple):
    """Shares right, of items whose class was named before under the name it has now."""

    overall: float
    rare: float  # the rare class at its second sight, where names stay
    switched: float  # after names changed


@dataclass(frozen=True, slots=True)
class Show:
    """The sizes of streams: `ways` classes, `length` sights, two of them of the rare class."""

    ways: int = 5
    length: int = 50
    flips: float = 0.1


def glyphs(seed: int, count: int) -> Tensor:
    """(count, POINTS) of -1 and 1."""
    return 2.0 * torch.randint(0, 2, (count, POINTS), generator=torch.Generator().manual_seed(seed)) - 1


def streams(pool: Tensor, batch: int, show: Show, random: torch.Generator) -> Streams:
    """Draw streams from a pool of glyphs; in half of them names change half-way, none keeping its own."""
    ways, T = show.ways, show.length
    common = torch.arange(T - 2) % (ways - 1) + 1
    kinds = torch.cat([torch.zeros(2, dtype=torch.long), common]).expand(batch, T)
    kinds = kinds.gather(1, torch.rand(batch, T, generator=random).argsort(1))
    classes = torch.rand(batch, len(pool), generator=random).topk(ways, 1).indices
    sights = pool[classes.gather(1, kinds)]
    sights = torch.where(torch.rand(sights.shape, generator=random) < show.flips, -sights, sights)
    names = torch.rand(batch, ways, generator=random).argsort(1)
    switched = torch.rand(batch, generator=random) < 0.5
    late = switched.unsqueeze(1) & (torch.arange(T) >= T // 2)
    labels = names.gather(1, kinds)
    labels = torch.where(late, (labels + 1) % ways, labels)
    told = functional.pad(functional.one_hot(labels, ways)[:, :-1], (0, 0, 1, 0)).to(sights.dtype)
    return Streams(torch.cat([sights, told], -1), labels, kinds, switched)


def known(shown: Streams) -> Tensor:
    """(B, T), whether the class was named before, under the name that it has now."""
    T = shown.kinds.shape[1]
    same = (shown.kinds.unsqueeze(1) == shown.kinds.unsqueeze(2)) & (
        shown.labels.unsqueeze(1) == shown.labels.unsqueeze(2)
    )
    return (same & torch.ones(T, T, dtype=torch.bool).tril(-1)).any(2)


def scores(right: Tensor, shown: Streams) -> Scores:
    """What is counted, from which answers (B, T) were right."""
    counted, late = known(shown), torch.arange(right.shape[1]) >= right.shape[1] // 2
    rare = counted & (shown.kinds == 0) & ~shown.switched.unsqueeze(1)
    after = counted & late & shown.switched.unsqueeze(1)
    return Scores(*(float(right[where].float().mean()) for where in (counted, rare, after)))


@torch.no_grad()
def examined(mixer: NeuralMemory, pool: Tensor, show: Show, random: torch.Generator, *, count: int = 512) -> Scores:
    """Scores of a mixer on new streams of the pool."""
    shown = streams(pool, count, show, random)
    return scores(mixer(shown.x)[0][..., -show.ways :].argmax(-1) == shown.labels, shown)


def train(
    mixer: NeuralMemory,
    pool: Tensor,
    show: Show,
    random: torch.Generator,
    *,
    steps: int,
    batch: int = 32,
    lr: float = 3e-3,
    n: int = 2,
) -> list[float]:
    """Learn slowly, by Adam over episodes that each start afresh; a network of fast weights also learns what to predict.

    The cosine between predicted and true gradients at every step, none for a plain network.
    """
    optimizer = torch.optim.Adam(mixer.parameters(), lr)
    cosines = []
    for _ in range(steps):
        shown = streams(pool, batch, show, random)
        if isinstance(mixer, SyntheticGradientMemory):
            slow = slow_losses(mixer, shown.x, shown.labels, n=n)
            loss = slow.answers + slow.gradients
            cosines.append(slow.cosine)
        else:
            logits = mixer(shown.x)[0][..., -show.ways :]
            loss = functional.cross_entropy(logits.flatten(0, 1), shown.labels.flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(mixer.parameters(), 1.0)
        optimizer.step()
    return cosines


def named(entry: str, seed: int, *, n: int, options: dict[str, Any], steps: int, show: Show, lr: float) -> Evidence:
    """Percent of items named right whose name was told before, on classes that were not trained on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        random, pool = torch.Generator().manual_seed(seed), glyphs(seed, 500)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            mixer: NeuralMemory = load(entry)(POINTS + show.ways, n, **options)
        train(mixer, pool[:400], show, random, steps=steps, lr=lr)
        found = examined(mixer, pool[400:], show, random)
        kept = state_bytes(mixer.initial_state(1))
        return Evidence(round(100 * found.overall, 2), "percent of told names recalled", kept)
    finally:
        torch.set_num_threads(threads)

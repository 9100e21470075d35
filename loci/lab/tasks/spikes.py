"""Tasks for spiking networks: clouds that are shown as a constant current, and events of which the order is the label.

In the first, time only repeats what a step shows; in the second no step shows it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from loci.core.card import load
from loci.lab.claim import Evidence

D, CLASSES, SPREAD = 40, 10, 1.5
STEPS, BATCH = 6, 128


class Clouds:
    """One seed's ten Gaussian classes in 40 dimensions, without end."""

    classes = CLASSES

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.means = torch.randn(CLASSES, D, generator=self.random)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Currents (count, 40), the same at every step, and their classes."""
        y = torch.randint(CLASSES, (count,), generator=self.random)
        return self.means[y] + SPREAD * torch.randn(count, D, generator=self.random), y


class Order:
    """Two events, A and B, at two random steps of six: which came first? 20 channels carry each of them, in noise."""

    classes = 2

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Currents (count, 6, 40), and 1 where B came first."""
        steps = torch.rand(count, STEPS, generator=self.random).argsort(1)[:, :2]
        x = 0.3 * torch.randn(count, STEPS, 2, D // 2, generator=self.random)
        rows = torch.arange(count)
        for event in range(2):
            x[rows, steps[:, event], event] += 1.5
        return x.flatten(2), (steps[:, 0] > steps[:, 1]).long()


def accuracy(
    entry: str,
    seed: int,
    *,
    task: Literal["clouds", "order"] = "clouds",
    hidden: int = 128,
    updates: int = 300,
    lr: float = 0.1,
    **options: Any,
) -> Evidence:
    """Percent right after `updates` of SGD with momentum on two spiking layers of `hidden` units; peak saved bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        source: Clouds | Order = Clouds(seed) if task == "clouds" else Order(seed)
        build = load(f"loci.weights.local.{entry}")
        trainer = build([hidden, hidden], [D], classes=source.classes, steps=STEPS, seed=seed, **options)
        optimizer = torch.optim.SGD(trainer.parameters(), lr=lr, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        for _ in range(updates):
            x, y = source.draw(BATCH)
            optimizer.zero_grad()
            for _ in trainer.backward_blocks(x, y):
                pass
            optimizer.step()
            schedule.step()
        saved = load("loci.weights.local.checks:peak_saved_bytes")(trainer, *source.draw(BATCH))
        x, y = source.draw(4000)
        with torch.no_grad():
            right = float((trainer(x).argmax(1) == y).float().mean() * 100)
    finally:
        torch.set_num_threads(threads)
    return Evidence(round(right, 2), "% right", saved)

"""Classes that are not linear in the inputs: ten of two Gaussian clouds each, in 64 dimensions.

A network without learned hidden layers does badly when it is narrow, so what hidden layers learn can be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence

D, CLASSES, CLOUDS, SPREAD = 64, 10, 2, 3.0
BATCH, EPOCHS = 64, 10


class Clusters:
    """One seed's clouds: 4,000 rows to train on, 2,000 to test."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.centres = torch.randn(CLASSES, CLOUDS, D, generator=self.random)
        self.train, self.test = self.draw(4000), self.draw(2000)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Rows (count, 64) and their classes."""
        y = torch.randint(CLASSES, (count,), generator=self.random)
        cloud = torch.randint(CLOUDS, (count,), generator=self.random)
        return self.centres[y, cloud] + SPREAD * torch.randn(count, D, generator=self.random), y

    def learn(self, model: nn.Module, backward: Callable[[Tensor, Tensor], object], *, lr: float) -> float:
        """Ten epochs of SGD, lr falling to zero along a cosine; percent right on the test rows."""
        optimizer = torch.optim.SGD([param for param in model.parameters() if param.requires_grad], lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
        x, y = self.train
        for _ in range(EPOCHS):
            for rows in torch.split(torch.randperm(len(x), generator=self.random), BATCH):
                optimizer.zero_grad()
                backward(x[rows], y[rows])
                optimizer.step()
            schedule.step()
        with torch.no_grad():
            return float((model(self.test[0]).argmax(1) == self.test[1]).float().mean() * 100)


def behind_backprop(
    entry: str, seed: int, *, lr: float, width: int = 32, frozen: bool = False, **options: Any
) -> Evidence:
    """Points that a local trainer with two hidden layers is behind backpropagation on the same one; peak saved bytes.

    Backpropagation starts from the same weights, at lr 0.1. `frozen` leaves the hidden layers as they were drawn.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        build = load(f"loci.weights.local.{entry}")
        trainer, plain = (build([width, width], [D], classes=CLASSES, seed=seed, **options) for _ in range(2))
        trainer.layers.requires_grad_(not frozen)
        best = Clusters(seed).learn(
            plain, lambda x, y: torch.autograd.backward(functional.cross_entropy(plain(x), y)), lr=0.1
        )
        task = Clusters(seed)
        right = task.learn(trainer, lambda x, y: list(trainer.backward_blocks(x, y)), lr=lr)
        x, y = (part[:BATCH] for part in task.train)
        saved = load("loci.weights.local.checks:peak_saved_bytes")(trainer, x, y)
    finally:
        torch.set_num_threads(threads)
    return Evidence(round(best - right, 2), "points behind backpropagation", saved)

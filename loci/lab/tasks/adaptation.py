"""Adapting a pre-trained classifier to rotated inputs: a change that a small model can learn without gradients.

Ten classes are Gaussian clouds in 64 dimensions. A network learns them under one rotation, then must follow when all 32
planes turn by 60 degrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

D, CLASSES, HIDDEN = 64, 10, 128


class Adaptation:
    """One seed's clouds, rotation and pre-trained network."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.means = 0.5 * torch.randn(CLASSES, D, generator=self.random)
        basis, _ = torch.linalg.qr(torch.randn(D, D, generator=self.random))
        angle = torch.tensor(math.pi / 3)
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
        self.rotation = basis @ torch.kron(torch.eye(D // 2), turn) @ basis.T
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.fresh = nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)).state_dict()
        model = self.model(self.fresh)
        self.by_gradient(model, *self.draw(4000, rotated=False), steps=600)
        self.pretrained = {name: value.clone() for name, value in model.state_dict().items()}
        self.train, self.test = self.draw(1000), self.draw(4000)

    def draw(self, count: int, *, rotated: bool = True) -> tuple[Tensor, Tensor]:
        """Points (count, 64) and their classes."""
        labels = torch.randint(CLASSES, (count,), generator=self.random)
        x = self.means[labels] + torch.randn(count, D, generator=self.random)
        return (x @ self.rotation.T if rotated else x), labels

    def model(self, weights: dict[str, Tensor]) -> nn.Module:
        """A network with these weights."""
        model = nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
        model.load_state_dict({name: value.clone() for name, value in weights.items()})
        return model

    def by_gradient(self, model: nn.Module, x: Tensor, y: Tensor, *, steps: int) -> None:
        """SGD with momentum and backpropagation."""
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(steps):
            rows = torch.randint(len(x), (64,), generator=self.random)
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(x[rows]), y[rows]))
            optimizer.step()

    def accuracy(self, model: nn.Module) -> float:
        """Percent right on rotated points that were not trained on."""
        with torch.no_grad():
            x, y = self.test
            return float((model(x).argmax(1) == y).float().mean() * 100)


def share_of_gain(build: Callable[[Any], Any], seed: int, *, steps: int, pretrained: bool) -> tuple[float, int]:
    """What a gradient-free optimizer wins over no adaptation, as a share of what backpropagation wins; its state's bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = Adaptation(seed)
        start = task.accuracy(task.model(task.pretrained))
        best = task.model(task.pretrained)
        task.by_gradient(best, *task.train, steps=1000)
        model = task.model(task.pretrained if pretrained else task.fresh)
        optimizer, (x, y) = build(model), task.train
        for _ in range(steps):
            rows = torch.randint(len(x), (64,), generator=task.random)
            optimizer.step(lambda rows=rows: nn.functional.cross_entropy(model(x[rows]), y[rows]))
        gained, possible = task.accuracy(model) - start, task.accuracy(best) - start
    finally:
        torch.set_num_threads(threads)
    return round(gained / possible, 3), 0

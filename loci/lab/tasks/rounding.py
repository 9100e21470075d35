"""Training a small network whose weights are rounded after every step: small steps are lost, or are they not?

Ten classes are Gaussian clouds in 64 dimensions (sigma 2 around means of size 1 in each), 4,000 points; a 64-32-10 ReLU
network takes 800 steps of SGD.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from loci.core.card import load

D, HIDDEN, CLASSES, POINTS = 64, 32, 10, 4000


def final_loss(
    seed: int, rounder: Any = None, *, steps: int = 800, batch: int = 64, lr: float = 0.01
) -> tuple[float, int]:
    """Loss over all points after training with weights rounded by `rounder`, and the number of weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        random = torch.Generator().manual_seed(seed)
        means = torch.randn(CLASSES, D, generator=random)
        labels = torch.randint(CLASSES, (POINTS,), generator=random)
        x = means[labels] + 2 * torch.randn(POINTS, D, generator=random)
        model = _network(random)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        if rounder is not None:
            load("loci.budget.precision.steps:rounded_steps")(optimizer, weights=rounder)
        for _ in range(steps):
            rows = torch.randint(POINTS, (batch,), generator=random)
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(x[rows]), labels[rows]))
            optimizer.step()
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(model(x), labels))
    finally:
        torch.set_num_threads(threads)
    return loss, sum(param.numel() for param in model.parameters())


def _network(random: torch.Generator) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                for param in layer.parameters():
                    param.copy_((torch.rand(param.shape, generator=random) * 2 - 1) * layer.in_features**-0.5)
    return model

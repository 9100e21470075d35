"""Which grating is on the left and which on the right: a task whose answer is lost by pooling too early.

An image is 12 x 12. One of three gratings (sinusoids at 0, 60 and 120 degrees, 0.3 cycles a pixel, random phases) fills the
columns left of a random split, another one or the same the rest; noise of sd 1.8 lies over both. The class is the ordered
pair. A block that is to classify by the mean over places keeps which gratings there are, not where.

With `nuisance` a strong sinusoid of random direction, frequency and phase lies over every image and says nothing of its class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loci.weights.local.base import LocalTrainer, seeded
from loci.weights.local.checks import peak_saved_bytes
from loci.weights.local.cut import Cut, LocalLoss
from loci.weights.local.nets import merging_transformer

SIDE, KINDS, CLASSES = 12, 3, 9
SHAPE = (1, SIDE, SIDE)
FREQUENCY, NOISE, NUISANCE = 0.3, 1.8, 3.0
RANGE = 6.0  # pixels beyond are clipped where an image is to be in [0, 1]
Losses = Callable[[nn.Module, list[nn.Module]], Sequence[LocalLoss]]  # of a stem and its blocks


@dataclass(frozen=True, slots=True)
class Images:
    """Images (N, 1, 12, 12) and classes (N,) to train on and to test on."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def images(seed: int, *, train: int = 3000, test: int = 2000, nuisance: bool = False) -> Images:
    """One seed's draw."""
    random = torch.Generator().manual_seed(seed)
    return Images(draw(train, random, nuisance=nuisance), draw(test, random, nuisance=nuisance))


def draw(count: int, random: torch.Generator, *, nuisance: bool = False) -> tuple[Tensor, Tensor]:
    """Images (count, 1, 12, 12) and classes 3 * left + right."""
    left, right = torch.randint(KINDS, (2, count), generator=random)
    split = torch.randint(4, 9, (count, 1, 1), generator=random)
    whole = torch.where(torch.arange(SIDE) < split, _grating(left, random), _grating(right, random))
    x = whole + NOISE * torch.randn(count, SIDE, SIDE, generator=random)
    if nuisance:
        angle = math.pi * torch.rand(count, generator=random)
        frequency = 0.05 + 0.1 * torch.rand(count, generator=random)
        x = x + NUISANCE * _wave(angle, frequency, random)
    return x[:, None], KINDS * left + right


def unit(x: Tensor) -> Tensor:
    """Images as pixels in [0, 1], for losses that rebuild them."""
    return (x / (2 * RANGE) + 0.5).clamp(0, 1)


def _grating(kind: Tensor, random: torch.Generator) -> Tensor:
    return _wave(kind * (math.pi / KINDS), torch.full((len(kind),), FREQUENCY), random)


def _wave(angle: Tensor, frequency: Tensor, random: torch.Generator) -> Tensor:
    """Sinusoids (N, 12, 12), each of its angle and cycles a pixel, at a random phase."""
    phase = 2 * math.pi * torch.rand(len(angle), generator=random)
    rows, columns = torch.arange(SIDE)[:, None], torch.arange(SIDE)
    along = angle.cos()[:, None, None] * columns + angle.sin()[:, None, None] * rows
    return torch.sin(2 * math.pi * frequency[:, None, None] * along + phase[:, None, None])


def transformer(seed: int, *, modules: int, losses: Losses, width: int = 32) -> Cut:
    """Four layers, two before and two after a merging of the patches, in modules with the losses that are made for them."""
    with seeded(seed):
        stem, blocks, head = merging_transformer(
            width, 4, layers=4, blocks=modules, shape=SHAPE, patch=2, classes=CLASSES
        )
        made = losses(stem, blocks)
    return Cut(stem, blocks, head, made, shape=SHAPE, classes=CLASSES)


def score(
    build: Callable[[int], LocalTrainer], seed: int, *, epochs: int, nuisance: bool = False, lr: float = 2e-3
) -> tuple[float, int]:
    """Train with AdamW in batches of 64; percent right on the test images, and the peak bytes saved for backward.

    Images and their order come from the seed alone, so that trainers are compared on the same ones.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data, trainer = images(seed, nuisance=nuisance), build(seed)
        peak = peak_saved_bytes(build(seed), data.train[0][:64], data.train[1][:64])
        descend(trainer, *data.train, epochs=epochs, lr=lr, random=torch.Generator().manual_seed(seed))
        trainer.eval()
        with torch.no_grad():
            right = (trainer(data.test[0]).argmax(1) == data.test[1]).float().mean()
    finally:
        torch.set_num_threads(threads)
    return round(float(right) * 100, 2), peak


def descend(trainer: LocalTrainer, x: Tensor, y: Tensor, *, epochs: int, lr: float, random: torch.Generator) -> None:
    """Passes over the images in random order; lr falls to 0 as a cosine, so that averages of batch norm catch up."""
    optimizer = torch.optim.AdamW([param for block in trainer.blocks() for param in block], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(x) // 64))
    trainer.train()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x), generator=random), 64):
            optimizer.zero_grad()
            for _ in trainer.backward_blocks(x[rows], y[rows]):
                pass
            optimizer.step()
            schedule.step()

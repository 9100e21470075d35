"""The contract: a local trainer is a model cut into blocks, each with a loss of its own; backward never crosses a cut.

    for loss in trainer.backward_blocks(x, y):    # block by block: forward, its loss, its backward
        ...                                       # here nothing is saved for backward any more
    optimizer.step()                              # or fuse_into_backward(optimizer): no gradient waits for the step

At any time the tensors saved for backward are those of one block. The peak over blocks is the byte formula of the
card; training in one graph would hold the sum.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class LocalTrainer(nn.Module, ABC):
    """A model trained block by block. What only helps training (heads, decoders, copies) is not in `forward`."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Class scores (B, C) by the trained blocks alone."""

    @abstractmethod
    def block_losses(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Each block's loss, in order, on a graph that reaches that block's parameters and no others.

        Lazy: a block's forward runs when its loss is asked for, and between two losses the iterator holds detached
        tensors only. `list(block_losses(x, y))` holds all graphs at once: the slow form, the oracle of the fast one.
        """

    @abstractmethod
    def blocks(self) -> list[list[nn.Parameter]]:
        """The parameters that each loss trains, in the order of `block_losses`; those in none are fixed or averages."""

    @abstractmethod
    def draw(self, batch: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random inputs and classes (B,) of the shapes that this model takes: to meter it before there is data."""

    @abstractmethod
    def shapes(self, batch: int) -> Mapping[str, float]:
        """What the names of the card's byte formula stand for at this batch size."""

    def helpers(self) -> list[nn.Module]:
        """What only helps training: heads, decoders, copies, projections. `forward` is the same without them."""
        return []

    def backward_blocks(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Forward and backward of one block at a time; yields its detached loss. Gradients add up in `.grad`."""
        for loss in self.block_losses(x, y):
            torch.autograd.backward(loss)
            yield loss.detach()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Modules built inside are initialised from the seed; torch's global generator is as before afterwards."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def require_input(x: Tensor, shape: Sequence[int | None]) -> None:
    """Refuse what is not a batch of rows of this shape; None fits any size.

    >>> require_input(torch.ones(2, 5), (4,))
    Traceback (most recent call last):
    ValueError: x is (2, 5), this model takes (B, 4) with B >= 1; give rows of that shape
    """
    fits = x.dim() == len(shape) + 1 and all(want in (None, got) for want, got in zip(shape, x.shape[1:], strict=True))
    if not fits or 0 in x.shape:
        want = ", ".join(["B", *("*" if size is None else str(size) for size in shape)])
        raise ValueError(f"x is {tuple(x.shape)}, this model takes ({want}) with B >= 1; give rows of that shape")


def require_classes(x: Tensor, y: Tensor, classes: int) -> None:
    """Refuse what is not one class number for each row of x.

    >>> require_classes(torch.ones(2, 4), torch.tensor([0, 3]), 3)
    Traceback (most recent call last):
    ValueError: y has 3, the classes are 0 to 2; give class numbers in that range
    """
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise ValueError(
            f"y is {tuple(y.shape)} of {y.dtype}, x has {len(x)} rows; give one class number (torch.int64) for each row"
        )
    if not len(y):
        raise ValueError("y is empty; give at least one row")
    low, high = (int(end) for end in y.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(
            f"y has {low if low < 0 else high}, the classes are 0 to {classes - 1}; give class numbers in that range"
        )

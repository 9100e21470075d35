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
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class LocalTrainer(nn.Module, ABC):
    """A model that is trained block by block. What only helps training (heads, decoders, copies) is not in `forward`."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Class scores (B, C) by the trained blocks alone."""

    @abstractmethod
    def block_losses(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Each block's loss, in order, on a graph that reaches that block's parameters and no others.

        Lazy: a block's forward runs when its loss is asked for, and between two losses the iterator holds detached
        tensors only. `list(block_losses(x, y))` holds all graphs at once: the slow form, and the oracle of the fast one.
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

    def backward_blocks(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Forward and backward of one block at a time; yields its detached loss. Gradients add up in `.grad`."""
        for loss in self.block_losses(x, y):
            torch.autograd.backward(loss)
            yield loss.detach()

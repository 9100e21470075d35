"""Layers as numbers or modules: an int is a fully connected layer of that many units, a module is itself.

>>> layers, sizes = chain([nn.Conv2d(1, 3, 2), 5], (1, 4, 4))
>>> layers[1], sizes
(Dense(in_features=27, out_features=5, bias=True), [(3, 3, 3), (5,)])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

Layer: TypeAlias = int | nn.Module


class Dense(nn.Linear):
    """A fully connected layer on rows of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, units)."""
        return super().forward(x.flatten(1))


class Recurrent(nn.Module):
    """W x_t + U h_{t-1} + b, before its activation; h is the caller's to keep."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.W = Dense(inputs, units)
        self.U = nn.Linear(units, units, bias=False)

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        """(B, inputs), (B, units) -> (B, units); no state is the zero state."""
        z: Tensor = self.W(x) + self.U(x.new_zeros(len(x), self.units) if state is None else state)
        return z


def chain(layers: Sequence[Layer], shape: Sequence[int]) -> tuple[nn.ModuleList, list[tuple[int, ...]]]:
    """The layers as modules, and the shape of what each gives for one row of the given shape."""
    modules, sizes, size = nn.ModuleList(), [], tuple(shape)
    for place, layer in enumerate(layers):
        if isinstance(layer, int) and layer < 1:
            raise ValueError(f"layer {place} has {layer} units; give at least 1")
        module = Dense(math.prod(size), layer) if isinstance(layer, int) else layer
        try:
            size = _shape_after(module, size)
        except RuntimeError as error:
            raise ValueError(f"layer {place}, {module}, does not take rows of shape {size}: {error}") from error
        modules.append(module)
        sizes.append(size)
    return modules, sizes


def _shape_after(module: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
    """One row of zeros goes through, in evaluation, so that no running average moves."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            return tuple(module(torch.zeros(1, *size)).shape[1:])
    finally:
        for part, mode in training.items():
            part.training = mode

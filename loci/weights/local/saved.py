"""What autograd holds: the bytes of the tensors saved for backward, each storage once, now and at most.

Weights cost what they cost with or without training, and so do the inputs: both can be set apart.

>>> W, x = torch.ones(8, 4, requires_grad=True), torch.ones(2, 8)
>>> with Saved(W, x) as saved:
...     loss = (x @ W).tanh().sum()  # x and W are apart, the output of tanh is 2 x 4 floats
...     held = saved.now
...     loss.backward()
>>> held, saved.now, saved.peak
(32, 0, 32)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn


class Saved:
    """Counts while its with-block runs. `now` and `peak` are bytes; set `peak` to `now` to measure a part."""

    def __init__(self, *apart: Tensor | nn.Module) -> None:
        self.now = self.peak = 0
        self._apart = {tensor.untyped_storage().data_ptr() for item in apart for tensor in _tensors(item)}
        self._holders: Counter[int] = Counter()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: _Held(self, tensor), lambda held: held.tensor
        )

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def take(self, tensor: Tensor) -> None:
        """A node of the graph holds the tensor from here on."""
        place, size = _storage(tensor)
        if place in self._apart:
            return
        if not self._holders[place]:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._holders[place] += 1

    def drop(self, tensor: Tensor) -> None:
        """That node has let go of it."""
        place, size = _storage(tensor)
        if place in self._apart:
            return
        self._holders[place] -= 1
        if not self._holders[place]:
            self.now -= size


class _Held:
    """What the graph keeps in the tensor's place; it dies with the node or with its backward."""

    __slots__ = ("meter", "tensor")

    def __init__(self, meter: Saved, tensor: Tensor) -> None:
        self.meter, self.tensor = meter, tensor
        meter.take(tensor)

    def __del__(self) -> None:
        self.meter.drop(self.tensor)


def _storage(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def _tensors(item: Tensor | nn.Module) -> Iterator[Tensor]:
    if isinstance(item, Tensor):
        yield item
    else:
        yield from item.parameters()
        yield from item.buffers()

"""Parameters that `fully_shard` (FSDP2) has cut among ranks: the few places where a step must know.

Such a parameter is a DTensor, and so are its gradient and its state: what is elementwise runs on each rank's own rows, and
norms are summed over ranks by DTensor itself. A tensor that every rank has alike meets it through `like`, one matrix at a time
is gathered by `whole`, and `own` is what this rank holds. On plain tensors all of them give back what they got.

Keeps, per rank: of a matrix (m, n) among N ranks, moments of shape (m, ...) cost 1/N of the card's formula; what has no rows
to cut, a basis, or moments (r, n) of a wide matrix, is held whole by every rank.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def sharded(x: Tensor) -> bool:
    """Whether x is a DTensor. There is none before its module has been imported, so this imports nothing.

    >>> sharded(torch.ones(2))
    False
    """
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def own(x: Tensor) -> Tensor:
    """This rank's rows."""
    return x.to_local() if sharded(x) else x  # type: ignore[attr-defined]


def whole(x: Tensor) -> Tensor:
    """All rows, gathered; of a sum that is spread over ranks, the sum. Every rank must call it."""
    return x.full_tensor() if sharded(x) else x  # type: ignore[attr-defined]


def like(x: Tensor, model: Tensor) -> Tensor:
    """A tensor that every rank has alike, in a form that meets `model`; nothing is sent."""
    return _placed(x, model, lambda module, _: module.Replicate()) if sharded(model) else x


def cut(x: Tensor, model: Tensor) -> Tensor:
    """The same of the shape of `model`, each rank keeping the rows that it has of `model`."""
    return like(x, model).redistribute(placements=model.placements) if sharded(model) else x  # type: ignore[attr-defined]


def settled(x: Tensor) -> Tensor:
    """A product whose terms are spread over ranks, summed; anything else as it is."""
    if not sharded(x):
        return x
    module = _module()
    places = [module.Replicate() if place.is_partial() else place for place in x.placements]  # type: ignore[attr-defined]
    return x.redistribute(placements=places)  # type: ignore[attr-defined,no-any-return]


def rejoined(x: Tensor, model: Tensor) -> Tensor:
    """What this rank computed from its rows of `model`, of their shape, as one with the other ranks'."""
    if not sharded(model):
        return x
    places, shape, stride = model.placements, model.shape, model.stride()  # type: ignore[attr-defined]
    mesh = model.device_mesh  # type: ignore[attr-defined]
    joined: Tensor = _module().DTensor.from_local(x, mesh, places, run_check=False, shape=shape, stride=stride)
    return joined


def total(x: Tensor, model: Tensor) -> Tensor:
    """The sum over ranks of what each computed from its own rows of `model`; where all hold the same rows, one of them."""
    if not sharded(model):
        return x
    return whole(_placed(x, model, lambda module, place: module.Partial() if place.is_shard() else module.Replicate()))


def mean(value: float, model: Tensor) -> float:
    """The mean over ranks of a number."""
    if not sharded(model):
        return value
    number = torch.tensor(value, dtype=torch.float64, device=own(model).device)
    return float(whole(_placed(number, model, lambda module, _: module.Partial()))) / model.device_mesh.size()  # type: ignore[attr-defined,no-any-return]


def largest(model: Tensor) -> int:
    """The number of elements of the largest shard."""
    sizes = list(model.shape)
    for number, place in enumerate(model.placements if sharded(model) else ()):  # type: ignore[attr-defined]
        if place.is_shard():
            sizes[place.dim] = -(-sizes[place.dim] // model.device_mesh.size(number))  # type: ignore[attr-defined]
    return torch.Size(sizes).numel()


def alongside(x: Tensor, model: Tensor) -> Tensor:
    """A vector that each rank has of its own for its rows of `model`, all of one length, as one with the other ranks'."""
    if not sharded(model):
        return x
    return _placed(x, model, lambda module, place: module.Shard(0) if place.is_shard() else place)


def _placed(x: Tensor, model: Tensor, place: Callable[[Any, Any], Any]) -> Tensor:
    module = _module()
    places = [place(module, held) for held in model.placements]  # type: ignore[attr-defined]
    placed: Tensor = module.DTensor.from_local(x, model.device_mesh, places, run_check=False)  # type: ignore[attr-defined]
    return placed


def _module() -> Any:
    return sys.modules["torch.distributed.tensor"]

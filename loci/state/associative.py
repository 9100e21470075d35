"""Linear recurrences in few rounds: a scan under any associative rule, and the rule that starts afresh at resets.

    x_t = a_t x_{t-1} + b_t,    and x_t = b_t where c_t resets, so that nothing before t is seen
    (a_i, b_i, c_i) o (a_j, b_j, c_j) = (a_j a_i,  b_j if c_j else a_j b_i + b_j,  c_i or c_j)        section 3.1

The rule is associative. So T moments are cut into stretches of 16, the stretches are gone through side by side, their
ends are scanned in the same way, and what came before a stretch is joined to all of it at once: 2 T joins in
16 log16 T rounds of whole tensors. Stretches of 2 would be the tree of Blelloch (1990), which reads memory oftener.

Paper: Lu et al., "Structured State Space Models for In-Context Reinforcement Learning", arXiv:2303.03982.
Differs: 1 - c is held as a number, `keep`, which is 0 at a reset; the decay of an element that holds a reset is a_j a_i, the
paper has a_j: it is never used, and so decays need no batch axis when they have none.

Shapes: B batch, T time.

>>> half, ones = torch.full((1, 4, 1), 0.5), torch.ones(1, 4, 1)
>>> linear_scan(half, ones, torch.zeros(1, 1)).flatten().tolist()
[1.0, 1.5, 1.75, 1.875]
>>> linear_scan(half, ones, torch.zeros(1, 1), reset=torch.tensor([[False, False, True, False]])).flatten().tolist()
[1.0, 1.5, 1.0, 1.5]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Elements: TypeAlias = tuple[Tensor, ...]  # one element or many, of tensors (B or 1, ...) or (B or 1, T, ...)
Join: TypeAlias = Callable[[Elements, Elements], Elements]
STRETCH = 16  # moments gone through one after the other: 2 to 45 were tried, on one thread


def linear(left: Elements, right: Elements) -> Elements:
    """(a_i, b_i) o (a_j, b_j): first one stretch of a linear recurrence, then the next."""
    (a_i, b_i), (a_j, b_j) = left, right
    return a_j * a_i, torch.addcmul(b_j, a_j, b_i)


def resettable(left: Elements, right: Elements) -> Elements:
    """(a_i, b_i, keep_i) o (a_j, b_j, keep_j): the same, and where keep_j is 0 the left one is forgotten."""
    (a_i, b_i, keep_i), (a_j, b_j, keep_j) = left, right
    return a_j * a_i, torch.addcmul(b_j, a_j, b_i * keep_j), keep_j * keep_i


def associative_scan(join: Join, first: Elements, elements: Elements) -> Elements:
    """All of first o e_1, first o e_1 o e_2, ... along axis 1 of the elements, which `first` lacks; `join` is associative."""
    T = elements[0].shape[1]
    if T <= STRETCH:
        return _stacked(_one_by_one(join, first, elements, 1), 1)
    count, rest = divmod(T, STRETCH)
    stretches = tuple(part[:, : T - rest].reshape(-1, count, STRETCH, *part.shape[2:]) for part in elements)
    inside = _one_by_one(join, None, stretches, 2)
    ends = associative_scan(join, first, inside[-1])  # (B, count, ...), everything up to the end of each stretch
    before = tuple(
        torch.cat([start.unsqueeze(1).expand_as(end[:, :1]), end[:, :-1]], 1).unsqueeze(2)
        for start, end in zip(first, ends, strict=True)
    )
    found = tuple(part.flatten(1, 2) for part in join(before, _stacked(inside, 2)))
    if not rest:
        return found
    tail = associative_scan(join, tuple(end[:, -1] for end in ends), tuple(part[:, T - rest :] for part in elements))
    return tuple(torch.cat(pair, 1) for pair in zip(found, tail, strict=True))


def linear_scan(a: Tensor, b: Tensor, first: Tensor, *, reset: Tensor | None = None) -> Tensor:
    """All x_t = a_t x_{t-1} + b_t: a (B or 1, T, ...), b (B, T, ...), x_0 (B, ...), reset (B, T) -> (B, T, ...)."""
    one = torch.ones_like(a[:, 0])
    if reset is None:
        return associative_scan(linear, (one, first), (a, b))[1]
    keep = reset.logical_not().to(b.real.dtype).view(*reset.shape, *[1] * (b.dim() - 2))
    return associative_scan(resettable, (one, first, torch.ones_like(keep[:, 0])), (a, b, keep))[1]


def linear_steps(a: Tensor, b: Tensor, first: Tensor, *, reset: Tensor | None = None) -> Tensor:
    """The obvious form of `linear_scan`, moment by moment, and its oracle."""
    x, found = first, []
    for t in range(b.shape[1]):
        if reset is not None:
            x = torch.where(reset[:, t].view(-1, *[1] * (x.dim() - 1)), torch.zeros_like(x), x)
        x = a[:, t] * x + b[:, t]
        found.append(x)
    return torch.stack(found, 1)


def _one_by_one(join: Join, first: Elements | None, elements: Elements, dim: int) -> list[Elements]:
    """The same along an axis, one after the other; without a first one, from e_1 on."""
    found: list[Elements] = []
    for moment in zip(*(part.unbind(dim) for part in elements), strict=True):
        before = found[-1] if found else first
        found.append(moment if before is None else join(before, moment))
    return found


def _stacked(moments: list[Elements], dim: int) -> Elements:
    return tuple(torch.stack(part, dim) for part in zip(*moments, strict=True))

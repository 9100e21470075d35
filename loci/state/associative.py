"""Linear recurrences in logarithmic depth: a scan under any associative rule, and the rule that starts afresh at resets.

    x_t = a_t x_{t-1} + b_t,    and x_t = b_t where c_t resets, so that nothing before t is seen
    (a_i, b_i, c_i) o (a_j, b_j, c_j) = (a_j a_i,  b_j if c_j else a_j b_i + b_j,  c_i or c_j)        section 3.1

The rule is associative, so neighbours are joined in pairs, the half as long sequence of pairs is scanned, and what lies
between is filled in: 2 T joins in 2 log2 T rounds (Blelloch 1990), all of them products of whole tensors.

Paper: Lu et al., "Structured State Space Models for In-Context Reinforcement Learning", arXiv:2303.03982.
Differs: the decay of an element that holds a reset is a_j a_i, the paper has a_j; it is never used, and so decays need no
batch axis when they have none. x_0 is joined into the first element, which the authors do by one more element (1, x_0, 0).

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

Elements: TypeAlias = tuple[Tensor, ...]  # tensors (B or 1, T, ...): one element for each moment
Join: TypeAlias = Callable[[Elements, Elements], Elements]


def linear(left: Elements, right: Elements) -> Elements:
    """(a_i, b_i) o (a_j, b_j): first one stretch of a linear recurrence, then the next."""
    (a_i, b_i), (a_j, b_j) = left, right
    return a_j * a_i, torch.addcmul(b_j, a_j, b_i)


def resettable(left: Elements, right: Elements) -> Elements:
    """(a_i, b_i, c_i) o (a_j, b_j, c_j): the same, and a reset in the right one makes it forget the left one."""
    (a_i, b_i, c_i), (a_j, b_j, c_j) = left, right
    return a_j * a_i, torch.where(c_j, b_j, torch.addcmul(b_j, a_j, b_i)), c_i | c_j


def associative_scan(join: Join, elements: Elements) -> Elements:
    """e_1, e_1 o e_2, e_1 o e_2 o e_3, ... along axis 1, for an associative `join`."""
    T = elements[0].shape[1]
    if T == 1:
        return elements
    if T % 2:  # the last one stands alone
        rest = associative_scan(join, tuple(part[:, :-1] for part in elements))
        last = join(tuple(part[:, -1:] for part in rest), tuple(part[:, -1:] for part in elements))
        return tuple(torch.cat(pair, 1) for pair in zip(rest, last, strict=True))
    pairs = [part.unflatten(1, (T // 2, 2)).unbind(2) for part in elements]
    first, second = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
    ends = associative_scan(join, join(first, second))  # up to and with each second
    if T == 2:
        return tuple(torch.cat(pair, 1) for pair in zip(first, ends, strict=True))
    inner = join(tuple(part[:, :-1] for part in ends), tuple(part[:, 1:] for part in first))
    firsts = (torch.cat([head[:, :1], tail], 1) for head, tail in zip(first, inner, strict=True))
    return tuple(torch.stack(pair, 2).flatten(1, 2) for pair in zip(firsts, ends, strict=True))


def linear_scan(a: Tensor, b: Tensor, first: Tensor, *, reset: Tensor | None = None) -> Tensor:
    """All x_t of x_t = a_t x_{t-1} + b_t: a (B or 1, T, ...), b (B, T, ...), first (B, ...), reset (B, T) -> (B, T, ...)."""
    carried = a[:, 0] * first
    if reset is None:
        b = torch.cat([(b[:, 0] + carried).unsqueeze(1), b[:, 1:]], 1)
        return associative_scan(linear, (a, b))[1]
    c = reset.view(*reset.shape, *[1] * (b.dim() - 2))
    b = torch.cat([torch.where(c[:, 0], b[:, 0], b[:, 0] + carried).unsqueeze(1), b[:, 1:]], 1)
    return associative_scan(resettable, (a, b, c))[1]


def linear_steps(a: Tensor, b: Tensor, first: Tensor, *, reset: Tensor | None = None) -> Tensor:
    """The obvious form of `linear_scan`, moment by moment, and its oracle."""
    x, found = first, []
    for t in range(b.shape[1]):
        if reset is not None:
            x = torch.where(reset[:, t].view(-1, *[1] * (x.dim() - 1)), torch.zeros_like(x), x)
        x = a[:, t] * x + b[:, t]
        found.append(x)
    return torch.stack(found, 1)

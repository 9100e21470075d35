"""Polynomial features of keys and queries: as many more pairs fit a matrix as there are more features.

    phi(x) = ( a_1 x, a_2 x(x)x, ..., a_p x(x)...(x)x ) / |a|,     a_i learned, 1/i! at the start
    phi(q) . phi(k) = sum_i a_i^2 (q . k)^i / |a|^2

A product that differs only in the order of its factors is held once, times the root of how often it occurs: the inner
products stay what they are, and degree 2 has d + d (d + 1)/2 features instead of d + d^2. Of unit vectors phi makes
unit vectors, whatever d and p are, so that a step of a memory over them is as long as over the keys themselves.

Paper: Behrouz et al., "ATLAS: Learning to Optimally Memorize the Context at Test Time", arXiv:2505.23735.
Differs: products are held once; features are divided by |a|. Degree 1 has nothing to learn and is the vector itself.
Keeps: nothing.

>>> phi = Polynomial(3, degree=2)
>>> features = phi(torch.ones(3) / 3**0.5)  # 3 and 6
>>> features.shape, round(features.square().sum().item(), 6)
(torch.Size([9]), 1.0)
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn


class Polynomial(nn.Module):
    """All products of at most `degree` entries of a vector of `d`, (..., d) -> (..., features); the vector comes first."""

    def __init__(self, d: int, *, degree: int) -> None:
        super().__init__()
        if d < 1 or degree < 1:
            raise ValueError(f"d={d}, degree={degree} has no products; choose both at least 1")
        self.d, self.degree = d, degree
        self.features = sum(math.comb(d + power - 1, power) for power in range(1, degree + 1))
        if degree > 1:
            self.a = nn.Parameter(torch.tensor([1 / math.factorial(power) for power in range(1, degree + 1)]))
        for power in range(2, degree + 1):
            products = list(combinations_with_replacement(range(d), power))
            times = torch.tensor([orders(product) for product in products])
            self.register_buffer(f"factors_{power}", torch.tensor(products).T.contiguous(), persistent=False)
            self.register_buffer(f"times_{power}", times, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The features, in the dtype of x."""
        if self.degree == 1:
            return x
        a = self.a.to(x.dtype)
        a = a / torch.linalg.vector_norm(a)
        return torch.cat([a[power - 1] * self.products(x, power) for power in range(1, self.degree + 1)], -1)

    def products(self, x: Tensor, power: int) -> Tensor:
        """All products of `power` entries, each times the root of how often it occurs in the full tensor."""
        if power == 1:
            return x
        first, *others = self.get_buffer(f"factors_{power}")
        product = x.index_select(-1, first)  # whose backward is faster than that of an index
        for place in others:
            product = product * x.index_select(-1, place)
        return product * self.get_buffer(f"times_{power}").to(x.dtype).sqrt()  # the root in full precision


def orders(product: tuple[int, ...]) -> float:
    """In how many orders the factors can be written.

    >>> orders((0, 0, 1))
    3.0
    """
    return math.factorial(len(product)) / math.prod(math.factorial(n) for n in Counter(product).values())


def full(x: Tensor, a: Tensor) -> Tensor:
    """The tensors of all orders as the paper writes them, undivided: the obvious form, d + d^2 + ... features."""
    power, found = x, [a[0] * x]
    for weight in a[1:]:
        power = (power.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)
        found.append(weight * power)
    return torch.cat(found, -1)

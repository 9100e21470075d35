"""The features whose dot products are the exponential's Taylor series up to its square.

    phi(x) = [ 1,  x / f^(1/4),  vec(x x^T) / sqrt(2 f) ]
    phi(q) . phi(k) = 1 + t + t^2 / 2,    t = q . k / sqrt(f)

It is at least 1/2 for every t, so that sums of it can be divided by. `similarity` is the right side: f numbers a row
instead of 1 + f + f^2, for where no sum of phi(k) has to be kept.

Paper: Arora et al., "Simple linear attention language models balance the recall-throughput tradeoff" (Based),
arXiv:2402.18668, after Zhang et al., "The Hedgehog & the Porcupine", arXiv:2402.04347.
Differs: nothing; both halves of the symmetric x x^T are kept, as in the authors' code.
Keeps: nothing.

>>> [round(part, 3) for part in taylor(torch.tensor([2.0])).tolist()]
[1.0, 2.0, 2.828]
>>> similarity(torch.tensor([[2.0]]), torch.tensor([[3.0]])).item()  # 1 + 6 + 18
25.0
"""

from __future__ import annotations

import torch
from torch import Tensor


def taylor(x: Tensor) -> Tensor:
    """(..., f) -> (..., 1 + f + f^2)."""
    f = x.shape[-1]
    root = x / (2 * f) ** 0.25  # scaled before it is squared: one pass less over what is large
    square = (root.unsqueeze(-1) * root.unsqueeze(-2)).flatten(-2)
    return torch.cat([torch.ones_like(x[..., :1]), x / f**0.25, square], -1)


def expanded(f: int) -> int:
    """How many features come of f numbers.

    >>> expanded(16)
    273
    """
    return 1 + f + f * f


def similarity(q: Tensor, k: Tensor) -> Tensor:
    """taylor(q) @ taylor(k)^T without either: (..., T, f) and (..., N, f) -> (..., T, N)."""
    t: Tensor = (q / q.shape[-1] ** 0.5) @ k.transpose(-1, -2)
    return 1 + t + t.square() / 2

"""Newton-Schulz: singular vectors as they are, singular values all brought near 1, with matrix products alone.

    X_0 = S / |S|_F,    A = X X^T,    X <- a X + (b A + c A^2) X,    five times,    (a, b, c) = (3.4445, -4.7750, 2.0315)

Each round maps singular values by s -> a s + b s^3 + c s^5. The coefficients are steep at 0 (after five rounds 484 fold)
and do not settle at 1: what begins above about 1/20 of the largest ends between 0.68 and 1.2, what is smaller stays
smaller, and a zero matrix stays zero.

Paper: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, as used by Behrouz et al., "ATLAS",
arXiv:2505.23735.
Differs: nothing; rounds run in the dtype that is given, not in bfloat16.
Keeps: nothing.

>>> S = torch.diag(torch.tensor([4.0, 2.0, 1.0]))
>>> torch.linalg.svdvals(newton_schulz(S)).round(decimals=1)
tensor([1.1000, 0.8000, 0.7000])
"""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
EPS = 1e-7  # beside the norm


def newton_schulz(S: Tensor) -> Tensor:
    """Matrices (..., m, n) -> (..., m, n), each by itself, on its shorter side."""
    tall = S.shape[-2] > S.shape[-1]
    X = S.mT if tall else S
    X = X / (torch.linalg.vector_norm(X, dim=(-2, -1), keepdim=True) + EPS)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        A = X @ X.mT
        X = a * X + (b * A + c * (A @ A)) @ X
    out: Tensor = X.mT if tall else X
    return out

"""Broad learning: features and what enhances them side by side, read by one linear map that has a closed form.

    Z = X W_e + b_e,    H = tanh(Z W_h + b_h),    F = [Z | H],    O = F W_o
    W_o = (F' F + ridge I)^-1 F' Y                                             with W_e and W_h left as they were drawn

Groups of nodes side by side are one matrix with more columns. New enhancement nodes G are added without a refit, from the
pseudo-inverse F^+ that is at hand (Cline 1964), with D = F^+ G, C = G - F D and P = I - C^+ C:

    [F | G]^+ = [F^+ - D J ; J],    J = C^+ + P (I + P D' D P)^-1 D' F^+ (I - G C^+)

Ridge is the same with sqrt(ridge) I below F and zeros below Y.

Paper: Chen, Liu, "Broad Learning System: An Effective and Efficient Incremental Learning System Without the Need for Deep
Architecture", IEEE TNNLS 2018, used end to end in arXiv:2404.17858.
Differs: W_e is drawn, not tuned by a sparse auto-encoder; phi is linear; C may have any rank, where the paper has two cases.
Keeps: BroadNodes b*((D + 1)*Z + (Z + 1)*H + (Z + H)*D) bytes; BroadLearning W_e, W_h, W_o and, for growth, X, Y, F and F^+,
with F of (rows + Z + H)*(Z + H) numbers.

>>> X = torch.linspace(-1, 1, 50).double().unsqueeze(1)
>>> broad = BroadLearning(1, Z=3, H=20, generator=torch.Generator().manual_seed(0), ridge=1e-6).fit(X, X.abs())
>>> bool((broad(X) - X.abs()).abs().mean() < 0.1)
True
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn


class BroadNodes(nn.Module):
    """(..., D) -> (..., D) through Z feature nodes and H enhancement nodes, all of it trained end to end."""

    def __init__(self, D: int, Z: int = 64, *, H: int = 64) -> None:
        super().__init__()
        if min(D, Z, H) < 1:
            raise ValueError(f"D={D}, Z={Z}, H={H} are no broad nodes; choose each at least 1")
        self.feature, self.enhancement = nn.Linear(D, Z), nn.Linear(Z, H)
        self.output = nn.Linear(Z + H, D, bias=False)

    def features(self, x: Tensor) -> Tensor:
        """F = [Z | H], (..., Z + H)."""
        Z = self.feature(x)
        return torch.cat([Z, torch.tanh(self.enhancement(Z))], -1)

    def forward(self, x: Tensor) -> Tensor:
        """O = F W_o."""
        out: Tensor = self.output(self.features(x))
        return out


class BroadLearning:
    """The classical system, in float64: nodes are drawn, the readout is solved, and nodes can be added afterwards."""

    def __init__(self, D: int, *, Z: int, H: int, generator: torch.Generator, ridge: float = 1e-6) -> None:
        if min(D, Z, H) < 1 or ridge < 0:
            raise ValueError(f"D={D}, Z={Z}, H={H}, ridge={ridge} is no broad system; choose sizes >= 1 and ridge >= 0")
        self.generator, self.ridge = generator, ridge
        self.W_e = self._drawn(D + 1, Z)  # the last row is the bias
        self.W_h = self._drawn(Z + 1, H)

    def features(self, X: Tensor) -> Tensor:
        """F = [Z | H] of rows X (rows, D)."""
        if X.dim() != 2 or X.shape[1] != len(self.W_e) - 1:
            raise ValueError(f"X is {tuple(X.shape)}; give rows (rows, {len(self.W_e) - 1})")
        Z = _affine(X.double(), self.W_e)
        return torch.cat([Z, torch.tanh(_affine(Z, self.W_h))], 1)

    def fit(self, X: Tensor, Y: Tensor) -> Self:
        """Solve for W_o on rows X (rows, D) and what is due for them, Y (rows, any width)."""
        if Y.dim() != 2 or len(Y) != len(X):
            raise ValueError(f"Y is {tuple(Y.shape)}; give one row for each of {len(X)} in X")
        F = self.features(X)
        self.X, self.Y = X.double(), Y.double()
        self.F = _augmented(F, self.ridge)
        self.inverse = torch.linalg.pinv(self.F)
        self.W_o = self._readout()
        return self

    def enlarge(self, count: int) -> Self:
        """Add `count` enhancement nodes, from the pseudo-inverse at hand; the drawn weights that were there stay."""
        if count < 1 or not hasattr(self, "inverse"):
            raise ValueError(f"cannot add count={count} nodes; fit first, and add at least 1")
        drawn = self._drawn(len(self.W_h), count)
        G = torch.tanh(_affine(_affine(self.X, self.W_e), drawn))
        if self.ridge:
            self.F = torch.cat([self.F, self.F.new_zeros(count, self.F.shape[1])])
            self.inverse = torch.cat([self.inverse, self.inverse.new_zeros(len(self.inverse), count)], 1)
            between = G.new_zeros(len(self.F) - len(G) - count, count)
            G = torch.cat([G, between, self.ridge**0.5 * torch.eye(count, dtype=G.dtype)])
        self.inverse = widened(self.F, self.inverse, G)
        self.F, self.W_h = torch.cat([self.F, G], 1), torch.cat([self.W_h, drawn], 1)
        self.W_o = self._readout()
        return self

    def __call__(self, X: Tensor) -> Tensor:
        """O = F W_o, (rows, D) -> (rows, width of Y)."""
        if not hasattr(self, "W_o"):
            raise ValueError("nothing was fitted yet; call fit(X, Y) first")
        out: Tensor = self.features(X) @ self.W_o
        return out

    def _readout(self) -> Tensor:
        solved: Tensor = self.inverse[:, : len(self.Y)] @ self.Y  # below Y are zeros
        return solved

    def _drawn(self, rows: int, columns: int) -> Tensor:
        return 2 * torch.rand(rows, columns, generator=self.generator, dtype=torch.float64) - 1


def ridge_solution(F: Tensor, Y: Tensor, ridge: float) -> Tensor:
    """(F' F + ridge I)^-1 F' Y, for ridge > 0, through a Cholesky factor.

    >>> ridge_solution(torch.eye(2), torch.ones(2, 1), 1.0).flatten().tolist()
    [0.5, 0.5]
    """
    if ridge <= 0:
        raise ValueError(f"ridge={ridge} may leave nothing to invert; choose ridge > 0")
    gram = F.T @ F + ridge * torch.eye(F.shape[1], dtype=F.dtype, device=F.device)
    return torch.cholesky_solve(F.T @ Y, torch.linalg.cholesky(gram))


def widened(F: Tensor, inverse: Tensor, G: Tensor) -> Tensor:
    """The pseudo-inverse of [F | G] from that of F, whatever the ranks."""
    D = inverse @ G
    C = G - F @ D
    scale = torch.linalg.matrix_norm(G, 2)
    lift = torch.linalg.pinv(C, atol=1e-12 * scale * max(F.shape), rtol=0.0)  # what F spans already is rounding in C
    P = torch.eye(G.shape[1], dtype=G.dtype, device=G.device) - lift @ C
    inner = torch.eye(len(P), dtype=G.dtype, device=G.device) + P @ D.T @ D @ P
    J = lift + P @ torch.linalg.solve(inner, D.T @ (inverse - inverse @ G @ lift))
    return torch.cat([inverse - D @ J, J])


def _affine(X: Tensor, W: Tensor) -> Tensor:
    return X @ W[:-1] + W[-1]


def _augmented(F: Tensor, ridge: float) -> Tensor:
    """F over sqrt(ridge) I: least squares on it is ridge."""
    return torch.cat([F, ridge**0.5 * torch.eye(F.shape[1], dtype=F.dtype)]) if ridge else F

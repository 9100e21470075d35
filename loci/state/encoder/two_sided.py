"""A linear system that runs both ways over a sequence, as one convolution by FFT with a kernel on both sides of zero.

    h' = A h + B x,  y = C h     Abar = exp(Delta A),  Bbar = (Delta A)^-1 (Abar - 1) Delta B      zero-order hold
    K[l] = C Abar^l Bbar,        y_i = sum_{j <= i} K_f[i - j] x_j + sum_{j > i} K_b[j - i] x_j

Each channel has a system of its own in each direction. Its A is diagonal, real and negative, so that no kernel grows. The
present is heard once, through K_f[0]: K_b begins at lag 1. With K_b = 0 the map is causal.

Paper: Li et al., "Revisiting Multi-modal Emotion Learning with Broad State Space Models and Probability-guidance Fusion",
arXiv:2404.17858; the diagonal from Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models",
arXiv:2206.11893.
Differs: A, B, C and Delta do not depend on the input, as the convolution asks; no term D x, which K_f[0] can be; K_b without
lag 0, which would count the present twice; Delta starts in [0.01, 1], since dialogues are tens of utterances long.
Keeps: b*2*E*(1 + 3*N) bytes of parameters; during a call kernels of b*2*E*N*T and spectra of 2*b*B*E*T.

Shapes: B batch, T time, E channels, N state; 2 directions, forth and back.

>>> y = TwoSided(3, 4)(torch.ones(2, 5, 3))
>>> y.shape
torch.Size([2, 5, 3])
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

STEPS = (0.01, 1.0)  # Delta is drawn between these, uniformly in its logarithm


class TwoSided(nn.Module):
    """One system for each channel and direction, heard as a convolution."""

    def __init__(self, E: int, N: int = 16) -> None:
        super().__init__()
        if E < 1 or N < 1:
            raise ValueError(f"E={E}, N={N} is no system; choose both at least 1")
        self.E, self.N = E, N
        low, high = map(math.log, STEPS)
        self.log_step = nn.Parameter(low + (high - low) * torch.rand(2, E))
        self.A_log = nn.Parameter(torch.arange(1, N + 1).float().log().repeat(2, E, 1))  # A = -exp(A_log)
        self.B = nn.Parameter(torch.ones(2, E, N))
        self.C = nn.Parameter(torch.randn(2, E, N))

    def discrete(self) -> tuple[Tensor, Tensor]:
        """Delta A, whose exponential is Abar, and Bbar: (2, E, N) both, in float32 or wider."""
        A = -_wide(self.A_log).exp()
        exponent = _wide(self.log_step).exp().unsqueeze(-1) * A
        return exponent, torch.expm1(exponent) / A * _wide(self.B)

    def kernels(self, T: int) -> tuple[Tensor, Tensor]:
        """K_f at lags 0 to T - 1, (E, T), and K_b at lags 1 to T - 1, (E, T - 1)."""
        exponent, Bbar = self.discrete()
        lags = torch.arange(T, dtype=exponent.dtype, device=exponent.device)
        powers = (exponent.unsqueeze(-1) * lags).exp()  # (2, E, N, T): Abar^l
        forth, back = torch.einsum("den,dent->det", _wide(self.C) * Bbar, powers).unbind()
        return forth, back[:, 1:]

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E); zeros in x say nothing to other moments."""
        with torch.autocast(x.device.type, enabled=False):
            forth, back = self.kernels(x.shape[1])
            return two_sided(x.to(forth.dtype), forth, back).to(x.dtype)


def two_sided(x: Tensor, forth: Tensor, back: Tensor) -> Tensor:
    """(B, T, E) with kernels (E, T) from lag 0 and (E, T - 1) from lag 1, by one FFT over 2 T moments.

    >>> x = torch.tensor([[[1.0], [0.0], [10.0]]])
    >>> two_sided(x, torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[4.0, 5.0]])).round().flatten().tolist()
    [51.0, 42.0, 13.0]
    """
    T = x.shape[1]
    around = torch.cat([forth, forth.new_zeros(len(forth), 1), back.flip(1)], 1)  # lag -l stands at 2 T - l
    spectrum = torch.fft.rfft(x, 2 * T, dim=1) * torch.fft.rfft(around).T
    y: Tensor = torch.fft.irfft(spectrum, 2 * T, dim=1)[:, :T]
    return y


def two_sided_by_sums(x: Tensor, forth: Tensor, back: Tensor) -> Tensor:
    """The obvious form of `two_sided`, and its oracle: for every moment a sum over every other."""
    y = torch.zeros_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            y[:, i] += x[:, j] * (forth[:, i - j] if j <= i else back[:, j - i - 1])
    return y


def _wide(value: Tensor) -> Tensor:
    """In float32 or wider."""
    return value.to(torch.promote_types(value.dtype, torch.float32))

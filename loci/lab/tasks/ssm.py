"""Selective state spaces, Mamba's and Mamba-2's layer, small and in the obvious form: subjects of the stability meter.

    h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t u_t,    y_t = C_t h_t + D u_t        (Gu and Dao, arXiv:2312.00752)

Delta, B and C come from the input. In Mamba A is one number for each channel and state, in Mamba-2 (arXiv:2405.21060)
one for each head. Delta, A and the state stay in float32 under autocast, as in the authors' kernels.

Shapes: B batch, T time, D width, E inner width, N state, H heads, P width of a head, K taps of the convolution.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu, softplus

State: TypeAlias = tuple[Tensor, Tensor]  # the last inputs of the convolution (B, E, K - 1), and h


class Mamba(nn.Module):
    """One layer of Mamba: project, convolve, a selective recurrence, gate, project."""

    def __init__(self, D: int, *, expand: int = 2, N: int = 16, K: int = 4) -> None:
        super().__init__()
        self.E, self.N, self.K, self.rank = expand * D, N, K, math.ceil(D / 16)
        self.in_proj = nn.Linear(D, 2 * self.E, bias=False)
        self.taps = nn.Parameter(torch.empty(self.E, K).uniform_(-(K**-0.5), K**-0.5))
        self.tap_bias = nn.Parameter(torch.zeros(self.E))
        self.x_proj = nn.Linear(self.E, self.rank + 2 * N, bias=False)
        self.dt_proj = nn.Linear(self.rank, self.E)
        self.A_log = nn.Parameter(torch.arange(1, N + 1).float().log().repeat(self.E, 1))
        self.skip = nn.Parameter(torch.ones(self.E))
        self.out_proj = nn.Linear(self.E, D, bias=False)
        with torch.no_grad():
            self.dt_proj.bias.copy_(_first_steps(self.E))

    def initial_state(self, batch: int) -> State:
        """Zeros."""
        like = self.skip
        return like.new_zeros(batch, self.E, self.K - 1), like.new_zeros(batch, self.E, self.N)

    def selected(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs u (..., E) -> the decay exp(Delta A) and the feed Delta B u, (..., E, N) both, and C (..., N)."""
        low, B, C = self.x_proj(u).split([self.rank, self.N, self.N], -1)
        delta = softplus(_wide(self.dt_proj(low))).unsqueeze(-1)  # (..., E, 1)
        decay = (delta * -self.A_log.exp()).exp()
        return decay, (delta * _wide(u).unsqueeze(-1)) * _wide(B).unsqueeze(-2), _wide(C)

    def recurrence(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The recurrence alone, for given inputs u (B, E): its Jacobian in h is diagonal."""
        decay, fed, C = self.selected(u)
        h = decay * h + fed
        return (h * C.unsqueeze(-2)).sum(-1), h

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, D) -> (B, D)."""
        window, h = state
        u, z = self.in_proj(x).chunk(2, -1)
        window = torch.cat([window, u.to(window.dtype).unsqueeze(-1)], -1)
        u = silu((window * self.taps).sum(-1) + self.tap_bias)
        y, h = self.recurrence(u, h)
        return self.out_proj((y + self.skip * u) * silu(z)), (window[..., 1:], h)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), from an empty state."""
        u, z = self.in_proj(x).chunk(2, -1)
        u = silu(convolved(u, self.taps, self.tap_bias))
        decay, fed, C = self.selected(u)
        h = steps(decay, fed, torch.zeros_like(fed[:, 0]))
        y = torch.einsum("bten,btn->bte", h, C)
        out: Tensor = self.out_proj((y + self.skip * u) * silu(z))
        return out


class Mamba2(nn.Module):
    """One layer of Mamba-2: heads of width P with one A each; B and C are shared by the heads and convolved as well."""

    def __init__(self, D: int, *, expand: int = 2, H: int = 4, N: int = 16, K: int = 4) -> None:
        super().__init__()
        self.E, self.H, self.N, self.K = expand * D, H, N, K
        self.C = self.E + 2 * N  # channels that are convolved
        self.in_proj = nn.Linear(D, self.E + self.C + H, bias=False)
        self.taps = nn.Parameter(torch.empty(self.C, K).uniform_(-(K**-0.5), K**-0.5))
        self.tap_bias = nn.Parameter(torch.zeros(self.C))
        self.dt_bias = nn.Parameter(_first_steps(H))
        self.A_log = nn.Parameter(torch.arange(1, H + 1).float().log())
        self.skip = nn.Parameter(torch.ones(H))
        self.norm = nn.RMSNorm(self.E)
        self.out_proj = nn.Linear(self.E, D, bias=False)

    def initial_state(self, batch: int) -> State:
        """Zeros; h is (B, H, P, N)."""
        like = self.skip
        return like.new_zeros(batch, self.C, self.K - 1), like.new_zeros(batch, self.H, self.E // self.H, self.N)

    def recurrence(self, given: tuple[Tensor, Tensor], h: Tensor) -> tuple[Tensor, Tensor]:
        """The recurrence alone, for convolved inputs (B, E + 2N) and raw steps (B, H)."""
        decay, fed, C, u = self._selected(*given)
        h = decay * h + fed
        return (h * C[:, None, None]).sum(-1) + self.skip[:, None] * u, h

    def _selected(self, mixed: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u, B, C = torch.split(_wide(mixed), [self.E, self.N, self.N], -1)
        u = u.view(*u.shape[:-1], self.H, -1)  # (..., H, P)
        delta = softplus(_wide(dt) + self.dt_bias)[..., None, None]  # (..., H, 1, 1)
        decay = (delta * -self.A_log.exp()[:, None, None]).exp()
        return decay, delta * u.unsqueeze(-1) * B[..., None, None, :], C, u

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, D) -> (B, D)."""
        window, h = state
        z, mixed, dt = self.in_proj(x).split([self.E, self.C, self.H], -1)
        window = torch.cat([window, mixed.to(window.dtype).unsqueeze(-1)], -1)
        y, h = self.recurrence((silu((window * self.taps).sum(-1) + self.tap_bias), dt), h)
        return self.out_proj(self.norm(y.flatten(-2) * silu(z))), (window[..., 1:], h)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), from an empty state."""
        z, mixed, dt = self.in_proj(x).split([self.E, self.C, self.H], -1)
        decay, fed, C, u = self._selected(silu(convolved(mixed, self.taps, self.tap_bias)), dt)
        h = steps(decay.expand_as(fed), fed, torch.zeros_like(fed[:, 0]))
        y = (h * C[:, :, None, None]).sum(-1) + self.skip[:, None] * u
        out: Tensor = self.out_proj(self.norm(y.flatten(-2) * silu(z)))
        return out


class TanhRNN(nn.Module):
    """h_t = tanh(W h_{t-1} + U x_t) with W of independent entries N(0, gain^2 / D): chaotic above gain 1 without input."""

    def __init__(self, D: int, *, gain: float = 1.5) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(D, D) * gain / D**0.5)
        self.U = nn.Linear(D, D)

    def initial_state(self, batch: int) -> Tensor:
        """Zeros."""
        return self.W.new_zeros(batch, self.W.shape[0])

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> (B, D)."""
        h = torch.tanh(state @ self.W.T + self.U(x))
        return h, h


def steps(decay: Tensor, fed: Tensor, h: Tensor) -> Tensor:
    """h_t = decay_t h_{t-1} + fed_t along dim 1, one step after the other: all h (B, T, ...)."""
    found = []
    for fade, feed in zip(decay.unbind(1), fed.unbind(1), strict=True):  # unbound: backward of an index is as long as T
        h = torch.addcmul(feed, fade, h)
        found.append(h)
    return torch.stack(found, 1)


def parallel(decay: Tensor, fed: Tensor, h: Tensor) -> Tensor:
    """The same in log2 T rounds: pairs (a, b) compose as (a' a, a' b + b')."""
    fed = torch.cat([(decay[:, :1] * h.unsqueeze(1)) + fed[:, :1], fed[:, 1:]], 1)
    reach = 1
    while reach < fed.shape[1]:
        before = fed[:, :-reach], decay[:, :-reach]
        fed = torch.cat([fed[:, :reach], decay[:, reach:] * before[0] + fed[:, reach:]], 1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * before[1]], 1)
        reach *= 2
    return fed


def kernel(decay: Tensor, length: int) -> Tensor:
    """The response of a recurrence whose decay (...) is the same at every step: decay^t, (length, ...)."""
    return decay.unsqueeze(0) ** torch.arange(length).view(-1, *(1 for _ in decay.shape))


def convolved(u: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """A causal convolution of each channel, (B, T, E) with taps (E, K)."""
    windows = pad(_wide(u), (0, 0, taps.shape[1] - 1, 0)).unfold(1, taps.shape[1], 1)  # (B, T, E, K)
    return (windows * taps).sum(-1) + bias


def _wide(part: Tensor) -> Tensor:
    """In float32, or as it is when wider."""
    return part.to(torch.promote_types(part.dtype, torch.float32))


def _first_steps(count: int) -> Tensor:
    """Biases whose softplus is spread over [0.001, 0.1] by its logarithm, as in the authors' code, but evenly."""
    delta = torch.logspace(-3, -1, count)
    return delta + (-torch.expm1(-delta)).log()

"""The Legendre memory unit: a fixed linear system that holds the last `theta` moments of one number as a polynomial.

    u_t = relu(w x_t + c),    m_t = A m_{t-1} + B u_t,    y_t = relu(W [m_t; x_t] + b)
    A_ij = (2i+1)/theta * (-1 if i < j else (-1)^(i-j+1)),    B_i = (2i+1)/theta * (-1)^i,    both under zero-order hold
    u(t - lag) ~ sum_i P_i(2 lag/theta - 1) m_i

A and B are not trained. So all m at once are a convolution of u with the impulse response A^t B, by FFT over twice the
length (zeros behind u, nothing wraps around), and A^t times the memory that was carried in. A reset breaks the
convolution; with resets it is a product over stretches, of which only what is still seen is fed.

Paper: Voelker, Kajic, Eliasmith, "Legendre Memory Units", NeurIPS 2019, in the parallel form of Chilkuri, Eliasmith,
"Parallelizing Legendre Memory Unit Training", arXiv:2102.11417, and as LMUFormer (arXiv:2402.04882) uses it.
Differs: the response is computed for the length at hand, the authors' is for one length; a memory can be carried in.
Keeps: b*B*N bytes, b = 4 (8 in float64; bfloat16 weights carry a float32 memory).

Shapes: B batch, T time, D width, N order of the memory.

>>> import torch
>>> mixer = LMU(3, 8, theta=16.0)
>>> y, (m,) = mixer(torch.ones(2, 5, 3))
>>> y.shape, m.shape
(torch.Size([2, 5, 3]), torch.Size([2, 8]))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from loci.core.card import method
from loci.state.mixer import Mixer, State

STRETCH = 64  # moments that one product goes through where there are resets


class Delay(nn.Module):
    """The memory alone: N numbers for the window of one input; nothing in it is trained."""

    A: Tensor
    B: Tensor

    def __init__(self, N: int, theta: float) -> None:
        super().__init__()
        if N < 1 or not 0 < theta < float("inf"):
            raise ValueError(f"N={N}, theta={theta} is no window; choose an order N >= 1 and a length theta > 0")
        self.N, self.theta = N, theta
        for name, value in zip("AB", delay(N, theta), strict=True):
            self.register_buffer(name, value.to(torch.get_default_dtype()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's signature
        """Move; A and B are computed anew, since a cast would round them, and in bfloat16 the window would be lost."""
        super()._apply(fn, recurse=recurse)  # type: ignore[no-untyped-call]
        dtype = torch.promote_types(self.A.dtype, torch.float32)
        for name, value in zip("AB", delay(self.N, self.theta), strict=True):
            setattr(self, name, value.to(dtype=dtype, device=self.A.device))
        return self

    def step(self, u: Tensor, m: Tensor) -> Tensor:
        """A m + B u: (B, 1) and (B, N) -> (B, N)."""
        after: Tensor = m @ self.A.T + u * self.B
        return after

    def scan(self, u: Tensor, m: Tensor) -> Tensor:
        """All of it at once: (B, T) and (B, N) -> (B, T, N)."""
        T = u.shape[1]
        size = 1 << (2 * T - 1).bit_length()  # at least 2T, and quick to transform
        response = torch.fft.rfft(orbit(self.A, self.B, T).T, size)  # (N, size/2 + 1)
        driven = torch.fft.irfft(torch.fft.rfft(u, size).unsqueeze(1) * response, size)[..., :T]
        found: Tensor = driven.transpose(1, 2) + orbit(self.A, m @ self.A.T, T)
        return found

    def scan_with_resets(self, u: Tensor, m: Tensor, reset: Tensor) -> Tensor:
        """The same with resets (B, T): by stretches of 64 moments, each a product of what is still seen and the response."""
        response = orbit(self.A, self.B, STRETCH).flip(0)  # (STRETCH, N), the latest moment last
        found = []
        for signal, begins in zip(torch.split(u, STRETCH, 1), torch.split(reset, STRETCH, 1), strict=True):
            episode = begins.cumsum(1)
            seen = _lagged(episode, outside=-1) == episode.unsqueeze(-1)  # (B, t, STRETCH)
            driven = torch.where(seen, _lagged(signal), 0.0) @ response
            carried = torch.where((episode == 0).unsqueeze(-1), orbit(self.A, m @ self.A.T, signal.shape[1]), 0.0)
            found.append(driven + carried)
            m = found[-1][:, -1]
        return torch.cat(found, 1)


@method(
    name="lmu",
    kind="mixer",
    title="Parallelizing Legendre Memory Unit Training",
    paper="arXiv:2102.11417",
    says="holds a sliding window of one learned signal as Legendre coefficients: trains by FFT, runs moment by moment",
    bytes="b*B*N",
    example={"D": 4, "N": 6, "theta": 8.0},
    needs=("torch",),
    system="lmuformer",
)
class LMU(Mixer):
    """One memory of order N; the state is that memory (B, N)."""

    def __init__(self, D: int, N: int = 128, *, theta: float = 128.0) -> None:
        super().__init__()
        self.D, self.N = D, N
        self.memory = Delay(N, theta)
        self.inward = nn.Linear(D, 1)
        self.outward = nn.Linear(N + D, D)

    def initial_state(self, batch: int) -> State:
        """Zeros."""
        return (self.memory.B.new_zeros(batch, self.N),)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B memories of N numbers of b bytes."""
        return {"B": batch, "N": self.N, "D": self.D, "b": self.memory.B.element_size()}

    def signal(self, x: Tensor) -> Tensor:
        """What is remembered of x, (..., D) -> (..., 1), in the memory's dtype."""
        u: Tensor = self.inward(x).relu()
        return u.to(self.memory.B.dtype)

    def emit(self, m: Tensor, x: Tensor) -> Tensor:
        """What is made of a memory (..., N) and the input (..., D) -> (..., D)."""
        y: Tensor = self.outward(torch.cat([m.to(x.dtype), x], -1)).relu()
        return y

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Feed the memory, read it."""
        with torch.autocast(x.device.type, enabled=False):
            u = self.signal(x.to(self.inward.weight.dtype))
            m = self.memory.step(u, state[0])
        return self.emit(m, x), (m,)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Feed it all moments by FFT, read all."""
        return self.scanned(x, state, None)

    def scan_with_resets(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Feed it all moments by stretches, with the resets in them, read all."""
        return self.scanned(x, state, reset)

    def scanned(self, x: Tensor, state: State, reset: Tensor | None) -> tuple[Tensor, State]:
        """(B, T, D), state and resets (B, T) -> (B, T, D) and the last state."""
        if not x.shape[1]:
            return x, state
        with torch.autocast(x.device.type, enabled=False):
            u = self.signal(x.to(self.inward.weight.dtype)).squeeze(-1)
            memory, m = self.memory, state[0]
            m = memory.scan(u, m) if reset is None else memory.scan_with_resets(u, m, reset)
        return self.emit(m, x), (m[:, -1].clone(),)


def delay(N: int, theta: float) -> tuple[Tensor, Tensor]:
    """A (N, N) and B (N) of the window of length theta under zero-order hold over one moment, in float64.

    >>> [round(float(part), 4) for part in delay(1, 2.0)]  # exp(-1/2) and 1 - exp(-1/2)
    [0.6065, 0.3935]
    """
    i = torch.arange(N, dtype=torch.float64)
    scale = (2 * i + 1) / theta
    sign = (-1.0) ** i
    lower = -torch.outer(sign, sign)  # (-1)^(i-j+1)
    A = scale.unsqueeze(1) * torch.where(i.unsqueeze(1) < i, -1.0, lower)
    both = torch.cat([torch.cat([A, (scale * sign).unsqueeze(1)], 1), torch.zeros(1, N + 1, dtype=torch.float64)])
    held = torch.linalg.matrix_exp(both)  # of [[A, B], [0, 0]]: the last column is what a held input adds
    return held[:N, :N].clone(), held[:N, N].clone()


def orbit(A: Tensor, start: Tensor, T: int) -> Tensor:
    """start, A start, ..., A^(T-1) start: (..., N) -> (..., T, N), in log2 T products of doubling length."""
    found, power = start.unsqueeze(-2), A.T
    while found.shape[-2] < T:
        found = torch.cat([found, found[..., : T - found.shape[-2], :] @ power], -2)
        power = power @ power
    return found


def _lagged(x: Tensor, *, outside: int = 0) -> Tensor:
    """The last STRETCH values up to each moment, (B, T) -> (B, T, STRETCH)."""
    return pad(x, (STRETCH - 1, 0), value=outside).unfold(1, STRETCH, 1)


def window(m: Tensor, lags: Tensor, *, theta: float) -> Tensor:
    """What a memory (..., N) holds of its signal `lags` (K) moments ago, between 0 and theta: (..., K)."""
    r = 2 * lags.to(m.dtype) / theta - 1
    P = [torch.ones_like(r), r]
    for i in range(1, m.shape[-1] - 1):
        P.append(((2 * i + 1) * r * P[i] - i * P[i - 1]) / (i + 1))
    return m @ torch.stack(P[: m.shape[-1]])

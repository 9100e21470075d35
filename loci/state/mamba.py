"""Mamba: a diagonal state space whose step, input map and readout are chosen by the input, between a convolution and a gate.

    [u, z] = W_in x,    u <- silu(conv(u))                                                      figure 3
    [d, B_t, C_t] = W_x u_t,    Delta_t = softplus(W_d d + b_d)                                  algorithm 2
    h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t u_t,    y_t = C_t h_t + skip * u_t                equations (2), (4)
    out = W_out( y * silu(z) )

A = -exp(A_log) starts as -1, ..., -N in each channel (S4D-real), Delta between 0.001 and 0.1. A step near 0 holds the state
and ignores the input, a long one forgets and takes the input: so a text can be read selectively, which a system that
is the same at every moment cannot do. `selective_scan` goes chunk by chunk and keeps of all the states only those
between chunks; the backward pass makes them again. It divides by no decay, so that none is too short or too long for it.

Paper: Gu, Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv:2312.00752; the layers of Shams et
al., "SSAMBA: Self-Supervised Audio Representation Learning with Mamba State Space Model", arXiv:2405.11831.
Differs: nothing in the numbers; B is discretised by Euler's rule as in the authors' code, where equation (4) has the
zero-order hold. The authors' kernel recomputes inside fast memory, this one chunk by chunk.
Keeps: b*B*E*(N + K - 1) bytes, b = 4 for a real number (8 in float64; bfloat16 weights carry a float32 state).

Shapes: B batch, T time, D width, E inner width, N states a channel, K taps of the convolution.

>>> mixer = Mamba(4)
>>> y, (window, h) = mixer(torch.ones(2, 100, 4))
>>> y.shape, window.shape, h.shape
(torch.Size([2, 100, 4]), torch.Size([2, 3, 8]), torch.Size([2, 8, 16]))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import method
from loci.state.mixer import Mixer, State
from loci.state.xlstm import CausalConv, carried_dtype

STEPS = (0.001, 0.1)  # Delta is drawn between these, uniformly in its logarithm


class Selective(nn.Module):
    """Convolution and selective recurrence of E channels: what is between the first map of the block and its gate."""

    def __init__(self, E: int, *, N: int, K: int, rank: int, chunk: int) -> None:
        super().__init__()
        if min(E, N, K, rank, chunk) < 1:
            raise ValueError(f"E={E}, N={N}, K={K}, rank={rank}, chunk={chunk} is no system; choose at least 1 of each")
        self.E, self.N, self.K, self.rank, self.chunk = E, N, K, rank, chunk
        self.conv = CausalConv(E, width=K)
        self.select = nn.Linear(E, rank + 2 * N, bias=False)
        self.step_size = nn.Linear(rank, E)
        self.A_log = nn.Parameter(torch.arange(1.0, N + 1).log().repeat(E, 1))
        self.skip = nn.Parameter(torch.ones(E))
        low, high = map(math.log, STEPS)
        with torch.no_grad():
            nn.init.uniform_(self.step_size.weight, -(rank**-0.5), rank**-0.5)
            delta = (low + (high - low) * torch.rand(E)).exp()
            self.step_size.bias.copy_(delta + (-torch.expm1(-delta)).log())  # softplus gives delta again

    def initial_state(self, batch: int) -> State:
        """Zeros: the last inputs of the convolution (B, K - 1, E), and h (B, E, N)."""
        like: dict[str, Any] = {"dtype": carried_dtype(self.skip), "device": self.skip.device}
        return torch.zeros(batch, self.K - 1, self.E, **like), torch.zeros(batch, self.E, self.N, **like)

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment of the recurrence: (B, E) -> (B, E)."""
        a, window = self._heard(u.unsqueeze(1), state[0])
        with torch.autocast(u.device.type, enabled=False):
            a, delta, B, C = (part.squeeze(1) for part in self._selected(a))
            decay = (delta.unsqueeze(-1) * self._rates()).exp()
            h = decay * state[1] + (delta * a).unsqueeze(-1) * B.unsqueeze(-2)
            y = (h @ C.unsqueeze(-1)).squeeze(-1) + self.skip * a
        return y.to(u.dtype), (window, h)

    def scan(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments, chunk by chunk: (B, T, E) -> (B, T, E)."""
        a, window = self._heard(u, state[0])
        with torch.autocast(u.device.type, enabled=False):
            a, delta, B, C = self._selected(a)
            y, h = selective_scan(a, delta, self._rates(), B, C, state[1], chunk=self.chunk)
            return (y + self.skip * a).to(u.dtype), (window, h)

    def _rates(self) -> Tensor:
        return -self.A_log.to(carried_dtype(self.A_log)).exp()

    def _heard(self, u: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        mixed, window = self.conv(u, window)
        return functional.silu(mixed), window

    def _selected(self, a: Tensor) -> tuple[Tensor, ...]:
        """Inputs as they were, Delta (B, T, E), B and C (B, T, N), in the dtype of the state; maps in that of the weights."""
        low, B, C = self.select(a.to(self.skip.dtype)).split([self.rank, self.N, self.N], -1)
        wide = carried_dtype(self.skip)
        delta = functional.linear(low, self.step_size.weight).to(wide) + self.step_size.bias
        return a.to(wide), functional.softplus(delta), B.to(wide), C.to(wide)


@method(
    name="mamba",
    kind="mixer",
    title="Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
    paper="arXiv:2312.00752",
    says="a diagonal state space that chooses by its input what to keep and what to forget, in constant memory",
    bytes="b*B*E*(N + K - 1)",
    example={"D": 4, "N": 3, "chunk": 5},
    needs=("torch",),
    system="ssamba",
)
class Mamba(Mixer):
    """The block of the paper: what is between its norm and its residual connection."""

    def __init__(
        self, D: int, *, N: int = 16, K: int = 4, expand: int = 2, rank: int | None = None, chunk: int = 64
    ) -> None:
        super().__init__()
        if min(D, expand) < 1:
            raise ValueError(f"D={D}, expand={expand} is no block; choose at least 1 of each")
        self.D, self.E = D, expand * D
        self.inward = nn.Linear(D, 2 * self.E, bias=False)
        rank = math.ceil(D / 16) if rank is None else rank
        self.system = Selective(self.E, N=N, K=K, rank=rank, chunk=chunk)
        self.outward = nn.Linear(self.E, D, bias=False)

    def initial_state(self, batch: int) -> State:
        """Zeros: the last inputs of the convolution (B, K - 1, E), and h (B, E, N)."""
        return self.system.initial_state(batch)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows of E channels with N states and K taps, D wide, b bytes for a real number of the state."""
        b = carried_dtype(self.system.skip).itemsize
        return {"B": batch, "E": self.E, "N": self.system.N, "K": self.system.K, "D": self.D, "b": b}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment of the recurrence."""
        u, z = self.inward(x).chunk(2, -1)
        y, state = self.system.step(u, state)
        return self.outward(y * functional.silu(z)), state

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments, chunk by chunk."""
        u, z = self.inward(x).chunk(2, -1)
        y, state = self.system.scan(u, state)
        return self.outward(y * functional.silu(z)), state


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, *, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """y_t = C_t h_t of h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, and the last h.

    u and delta are (B, T, E), A (E, N), B and C (B, T, N), h (B, E, N); y is (B, T, E). Memory beyond that of inputs and
    outputs is that of `chunk` moments and of one h for each chunk, in the backward pass too. It can be differentiated
    once; whoever needs more goes by `selective_steps`.

    >>> one = torch.ones(1, 3, 1)
    >>> y, h = selective_scan(one, one, torch.full((1, 1), 0.5).log(), one, one, torch.zeros(1, 1, 1))
    >>> [round(value, 4) for value in y.flatten().tolist()], round(h.item(), 4)
    ([1.0, 1.5, 1.75], 1.75)
    """
    if not u.shape[1]:
        return u, h
    y, last, _ = _chunkwise(u, delta, A, B, C, h, chunk)
    return y, last


def selective_steps(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The obvious form of `selective_scan`, moment by moment, and its oracle."""
    out = []
    for t in range(u.shape[1]):
        decay = (delta[:, t, :, None] * A).exp()
        h = decay * h + (delta[:, t] * u[:, t])[:, :, None] * B[:, t, None]
        out.append((h * C[:, t, None]).sum(-1))
    return torch.stack(out, 1), h


# Operators of torch, so that torch.compile takes each as one node and does not unroll a loop over moments. Inside time comes
# first: a moment is one piece of memory, which is written in place.
@torch.library.custom_op("loci::selective_scan", mutates_args=())
def _chunkwise(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    between, out = [], []
    for u_, delta_, B_, C_ in _chunks(chunk, u, delta, B, C):
        between.append(h)
        states = _states(u_, delta_, A, B_, h)[0]
        out.append((states @ C_.unsqueeze(-1)).squeeze(-1))
        h = states[-1].clone()  # a view would keep the chunk
    return torch.cat(out).transpose(0, 1).contiguous(), h, torch.stack(between)


@torch.library.custom_op("loci::selective_scan_backward", mutates_args=())
def _chunkwise_back(
    back_y: Tensor,
    back_h: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    between: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    pieces, back_A, found = _chunks(chunk, u, delta, B, C, back_y), torch.zeros_like(A), []
    with torch.autocast(u.device.type, enabled=False):
        for piece, h in zip(reversed(pieces), reversed(between), strict=True):
            backs, more, back_h = _back(piece, A, h, back_h)
            back_A += more
            found.append(backs)
    back_u, back_delta, back_B, back_C = (
        torch.cat(part[::-1]).transpose(0, 1).contiguous() for part in zip(*found, strict=True)
    )
    return back_u, back_delta, back_A, back_B, back_C, back_h


@_chunkwise.register_fake
def _(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    return u.new_empty(u.shape), h.new_empty(h.shape), h.new_empty(-(-u.shape[1] // chunk), *h.shape)


@_chunkwise_back.register_fake
def _(
    back_y: Tensor,
    back_h: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    between: Tensor,
    chunk: int,
) -> tuple[Tensor, ...]:
    return tuple(part.new_empty(part.shape) for part in (u, delta, A, B, C, back_h))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    u, delta, A, B, C, _, chunk = inputs
    ctx.save_for_backward(u, delta, A, B, C, output[2])
    ctx.chunk = chunk


def _differentiate(ctx: Any, back_y: Tensor, back_h: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_chunkwise_back(back_y, back_h, *ctx.saved_tensors, ctx.chunk), None


_chunkwise.register_autograd(_differentiate, setup_context=_keep)


def _chunks(chunk: int, *parts: Tensor) -> list[tuple[Tensor, ...]]:
    """(B, T, ...) -> pieces (L, B, ...) of at most `chunk` moments."""
    return list(zip(*(torch.split(part.transpose(0, 1).contiguous(), chunk) for part in parts), strict=True))


def _states(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """All states of a chunk (L, B, E, N), and its decays."""
    decay = (delta.unsqueeze(-1) * A).exp_()
    states = (delta * u).unsqueeze(-1) * B.unsqueeze(-2)
    for state, fade in zip(states.unbind(), decay.unbind(), strict=True):
        h = state.addcmul_(fade, h)
    return states, decay


def _back(piece: tuple[Tensor, ...], A: Tensor, h: Tensor, back_h: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Gradients of a chunk: of its inputs u, delta, B, C, of A, and of the state before it.

    With g_t the gradient of h_t, g_t = C_t dy_t + exp(delta_{t+1} A) g_{t+1}.
    """
    u, delta, B, C, back_y = piece
    states, decay = _states(u, delta, A, B, h)
    grads = back_y.unsqueeze(-1) * C.unsqueeze(-2)
    grads[-1] += back_h
    moments, fades = grads.unbind(), decay.unbind()
    for t in range(len(moments) - 1, 0, -1):
        moments[t - 1].addcmul_(fades[t], moments[t])
    back_h = fades[0] * moments[0]
    back_C = (back_y.unsqueeze(-2) @ states).squeeze(-2)
    back_B = ((delta * u).unsqueeze(-2) @ grads).squeeze(-2)
    of_fed = (grads @ B.unsqueeze(-1)).squeeze(-1)
    grads *= decay
    grads[1:] *= states[:-1]
    grads[0] *= h  # now the gradients of the exponents delta_t A
    back_delta = of_fed * u + torch.einsum("lben,en->lbe", grads, A)
    back_A = torch.einsum("lbe,lben->en", delta, grads)
    return (of_fed * delta, back_delta, back_B, back_C), back_A, back_h

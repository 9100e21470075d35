"""Gradients through time, four ways: all of it backwards, a part of it backwards, all of it forwards; and how far they reach.

    bptt        backwards through all T moments               T activations
    truncated   every k1 moments backwards through k2         k2 activations; the gradient is another one
    rtrl        forwards, S_t = J_t S_{t-1} + dF/dtheta       K*P for a row, whatever T is; K^2 P a moment
    reach       || d s_T / d s_t || for all t                 K*K for a row: how fast gradients vanish or explode

J_t = d s_t / d s_{t-1} for a state of K numbers, and P parameters. Backwards and forwards agree: each is the other's oracle.

Paper: Williams, Zipser 1989 (real-time recurrent learning), Williams, Peng 1990 (BPTT(h; h')), as in Lipton, Berkowitz, Elkan,
"A Critical Review of Recurrent Neural Networks for Sequence Learning", arXiv:1506.00019.
Differs: nothing.

>>> from loci.state.elman import Elman
>>> cell, x = Elman(2, 3), torch.ones(1, 6, 2)
>>> loss = lambda y, moments: y.square().sum()
>>> back, forth = bptt(cell, x, loss), rtrl(cell, x, loss)
>>> all(torch.allclose(back[name], forth[name], atol=1e-5) for name in back)
True
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from loci.state.mixer import Mixer, State

Loss: TypeAlias = Callable[[Tensor, slice], Tensor]  # of outputs (B, t, D) at those moments; a sum over moments
Gradients: TypeAlias = dict[str, Tensor]


def bptt(mixer: Mixer, x: Tensor, loss: Loss, *, state: State | None = None) -> Gradients:
    """The gradient of the loss by the parameters' names, backwards through all moments; `.grad` is left alone."""
    return _backwards(mixer, loss(mixer(x, state)[0], slice(0, x.shape[1])))


def truncated(mixer: Mixer, x: Tensor, loss: Loss, *, every: int, back: int, state: State | None = None) -> Gradients:
    """Each `every` moments (k1), the gradient of their loss through the last `back` (k2); the state is carried on.

    The `back` moments are scanned again from a state kept without gradient, so no more than their activations are held.
    """
    if every < 1 or back < every or back % every:
        raise ValueError(f"every={every}, back={back} do not fit; choose back as a multiple of every >= 1")
    total = {name: torch.zeros_like(param) for name, param in _trained(mixer).items()}
    start = mixer.initial_state(len(x)) if state is None else state
    kept: deque[tuple[int, State]] = deque(maxlen=back // every)  # where a chunk began, and its state
    for begin in range(0, x.shape[1], every):
        kept.append((begin, start))
        end, (first, there) = min(begin + every, x.shape[1]), kept[0]
        y, _ = mixer(x[:, first:end], there)
        for name, grad in _backwards(mixer, loss(y[:, begin - first :], slice(begin, end))).items():
            total[name] += grad
        with torch.no_grad():
            start = mixer(x[:, begin:end], start)[1]
    return total


def rtrl(mixer: Mixer, x: Tensor, loss: Loss, *, state: State | None = None) -> Gradients:
    """The gradient of `bptt`, carried forwards: exact after every moment, in memory that does not grow with them."""
    flat = _Flat(mixer)
    theta = flat.theta()
    s = flat.pack(mixer.initial_state(len(x)) if state is None else state)
    start = jacrev(flat.start)(theta) if state is None else s.new_zeros(s.shape[1], len(theta))
    S = start.expand(len(x), -1, -1)  # d s / d theta: (B, K, P)
    total = torch.zeros_like(theta)
    jacobians = vmap(jacrev(flat.step, argnums=(0, 2)), in_dims=(None, 0, 0))
    for t in range(x.shape[1]):
        (y_theta, y_s), (s_theta, s_s) = jacobians(theta, x[:, t], s)
        y, s = vmap(flat.step, in_dims=(None, 0, 0))(theta, x[:, t], s)
        y = y.detach().requires_grad_()
        (error,) = torch.autograd.grad(loss(y.unsqueeze(1), slice(t, t + 1)), y)
        total += torch.einsum("bd,bdp->p", error, y_theta + y_s @ S)
        S = s_s @ S + s_theta
        s = s.detach()
    return flat.named(total)


def reach(mixer: Mixer, x: Tensor, *, state: State | None = None) -> Tensor:
    """|| d s_T / d s_t ||_2 for t = 0..T: (B, T + 1), at 1 for t = T. Its slope over t, in logarithms, is the decay."""
    flat = _Flat(mixer)
    theta = flat.theta()
    s = flat.pack(mixer.initial_state(len(x)) if state is None else state)
    jacobian = vmap(jacrev(lambda moment, s: flat.step(theta, moment, s)[1], argnums=1))
    steps = []
    for moment in x.unbind(1):
        steps.append(jacobian(moment, s))
        s = vmap(lambda moment, s: flat.step(theta, moment, s)[1])(moment, s)
    product = torch.eye(s.shape[1], dtype=s.dtype, device=s.device).expand(len(x), -1, -1)
    norms = [torch.linalg.matrix_norm(product, 2)]
    for J in reversed(steps):
        product = product @ J
        norms.append(torch.linalg.matrix_norm(product, 2))
    return torch.stack(norms[::-1], 1)


class _Calls(nn.Module):
    """`step` and `initial_state` where functional_call finds them."""

    def __init__(self, mixer: Mixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor | None, state: State) -> tuple[Tensor, State]:
        """One step, or the state before the first where there is nothing to see."""
        return self.mixer.step(x, state) if x is not None else (torch.empty(0), self.mixer.initial_state(1))


class _Flat:
    """A mixer as a map of vectors: parameters (P,), one moment (D,) and one row's state (K,)."""

    def __init__(self, mixer: Mixer) -> None:
        self.calls = _Calls(mixer)
        self.params = {name: param.detach() for name, param in _trained(mixer).items()}
        self.parts = [tuple(part.shape[1:]) for part in mixer.initial_state(1)]
        unfit = [str(part.dtype) for part in mixer.initial_state(1) if not part.is_floating_point()]
        if unfit:
            raise ValueError(f"the state has a part of {unfit[0]}, which has no derivative; use bptt")

    def theta(self) -> Tensor:
        """The parameters as one vector (P,)."""
        return torch.cat([param.flatten() for param in self.params.values()])

    def named(self, theta: Tensor) -> Gradients:
        """A vector (P,) as what the mixer calls its parameters."""
        pieces = torch.split(theta, [param.numel() for param in self.params.values()])
        return {name: piece.view_as(self.params[name]) for name, piece in zip(self.params, pieces, strict=True)}

    def pack(self, state: State) -> Tensor:
        """States of B rows as vectors (B, K)."""
        return torch.cat([part.detach().flatten(1) for part in state], 1)

    def step(self, theta: Tensor, moment: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """One step of one row: (P,), (D,), (K,) -> (D,), (K,)."""
        sizes = [torch.Size(part).numel() for part in self.parts]
        state = tuple(piece.view(1, *part) for piece, part in zip(torch.split(s, sizes), self.parts, strict=True))
        y, state = self._call(theta, moment.unsqueeze(0), state)
        return y[0], torch.cat([part.flatten() for part in state])

    def start(self, theta: Tensor) -> Tensor:
        """The state before the first step (K,)."""
        return torch.cat([part.flatten() for part in self._call(theta, None, ())[1]])

    def _call(self, theta: Tensor, x: Tensor | None, state: State) -> tuple[Tensor, State]:
        named = {f"mixer.{name}": param for name, param in self.named(theta).items()}
        answer: tuple[Tensor, State] = functional_call(self.calls, named, (x, state))
        return answer


def _trained(mixer: Mixer) -> dict[str, nn.Parameter]:
    return {name: param for name, param in mixer.named_parameters() if param.requires_grad}


def _backwards(mixer: Mixer, total: Tensor) -> Gradients:
    params = _trained(mixer)
    grads = torch.autograd.grad(total, list(params.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(params, grads, strict=True))

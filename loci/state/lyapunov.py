"""Lyapunov exponents of any recurrence: whether small errors of a state grow or fade, and how fast.

    lambda_max = lim (1/T) log || J_T ... J_2 J_1 ||,        J_t = d state_t / d state_{t-1}

`exponent` follows one tangent by exact Jacobian-vector products and renormalises it at every step (Benettin); `spectrum`
follows several and re-orthonormalises them by QR. Neither asks for the eigenvalues of a weight: the Jacobians are those
along the run. A Mamba layer's are diagonal with entries exp(Delta_t A) in (0, 1), so its exponent is at most 0; that
concerns the state under given inputs, not how inputs change Delta or how layers amplify each other.

A recurrence is the step of a Mixer, `step(x, state) -> (y, state)` with any tree of tensors as the state; `autonomous(f)`
makes one of a map. Every floating-point tensor of the state counts; batch rows are one state, of which the largest
exponent shows.

Paper: Halloran, Gulati, Roysdon, "Mamba State-Space Models Are Lyapunov-Stable Learners", arXiv:2406.00209.
Differs: the paper proves the bound and measures accuracies; here the exponent is measured, for any recurrence.
Keeps: 8*T bytes, the logarithm of the growth at each of T steps of the last reading.

>>> logistic = autonomous(lambda x: 4 * x * (1 - x))
>>> reading = Lyapunov(warmup=10).read(logistic, [None] * 2000, torch.tensor([0.3], dtype=torch.float64))
>>> abs(reading.value - 0.6931) < 0.01, reading.unit
(True, 'nats a step')
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from loci.core.card import method
from loci.core.meter import Reading

State: TypeAlias = Any  # a tree of tensors
Step: TypeAlias = Callable[[Any, State], tuple[Any, State]]
Parts: TypeAlias = tuple[Tensor, ...]


def autonomous(after: Callable[[State], State]) -> Step:
    """The recurrence of a map that takes no input and gives no output."""
    return lambda x, state: (None, after(state))


@method(
    name="mamba-lyapunov",
    kind="meter",
    title="Mamba State-Space Models Are Lyapunov-Stable Learners",
    paper="arXiv:2406.00209",
    says="the largest Lyapunov exponent of any recurrence along a run, from exact Jacobian-vector products",
    bytes="8*T",
    example={"warmup": 4},
    needs=("torch",),
)
class Lyapunov:
    """Reads the largest exponent. The tangent starts at random and turns to the fastest direction during `warmup` steps."""

    def __init__(self, *, warmup: int = 0, seed: int = 0) -> None:
        if warmup < 0:
            raise ValueError(f"warmup={warmup} is negative; give the number of steps that are not counted")
        self.warmup, self.seed = warmup, seed
        self.growth = torch.empty(0, dtype=torch.float64)

    def read(self, step: Step, inputs: Sequence[Any], state: State) -> Reading:
        """The exponent over all inputs after the warm-up."""
        growth = growths(step, inputs, state, seed=self.seed)
        if not len(growth) > self.warmup:
            raise ValueError(f"{len(growth)} inputs are used up by warmup={self.warmup}; give more inputs")
        self.growth = growth[self.warmup :].clone()
        return Reading(float(self.growth.mean()), "nats a step", "computed")

    def shapes(self) -> dict[str, int]:
        """T, the steps that are kept."""
        return {"T": len(self.growth)}

    def draw(self, seed: int) -> tuple[Step, Tensor, tuple[Tensor, Tensor]]:
        """A recurrence of two tensors: tanh of a random matrix, and a running mean beside it."""
        random = torch.Generator().manual_seed(seed)
        W = torch.randn(6, 6, generator=random) * 0.6

        def step(x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            h = torch.tanh(state[0] @ W + x)
            return h, (h, 0.5 * state[1] + 0.5 * h)

        return step, torch.randn(16, 1, 6, generator=random), (torch.zeros(1, 6), torch.zeros(1, 6))


def exponent(step: Step, inputs: Sequence[Any], state: State, *, warmup: int = 0, seed: int = 0) -> float:
    """The largest exponent, in nats a step; -inf when a step forgets everything.

    >>> halve = autonomous(lambda x: 0.5 * x)
    >>> round(exponent(halve, [None] * 5, torch.ones(3)), 6)
    -0.693147
    """
    return Lyapunov(warmup=warmup, seed=seed).read(step, inputs, state).value


@torch.no_grad()
def growths(step: Step, inputs: Iterable[Any], state: State, *, seed: int = 0) -> Tensor:
    """The logarithm of a tangent's growth at each step (T,), in float64; its mean is the exponent."""
    _load_forward_mode()
    flow = _Flow(step, state)
    moving, rest = flow.moving, flow.rest
    logs: list[Tensor] = []
    tangent = flow.directions(1, seed)[0]
    tangent = tangent / tangent.norm()
    for x in inputs:

        def after(*parts: Tensor, x: Any = x, rest: Parts = rest) -> tuple[Parts, Parts]:
            return flow(x, parts, rest)

        followed: Any = torch.func.jvp(after, moving, _split(tangent, moving), has_aux=True)
        moving, change, rest = followed
        tangent = _joined(change)
        norm = tangent.norm()
        logs.append(norm.double().log())
        tangent = tangent / norm if norm > 0 else tangent
    return torch.stack(logs).cpu() if logs else torch.empty(0, dtype=torch.float64)


@torch.no_grad()
def spectrum(
    step: Step, inputs: Iterable[Any], state: State, *, count: int | None = None, warmup: int = 0, seed: int = 0
) -> Tensor:
    """The `count` largest exponents (all of them unless given), falling, in nats a step.

    >>> two = torch.tensor([0.5, 2.0])
    >>> [round(float(each), 4) for each in spectrum(autonomous(lambda x: two * x), [None] * 9, torch.ones(2))]
    [0.6931, -0.6931]
    """
    _load_forward_mode()
    flow = _Flow(step, state)
    moving, rest = flow.moving, flow.rest
    logs: list[Tensor] = []
    count = flow.size if count is None else count
    if not 1 <= count <= flow.size:
        raise ValueError(f"count={count} does not fit a state of {flow.size} numbers; choose 1 <= count <= {flow.size}")
    # all of them: start from the axes, which a diagonal recurrence keeps, so that its spectrum is exact from step one
    start = flow.directions(count, seed).T
    Q = torch.eye(count).to(start) if count == flow.size else torch.linalg.qr(start)[0]  # (size, count)
    for x in inputs:

        def along(q: Tensor, x: Any = x, moving: Parts = moving, rest: Parts = rest) -> Tensor:
            return _joined(torch.func.jvp(lambda *parts: flow(x, parts, rest)[0], moving, _split(q, moving))[1])

        J = torch.func.vmap(along, out_dims=1)(Q.T.contiguous())
        moving, rest = flow(x, moving, rest)
        Q, R = torch.linalg.qr(J)
        logs.append(R.diagonal().abs().double().log())
    if not len(logs) > warmup >= 0:
        raise ValueError(f"{len(logs)} inputs are used up by warmup={warmup}; give more inputs")
    return torch.stack(logs[warmup:]).mean(0).sort(descending=True).values.cpu()


@torch.no_grad()
def deviation(step: Step, inputs: Iterable[Any], state: State, other: State) -> Tensor:
    """The distance of two runs of the same inputs from two states, before the first step and after each (T + 1,)."""
    gaps = [_distance(state, other)]
    for x in inputs:
        state, other = step(x, state)[1], step(x, other)[1]
        gaps.append(_distance(state, other))
    return torch.stack(gaps)


@torch.no_grad()
def rounding_deviation(step: Step, inputs: Iterable[Any], state: State, rounding: Callable[[Tensor], Tensor]) -> Tensor:
    """The distance of a run whose state is rounded after every step from one whose state is not (T + 1,).

    >>> bf16 = lambda part: part.bfloat16().float()
    >>> gaps = rounding_deviation(autonomous(lambda x: 0.9 * x), [None] * 50, torch.ones(1), bf16)
    >>> bool(gaps.max() <= 2**-8 / (1 - 0.9))
    True
    """
    exact, rounded, gaps = state, state, [_distance(state, state)]
    for x in inputs:
        exact = step(x, exact)[1]
        rounded = pytree.tree_map(lambda part: rounding(part) if _moves(part) else part, step(x, rounded)[1])
        gaps.append(_distance(exact, rounded))
    return torch.stack(gaps)


class _Flow:
    """A recurrence between the moving (real or complex) tensors of its state; the others, such as counters, go along."""

    def __init__(self, step: Step, state: State) -> None:
        self.step = step
        leaves, self.shape = pytree.tree_flatten(state)
        if strange := [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)]:
            raise TypeError(f"the state holds {', '.join(strange)}; give a tree of tensors")
        self.places = [place for place, leaf in enumerate(leaves) if _moves(leaf)]
        if not self.places:
            raise ValueError(
                f"a state of {[str(leaf.dtype) for leaf in leaves]} has nothing that can grow; give one in floats"
            )
        self.moving, self.rest = self._parted(leaves)
        self.size = sum(_real(part).numel() for part in self.moving)

    def __call__(self, x: Any, moving: Parts, rest: Parts) -> tuple[Parts, Parts]:
        """One step."""
        ahead, beside = iter(moving), iter(rest)
        leaves = [next(ahead if place in self.places else beside) for place in range(len(moving) + len(rest))]
        following, found = pytree.tree_flatten(self.step(x, pytree.tree_unflatten(leaves, self.shape))[1])
        if found != self.shape:
            raise ValueError(
                f"step gave a state of the form {found}, it was given {self.shape}; return (output, state)"
            )
        return self._parted(following)

    def _parted(self, leaves: list[Tensor]) -> tuple[Parts, Parts]:
        moving = tuple(leaves[place] for place in self.places)
        return moving, tuple(leaf for place, leaf in enumerate(leaves) if place not in self.places)

    def directions(self, count: int, seed: int) -> Tensor:
        """Random tangents (count, size), on the device of the state and in its widest dtype."""
        random = torch.Generator().manual_seed(seed)
        drawn = torch.randn(count, self.size, generator=random, dtype=torch.float64)
        return drawn.to(_joined(self.moving))


@functools.cache
def _load_forward_mode() -> None:
    """Torch 2.13 loads its forward mode on first use, and warns that a part of torch that it needs is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.neg, (torch.zeros(1),), (torch.zeros(1),))


def _moves(part: Tensor) -> bool:
    return part.is_floating_point() or part.is_complex()


def _real(part: Tensor) -> Tensor:
    return torch.view_as_real(part) if part.is_complex() else part


def _joined(parts: Parts) -> Tensor:
    """All numbers in one vector, in float32 or wider."""
    flat = [_real(part).flatten() for part in parts]
    return torch.cat([part.to(torch.promote_types(part.dtype, torch.float32)) for part in flat])


def _split(vector: Tensor, like: Parts) -> Parts:
    """The vector in the shapes and dtypes of the parts."""
    reals = [_real(part) for part in like]
    pieces = torch.split(vector, [part.numel() for part in reals])
    shaped = [piece.view(real.shape).to(real.dtype) for piece, real in zip(pieces, reals, strict=True)]
    return tuple(
        torch.complex(piece[..., 0], piece[..., 1]) if part.is_complex() else piece
        for piece, part in zip(shaped, like, strict=True)
    )


def _distance(one: State, other: State) -> Tensor:
    """The Euclidean distance of two states, in float64."""
    leaves, others = pytree.tree_leaves(one), pytree.tree_leaves(other)
    gaps = [
        (_real(a).double() - _real(b).double()).square().sum() for a, b in zip(leaves, others, strict=True) if _moves(a)
    ]
    return torch.stack(gaps).sum().sqrt()

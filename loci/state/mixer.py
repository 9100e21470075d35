"""The contract: a mixer maps a sequence to a sequence and carries a state; the slow step is the oracle of the fast scan.

    y_t, s_t = step(x_t, s_{t-1})                 one moment
    y_1..T, s_T = scan(x_1..T, s_0)               the same for T of them, however it is computed
    forward(x, state, reset=...)                  scan, starting afresh wherever reset says so, before that moment is seen

A state is a tuple of tensors whose first axis is the batch; cut a sequence anywhere, carry the state over, and nothing
changes. What is not a causal map of sequences has a contract of its own.

Shapes: B batch, T time, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn

State: TypeAlias = tuple[Tensor, ...]


class Mixer(nn.Module, ABC):
    """A causal map of sequences with a state. Members write `initial_state` and `step`, and a faster `scan` if they can."""

    D: int  # width of inputs and outputs

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state before anything was seen, on the parameters' device: tensors (B, ...)."""

    @abstractmethod
    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment: (B, D) -> (B, D) and the state after it; the given state is left as it is."""

    @abstractmethod
    def shapes(self, batch: int) -> Mapping[str, float]:
        """What the names of the card's byte formula stand for at this batch size; the formula is of the state's bytes."""

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, T, D) -> (B, T, D) and the last state: step by step, unless a member knows better."""
        return self.scan_by_steps(x, state)

    def scan_by_steps(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The obvious form, and the oracle of `scan`."""
        out = []
        for moment in x.unbind(1):
            y, state = self.step(moment, state)
            out.append(y)
        return (torch.stack(out, 1) if out else x.new_zeros(x.shape)), state

    def forward(self, x: Tensor, state: State | None = None, *, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """(B, T, D), optional state and resets (B, T) of bool -> (B, T, D) and the last state.

        Where `reset` holds, the state is the initial one again before that moment is seen. ValueError for a wrong width,
        a state or reset of other shapes, integer or non-finite input. With T = 0 the state comes back as it is.
        """
        state = self.initial_state(len(x)) if state is None else state
        self.require(x, state, reset)
        if not x.shape[1]:
            return x, state
        if reset is None or not bool(reset.any()):
            return self.scan(x, state)
        return self.scan_with_resets(x, state, reset)

    def scan_with_resets(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Scan from one moment at which any row is reset to the next; members with resets inside their scan do better."""
        cuts = [0, *(t for t in reset.any(0).nonzero().flatten().tolist() if t > 0), x.shape[1]]
        fresh, out = self.initial_state(len(x)), []
        for start, end in pairwise(cuts):
            state = choose(reset[:, start], fresh, state)
            y, state = self.scan(x[:, start:end], state)
            out.append(y)
        return torch.cat(out, 1), state

    def require(self, x: Tensor, state: State, reset: Tensor | None = None) -> None:
        """Refuse what is not (B, T, D) of finite floats, or a state or reset that does not belong to it."""
        if x.dim() != 3 or x.shape[2] != self.D:
            raise ValueError(
                f"x is {tuple(x.shape)}, {type(self).__name__} takes (B, T, {self.D}); give rows of that width"
            )
        if not x.is_floating_point():
            raise ValueError(f"x is {_dtype(x)}, {type(self).__name__} takes floating-point rows; embed tokens first")
        if not bool(x.isfinite().all()):
            raise ValueError("x has values that are not finite, which would stay in the state for ever; clean it first")
        want = [tuple(part.shape) for part in self.initial_state(len(x))]
        got = [tuple(part.shape) for part in state]
        if want != got:
            raise ValueError(
                f"state has shapes {got}, {type(self).__name__} carries {want}; start from initial_state({len(x)})"
            )
        if reset is not None and (tuple(reset.shape) != tuple(x.shape[:2]) or reset.dtype != torch.bool):
            raise ValueError(
                f"reset is {tuple(reset.shape)} of {_dtype(reset)}; give one bool for each moment, {tuple(x.shape[:2])}"
            )


def choose(which: Tensor, here: State, there: State) -> State:
    """Rows of `here` where `which` (B,) holds, else of `there`; no gradient flows into a row that was not chosen."""
    return tuple(
        torch.where(which.view(-1, *[1] * (new.dim() - 1)), new, old) for new, old in zip(here, there, strict=True)
    )


def state_bytes(state: State) -> int:
    """What a state holds."""
    return sum(part.numel() * part.element_size() for part in state)


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")

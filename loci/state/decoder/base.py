"""The contract of decoders: language models over a stream of tokens, which carry a state from one piece to the next.

    logits_1..T, s_T = read(tokens_1..T, s_0)

The stream may be cut at every multiple of `piece` tokens: carry the state over, and nothing changes. Logits at a moment
depend on that moment and those before it.

Shapes: B batch, T time, V tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loci.state.mixer import State


class Decoder(nn.Module, ABC):
    """Tokens in, logits out. Members write `initial_state`, `read` and, for the card's formula, `shapes`."""

    V: int  # how many tokens there are
    piece: int = 1  # a stream may be cut at its multiples

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state before anything was read, on the parameters' device: tensors (B, ...)."""

    @abstractmethod
    def read(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, T) of int64 -> logits (B, T, V) and the state after them; the given state is left as it is."""

    @abstractmethod
    def shapes(self, state: State) -> Mapping[str, float]:
        """What the names of the card's byte formula stand for in this state; the formula is of the state's bytes."""

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(B, T) of int64 and an optional state -> logits (B, T, V) and the state after them.

        ValueError for tokens that are not (B, T) of int64 below V, or a state of another batch. With T = 0 the state comes
        back as it is.
        """
        state = self.initial_state(len(tokens)) if state is None else state
        self.require(tokens, state)
        return self.read(tokens, state) if tokens.shape[1] else (self.nothing(tokens), state)

    def nothing(self, tokens: Tensor) -> Tensor:
        """Logits of no moments, (B, 0, V)."""
        return next(self.parameters()).new_zeros(len(tokens), 0, self.V)

    def require(self, tokens: Tensor, state: State) -> None:
        """Refuse what are no tokens, or a state that does not belong to them."""
        name = type(self).__name__
        if tokens.dim() != 2 or tokens.dtype != torch.int64:
            raise ValueError(
                f"tokens is {tuple(tokens.shape)} of {str(tokens.dtype).removeprefix('torch.')}; {name} takes (B, T) of int64"
            )
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.V:
            raise ValueError(
                f"tokens go from {int(tokens.min())} to {int(tokens.max())}; {name} knows 0 to {self.V - 1}"
            )
        want = [(len(tokens), *part.shape[1:]) for part in self.initial_state(1)]
        got = [tuple(part.shape) for part in state]
        if [(shape[0], len(shape)) for shape in want] != [(shape[0], len(shape)) for shape in got]:
            raise ValueError(
                f"state has shapes {got}, {name} starts with {want}; start from initial_state({len(tokens)})"
            )

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        count: int,
        *,
        state: State | None = None,
        temperature: float = 0.0,
        random: torch.Generator | None = None,
    ) -> tuple[Tensor, State]:
        """(B, T) -> the `count` tokens that follow, (B, count), and the state after all but the last of them.

        The likeliest at temperature 0, else drawn from softmax(logits / temperature) by `random`. Each token costs one
        `read` of one moment.
        """
        if count < 1 or not tokens.shape[1] or temperature < 0 or (temperature > 0 and random is None):
            raise ValueError(
                f"count={count}, temperature={temperature}, random={random} after {tokens.shape[1]} tokens; give a count and "
                f"tokens of at least 1, and a torch.Generator where the temperature is above 0"
            )
        said: list[Tensor] = []
        for _ in range(count):
            logits, state = self(said[-1] if said else tokens, state)
            said.append(_drawn(logits[:, -1].float(), temperature, random))
        assert state is not None
        return torch.cat(said, 1), state


def _drawn(logits: Tensor, temperature: float, random: torch.Generator | None) -> Tensor:
    """(B, V) -> (B, 1)."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=random)

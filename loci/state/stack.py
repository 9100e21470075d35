"""A language model of mixers: embed, blocks, head. Its memory is its mixers' states, and they can be put in a file.

    h^0 = E[token],    h^l = h' + mlp(norm h'),  h' = h^{l-1} + mixer_l(norm h^{l-1}),    logits = E norm(h^L)

Read a stream in pieces and carry the state over; say a token in one step of every mixer, which costs the same however much was
read wherever the mixer's formula does not name T. Norms come first, and the head's weight is the embedding's.

Source: the pre-norm residual block of Xiong et al., "On Layer Normalization in the Transformer Architecture",
arXiv:2002.04745, with the RMS norm of Zhang, Sennrich, arXiv:1910.07467.
Keeps: the sum over its mixers.

Shapes: B batch, T time, D width, V tokens.

>>> from loci.state.gru import GRU
>>> stack = Stack(lambda D: GRU(D, n=8), depth=2, V=11, D=6)
>>> logits, state = stack(torch.tensor([[3, 1, 4, 1, 5]]))
>>> logits.shape, [tuple(part.shape) for part in state]
(torch.Size([1, 5, 11]), [(1, 8), (1, 8)])
>>> said, state = stack.generate(torch.tensor([[3, 1]]), 4)
>>> said.shape
torch.Size([1, 4])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from loci.state.decoder.base import Decoder
from loci.state.mixer import Mixer, State


class Block(nn.Module):
    """A mixer over moments, then a map of each moment alone, each after a norm and beside a way around it."""

    def __init__(self, mixer: Mixer, mlp: nn.Module) -> None:
        super().__init__()
        self.mixer, self.mlp = mixer, mlp
        self.norm1, self.norm2 = nn.RMSNorm(mixer.D), nn.RMSNorm(mixer.D)

    def forward(self, x: Tensor, state: State, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """(B, T, D) and the mixer's state -> (B, T, D) and the state after it."""
        heard = self.norm1(x).to(x.dtype)
        if reset is not None:
            said, state = self.mixer.scan_with_resets(heard, state, reset)
        elif x.shape[1] == 1:
            said, state = self.mixer.step(heard.squeeze(1), state)
            said = said.unsqueeze(1)
        else:
            said, state = self.mixer.scan(heard, state)
        x = x + said
        return x + self.mlp(self.norm2(x).to(x.dtype)), state


class Stack(Decoder):
    """`depth` blocks over mixers of one kind: `mixer(D)` makes one of that width. A block's map is `hidden` wide, or 4*D."""

    def __init__(
        self, mixer: Callable[[int], Mixer], *, depth: int, V: int = 256, D: int = 64, hidden: int | None = None
    ) -> None:
        super().__init__()
        if min(depth, V, D, 1 if hidden is None else hidden) < 1:
            raise ValueError(
                f"depth={depth}, V={V}, D={D}, hidden={hidden} is no model; choose each of them at least 1"
            )
        self.V = V
        self.embedding = nn.Embedding(V, D)
        mixers = [mixer(D) for _ in range(depth)]
        if len({id(made) for made in mixers}) < depth or any(made.D != D for made in mixers):
            raise ValueError(
                f"mixer gives one of width {mixers[0].D} or the same one twice; give what makes a new one of D={D}"
            )
        self.blocks = nn.ModuleList(Block(made, self.mlp(D, hidden or 4 * D)) for made in mixers)
        self.norm, self.head = nn.RMSNorm(D), nn.Linear(D, V, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.head.weight = self.embedding.weight
        self.parts = [len(made.initial_state(1)) for made in mixers]

    @staticmethod
    def mlp(D: int, hidden: int) -> nn.Module:
        """A block's map of each moment alone, (..., D) -> (..., D)."""
        return nn.Sequential(nn.Linear(D, hidden), nn.GELU(), nn.Linear(hidden, D))

    def mixers(self) -> list[Mixer]:
        """The blocks' mixers, from the input to the head."""
        return [block.mixer for block in self.blocks]  # type: ignore[misc]

    def initial_state(self, batch: int) -> State:
        """The mixers' initial states side by side."""
        return tuple(part for mixer in self.mixers() for part in mixer.initial_state(batch))

    def shapes(self, state: State) -> Mapping[str, float]:
        """The mixers' own names with their places behind a dot."""
        batch = len(state[0])
        return {
            f"{k}.{name}": size for k, mixer in enumerate(self.mixers()) for name, size in mixer.shapes(batch).items()
        }

    def forward(
        self, tokens: Tensor, state: State | None = None, *, reset: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """(B, T) of int64, optional state and resets (B, T) of bool -> logits (B, T, V) and the state after them.

        Where `reset` holds a new text begins, and what was before is forgotten in that row. ValueError as for `Decoder`, and
        for resets of another shape.
        """
        state = self.initial_state(len(tokens)) if state is None else state
        self.require(tokens, state)
        if reset is not None and (reset.shape != tokens.shape or reset.dtype != torch.bool):
            raise ValueError(
                f"reset is {tuple(reset.shape)} of {reset.dtype}; give one bool for each of {tuple(tokens.shape)}"
            )
        return self.read(tokens, state, reset) if tokens.shape[1] else (self.nothing(tokens), state)

    def read(self, tokens: Tensor, state: State, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """Block by block: each reads the whole piece before the next begins."""
        x: Tensor = self.embedding(tokens)
        after: list[Tensor] = []
        places = [sum(self.parts[:k]) for k in range(len(self.parts) + 1)]
        for block, (start, end) in zip(self.blocks, pairwise(places), strict=True):
            x, own = block(x, state[start:end], reset)
            after.extend(own)
        return self.head(self.norm(x).to(x.dtype)), tuple(after)

    def require(self, tokens: Tensor, state: State) -> None:
        """Refuse what are no tokens, or a state of other shapes than the mixers carry."""
        super().require(tokens, state)
        want, got = ([tuple(part.shape) for part in parts] for parts in (self.initial_state(len(tokens)), state))
        if want != got:
            raise ValueError(
                f"state has shapes {got}, this stack carries {want}; start from initial_state({len(tokens)})"
            )


def detached(state: State) -> State:
    """The same state without its past: what is carried from one training step of a stream to the next."""
    return tuple(part.detach() for part in state)

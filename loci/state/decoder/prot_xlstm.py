"""Prot-xLSTM: a language model of families of proteins, read one after another, whose state stays of one size.

    x^0 = E[token],   x^l = x^{l-1} + mLSTM_l(LN(x^{l-1}); p),   logits = W LN(x^L)
    q_t, k_t  <-  R(p_t) q_t, R(p_t) k_t      pairs (2j, 2j+1) of all I channels turned by p_t base^(-2j / I)

p is the place in the protein and not in the text: it is nought at a separator and counts on from there, so the same
column of two homologs has the same angle however much lies between them. Context is homologs, in any number and without
an alignment; what was read of them is in the state, which 100,000 tokens leave as large as 10. `read` reckons places
from tokens. In a text whose spans were moved (`fill_in_the_middle.py`) a place is that of the protein as it was, which
tokens alone do not say: give them to `read_at`. To fill a gap, read the text up to its eos so, and `generate` from the
gap's mask and the state `at` the place where the gap begins: a mask takes no place, so that counting on is right.

Paper: Schmidinger et al., "Bio-xLSTM: Generative modeling, representation and in-context learning of biological and
chemical sequences", arXiv:2411.04165 (Prot-xLSTM); the defaults, token ids among them, are those of the authors' code.
Differs: the last maps start smaller the deeper the model is, as the authors mean it to be; their configuration sets the
depth back to 1. Angles are of float64. As in theirs, frequencies run over all channels, not over each head again, so
heads tell places at different scales; gates see q and k after they were turned; places stop at `longest` - 1.
Keeps: B*(s*L*(H*(d*d + d + 1) + (W - 1)*H*d) + 8) bytes for L layers of H heads of d channels and a convolution of
width W; s is 4, or 8 in float64.

Shapes: B batch, T time, V tokens, D width, I = H d channels.

>>> model = ProtXLSTM(38, D=8, heads=2, depth=2)
>>> homologs = torch.tensor([[0, 7, 5, 9, 0, 7, 5, 4, 4]])  # <cls> L A G, and so on
>>> logits, state = model(homologs)
>>> model.places(homologs, model.initial_state(1))
tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
>>> logits.shape, state[-1]  # the place of what comes next
(torch.Size([1, 9, 38]), tensor([5]))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.attention import turned
from loci.state.decoder.base import Decoder
from loci.state.decoder.recursion import angles
from loci.state.mixer import State
from loci.state.mlstm import MLSTM


@method(
    name="prot-xlstm",
    kind="decoder",
    title="Bio-xLSTM: Generative modeling, representation and in-context learning of biological and chemical sequences",
    paper="arXiv:2411.04165",
    says="a family of proteins read one after another into a state of one size, with places that begin anew in each",
    bytes="B*(s*L*(H*(d*d + d + 1) + (W - 1)*H*d) + 8)",
    example={"V": 11, "D": 8, "heads": 2, "depth": 2, "chunk": 5, "masks": [9, 10], "longest": 6},
    needs=("torch",),
    system="bio_xlstm",
)
class ProtXLSTM(Decoder):
    """mLSTM layers in residual connections; a text begins with a separator, as does each protein in it."""

    masks: Tensor

    def __init__(
        self,
        V: int = 38,
        *,
        D: int = 1024,
        heads: int = 4,
        depth: int = 16,
        inner: int | None = None,  # channels of a layer, 2 * D unless given
        chunk: int = 64,
        separator: int = 0,  # <cls>, with which a protein begins
        masks: Sequence[int] = range(33, 38),  # which take no place of their own
        base: float = 500_000.0,
        longest: int = 2048,  # places are told apart up to here
    ) -> None:
        super().__init__()
        if min(depth, longest) < 1 or base <= 1:
            raise ValueError(
                f"depth={depth}, longest={longest}, base={base} is no model; choose 1 or more, base above 1"
            )
        if not all(0 <= token < V for token in (separator, *masks)) or separator in masks:
            raise ValueError(
                f"separator={separator}, masks={list(masks)} are not tokens below V={V}, each in one of them; choose others"
            )
        self.V, self.D, self.separator, self.base, self.longest = V, D, separator, base, longest
        self.register_buffer("masks", torch.tensor(list(masks), dtype=torch.int64), persistent=False)
        self.embedding, self.head = nn.Embedding(V, D), nn.Linear(D, V, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(D, bias=False) for _ in range(depth))
        self.layers = nn.ModuleList(MLSTM(D, heads=heads, inner=inner, chunk=chunk, blocks=depth) for _ in range(depth))
        self.norm = nn.LayerNorm(D, bias=False)
        self.inner = self.mixers()[0].inner
        if self.inner // heads % 2:
            raise ValueError(
                f"heads={heads} have {self.inner // heads} channels each, which are no pairs; choose fewer"
            )
        for weight in (self.embedding.weight, self.head.weight):
            nn.init.normal_(weight, std=math.sqrt(2 / (5 * D)))

    def mixers(self) -> list[MLSTM]:
        """The layers, from the input to the head."""
        return list(self.layers)  # type: ignore[arg-type]

    def initial_state(self, batch: int) -> State:
        """The layers' initial states side by side, and the place (B,) of the token to come."""
        parts = [part for mixer in self.mixers() for part in mixer.initial_state(batch)]
        return *parts, torch.zeros(batch, dtype=torch.int64, device=self.embedding.weight.device)

    def shapes(self, state: State) -> Mapping[str, float]:
        """B texts, L layers of H heads of d channels, W the convolutions' width, s bytes of a number."""
        mixers = self.mixers()
        return {**mixers[0].shapes(len(state[-1])), "L": len(mixers)}

    def read(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """At the places that the tokens say."""
        return self._heard(tokens, self.places(tokens, state), state)

    def read_at(self, tokens: Tensor, places: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(B, T) of int64 and the place of each -> logits (B, T, V) and the state after them.

        ValueError as in `forward`, and for places that are not (B, T) of int64 from 0 on.
        """
        state = self.initial_state(len(tokens)) if state is None else state
        self.require(tokens, state)
        if places.shape != tokens.shape or places.dtype != torch.int64 or bool((places < 0).any()):
            raise ValueError(
                f"places is {tuple(places.shape)} of {places.dtype}; give one place for each of {tuple(tokens.shape)}, "
                f"of int64 and none below 0"
            )
        return self._heard(tokens, places, state) if tokens.shape[1] else (self.nothing(tokens), state)

    def at(self, state: State, places: Tensor) -> State:
        """The same state, whose next token stands at these places (B,)."""
        if places.shape != state[-1].shape or places.dtype != torch.int64 or bool((places < 0).any()):
            raise ValueError(
                f"places is {places.tolist()} of {places.dtype}; give one of int64 from 0 on for each text"
            )
        return *state[:-1], places

    def places(self, tokens: Tensor, state: State) -> Tensor:
        """The places (B, T) of tokens after this state: nought at a separator, one more behind all but a mask."""
        moves = self._moves(tokens)
        count = state[-1].unsqueeze(1) + moves.cumsum(1) - moves  # as if there were no separators; it never falls
        return count - torch.where(tokens == self.separator, count, 0).cummax(1).values

    def _moves(self, tokens: Tensor) -> Tensor:
        """How far the place moves behind each token, 0 or 1."""
        return (~torch.isin(tokens, self.masks)).long()

    def _heard(self, tokens: Tensor, places: Tensor, state: State) -> tuple[Tensor, State]:
        """Layer by layer: each reads the whole piece before the next begins."""
        x: Tensor = self.embedding(tokens)
        turns = angles(places.clamp(max=self.longest - 1), self.inner, x, self.base)
        mixers, after = self.mixers(), list[Tensor]()
        bounds = range(0, len(state), (len(state) - 1) // len(mixers))
        for norm, mixer, (start, end) in zip(self.norms, mixers, pairwise(bounds), strict=True):
            said, own = self._mixed(mixer, norm(x), state[start:end], turns)
            x = x + said
            after.extend(own)
        return self.head(self.norm(x)), (*after, places[:, -1] + self._moves(tokens[:, -1]))

    @staticmethod
    def _mixed(mixer: MLSTM, x: Tensor, state: State, turns: Tensor) -> tuple[Tensor, State]:
        """A layer over a piece (B, T, D) with q and k turned; of one moment, in its recurrent form."""

        def turn(part: Tensor) -> Tensor:
            return turned(part, turns.to(part.dtype))

        if x.shape[1] > 1:
            return mixer.scan(x, state, turn=turn)
        y, state = mixer.step(x.squeeze(1), state, turn=turn)
        return y.unsqueeze(1), state

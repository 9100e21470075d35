"""Classifiers whose embedding is five convolutions over three frames each, and so sees five frames ahead.

In a stream, what they say of a frame is known five frames later. The frames behind the end are zeros to every one of the
convolutions, not to the first alone, so that the end has to be told: `conclude` walks five frames beyond it on a copy.

Shapes: B batch, C channels of a frame, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn

from loci.state.classifier.base import StreamClassifier
from loci.state.mixer import State

DELAY = 5  # convolutions, each of which sees one frame ahead


class Delayed(StreamClassifier):
    """Members write `classify`, `advance`, `said`, `initial_state` and `shapes`; the state's second part is (B, 2, C)."""

    @abstractmethod
    def advance(self, frame: Tensor, state: State, end: Tensor) -> State:
        """The state one frame later; what is at place `end` (B,) or behind it is not there."""

    @abstractmethod
    def said(self, state: State) -> Tensor:
        """Logits of the frames that the embedding is done with."""

    def listen(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """A frame of a stream without end."""
        never = torch.full_like(state[0], torch.iinfo(torch.int64).max)
        after = self.advance(frame, state, never)
        return self.said(after), after

    def conclude(self, state: State) -> Tensor:
        """Five frames of nothing."""
        end, nothing = state[0], state[1].new_zeros(len(state[0]), self.C)
        for _ in range(DELAY):
            state = self.advance(nothing, state, end)
        return self.said(state)


def convolutions(C: int, D: int) -> nn.ModuleList:
    """Five over three frames, with zeros on both sides: C -> D, then D -> D."""
    widths = [C, *[D] * DELAY]
    return nn.ModuleList(nn.Conv1d(before, after, 3, padding=1, bias=False) for before, after in pairwise(widths))


def convolved(conv: nn.Module, frames: Tensor) -> Tensor:
    """Three frames (B, 3, C) -> what the convolution makes of the middle one, (B, D)."""
    return torch.einsum("btc,dct->bd", frames, conv.get_parameter("weight"))


def inside(place: Tensor, end: Tensor) -> Tensor:
    """Whether a place (B,) is one of the sequence, (B, 1)."""
    return ((place >= 0) & (place < end)).unsqueeze(-1)


def embedded(state: State) -> Tensor:
    """How many frames the embedding is done with, at least 1: (B, 1)."""
    return (state[0] - DELAY).clamp(min=1).unsqueeze(-1)

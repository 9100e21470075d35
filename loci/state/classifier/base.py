"""The contract of classifiers of streams: all frames at once, or one after the other in constant memory, and the same answer.

    logits = forward(frames_1..T)                                     all at once, in training too
    s_t = step(frame_t, s_{t-1}),    logits = finish(s_T)             one after the other, in eval()

A classifier may look some frames ahead, so that `step` says what is certain so far and `finish` what it makes of the end.
`finish` may be asked at any time, and the stream goes on as if it had not been. Normalisation by batches ties rows together
in training; in `eval()` they do not mix, and rows of one batch may have begun at different times.

Shapes: B batch, T time, C channels of a frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from loci.state.mixer import State


class StreamClassifier(nn.Module, ABC):
    """Frames in, logits out. Members write `initial_state`, `classify`, `listen`, `conclude` and, for the card, `shapes`."""

    C: int  # channels of a frame
    classes: int

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state before any frame, tensors (B, ...) on the parameters' device; the first counts frames, int64 (B,)."""

    @abstractmethod
    def classify(self, frames: Tensor) -> Tensor:
        """All at once: (B, T, C) with T >= 1 -> logits (B, classes)."""

    @abstractmethod
    def listen(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One frame: (B, C) -> logits (B, classes) of what is certain so far, and the state; the given one is left alone."""

    @abstractmethod
    def conclude(self, state: State) -> Tensor:
        """Logits (B, classes) of a stream that ends here; the given state is left as it is."""

    @abstractmethod
    def shapes(self, batch: int) -> Mapping[str, float]:
        """What the names of the card's byte formula stand for at this batch size; the formula is of the state's bytes."""

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, C) -> logits (B, classes).

        ValueError for a wrong width, no frames, integer frames, or values that are not finite.
        """
        self.require_frames(frames, "(B, T, {C})")
        return self.classify(frames)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One frame (B, C) -> logits (B, classes) of what is certain so far, and the state after it.

        ValueError in training mode, for what is no frame, or for a state of another batch or model.
        """
        self.require_eval()
        self.require_frames(frame, "(B, {C})")
        self.require_state(state, len(frame))
        return self.listen(frame, state)

    def finish(self, state: State) -> Tensor:
        """The logits of `forward` on all frames so far, (B, classes); the state may be stepped on.

        ValueError in training mode, for a state of another model, or where a row has heard nothing.
        """
        self.require_eval()
        self.require_state(state, len(state[0]) if len(state) else 0)
        if not bool((state[0] > 0).all()):
            raise ValueError(
                f"rows have heard {state[0].tolist()} frames; {type(self).__name__} needs one each, so step first"
            )
        return self.conclude(state)

    def require_eval(self) -> None:
        """Refuse a stream in training mode."""
        if self.training:
            raise ValueError("one frame has no statistics of a batch to train on; call eval() before a stream")

    def require_frames(self, frames: Tensor, shape: str) -> None:
        """Refuse what is not of that shape, or no finite floats."""
        name, shape = type(self).__name__, shape.format(C=self.C)
        if frames.dim() != shape.count(",") + 1 or frames.shape[-1] != self.C:
            raise ValueError(f"frames are {tuple(frames.shape)}, {name} takes {shape} here; give that width")
        if frames.dim() == 3 and not frames.shape[1]:
            raise ValueError(f"frames are {tuple(frames.shape)}, {name} takes T >= 1; give at least one frame")
        if not frames.is_floating_point():
            kind = str(frames.dtype).removeprefix("torch.")
            raise ValueError(f"frames are {kind}, {name} takes floating-point frames; convert them first")
        if not bool(frames.isfinite().all()):
            raise ValueError("frames have values that are not finite, which would reach every later answer; clean them")

    def require_state(self, state: State, batch: int) -> None:
        """Refuse a state that is not of this model and batch."""
        want = [(batch, *part.shape[1:]) for part in self.initial_state(1)]
        got = [tuple(part.shape) for part in state]
        if want != got:
            raise ValueError(
                f"state has shapes {got}, {type(self).__name__} carries {want}; start from initial_state({batch})"
            )

"""The laws of classifiers of streams as data (`LAWS`), run over every member.

A law takes `make`; `make()` is the member with the arguments of its card. As with mixers, weights are drawn under a fixed
seed and nudged off their initial values; running statistics are those of some batches, and the member is in `eval()`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor

from loci.core import formula
from loci.core.checking import Case, Law, Make, cases, refused
from loci.state import checks
from loci.state.checks import DOUBLE, B, T, close, loss_of, row_of, saved_answers_as_before
from loci.state.classifier import classifiers
from loci.state.classifier.base import StreamClassifier
from loci.state.mixer import State, state_bytes

DTYPES = (torch.float32, DOUBLE)  # running statistics are not for half precision
LENGTHS = (1, 2, 3, 5, 6, 7, T, 37)
WARM = 10  # batches that the running statistics have seen
EXACT = 1e-9  # float64, for sums in another order
ROUNDING = 1e-9  # what is not above it is no gradient


def classifier_cases() -> Iterator[Case]:
    """Every classifier under every law."""
    classifiers()
    return cases("stream-classifier", LAWS)


def built(make: Make, dtype: torch.dtype = DOUBLE, *, seed: int = 0) -> StreamClassifier:
    """The member in a dtype and in eval, with the same weights and statistics for the same seed."""
    model = cast("StreamClassifier", checks.built(make, dtype, seed=seed))
    with torch.no_grad():
        for turn in range(WARM):
            model(2 * drawn(model, dtype, seed=100 + turn) + 0.5)
    return model.eval()


def drawn(
    model: StreamClassifier, dtype: torch.dtype = DOUBLE, *, seed: int = 1, batch: int = B, length: int = T
) -> Tensor:
    """Standard normal frames that fit the model."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, model.C, generator=random, dtype=DOUBLE).to(dtype)


@torch.no_grad()
def heard(model: StreamClassifier, frames: Tensor, state: State | None = None) -> State:
    """The state after a stream of frames."""
    state = model.initial_state(len(frames)) if state is None else state
    for frame in frames.unbind(1):
        _, state = model.step(frame, state)
    return state


def stream_is_the_whole(make: Make) -> None:
    """A stream and its end give the logits of all frames at once, also of fewer frames than are looked ahead."""
    model = built(make)
    for length in LENGTHS:
        frames = drawn(model, length=length, seed=length)
        _close(model.finish(heard(model, frames)), model(frames), f"a stream of {length} frames")


def may_be_asked_at_any_time(make: Make) -> None:
    """The end may be asked for after every frame, and the stream goes on as one that was never asked."""
    model = built(make)
    frames, asked = drawn(model), model.initial_state(B)
    quiet = heard(model, frames)
    for t in range(T):
        _, asked = model.step(frames[:, t], asked)
        _close(model.finish(asked), model(frames[:, : t + 1]), f"the end after {t + 1} of {T} frames")
        _close(model.finish(asked), model.finish(asked), "the end, asked for again", 0.0)
    close((asked[0], asked), (quiet[0], quiet), "a stream that was asked along the way", 0.0)


def rows_do_not_mix(make: Make) -> None:
    """In eval, a row of a batch is what it is alone; so in a stream, where rows may have begun at different times."""
    model = built(make)
    frames = drawn(model)
    whole = model(frames)
    alone = [heard(model, frames[row : row + 1, : 1 + 5 * row]) for row in range(B)]
    together = tuple(torch.cat(parts) for parts in zip(*alone, strict=True))
    logits, last = model.step(frames[:, -1], together)
    end = model.finish(last)
    for row, state in enumerate(alone):
        _close(model(frames[row : row + 1]), whole[row : row + 1], f"row {row} alone")
        said, after = model.step(frames[row : row + 1, -1], state)
        close((logits[row : row + 1], row_of(last, row)), (said, after), f"row {row} alone in a stream", EXACT)
        _close(end[row : row + 1], model.finish(after), f"the end of row {row} alone")


def state_bytes_are_the_formula(make: Make) -> None:
    """A state takes what the card says however long the stream, and keeps no larger storage alive."""
    for dtype in DTYPES:
        model = built(make, dtype)
        card: Any = type(model).card  # type: ignore[attr-defined]
        for batch in (1, B):
            said = formula.evaluate(card.bytes, model.shapes(batch))
            for length in (0, 1, 40):
                state = heard(model, drawn(model, dtype, batch=batch, length=length))
                where = f"after {length} frames of {batch} rows in {dtype}"
                assert state_bytes(state) == said, f"{where} {state_bytes(state)} bytes, {card.bytes} = {said}"
                storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in state}
                kept = sum(storages.values())
                assert kept <= said, f"{where} views keep {kept} bytes alive, {card.bytes} = {said}"


def what_is_given_is_left_alone(make: Make) -> None:
    """Neither frames nor the state that was given are written to, by a step, an end or a whole."""
    model = built(make)
    frames = drawn(model)
    state = heard(model, drawn(model, seed=2))
    before, frames_before = [part.clone() for part in state], frames.clone()
    calls: tuple[Callable[[], object], ...] = (
        lambda: model.step(frames[:, 0], state), lambda: model.finish(state), lambda: model(frames)
    )  # fmt: skip
    with torch.no_grad():
        for call in calls:
            call()
            same = all(torch.equal(part, old) for part, old in zip(state, before, strict=True))
            assert same, "the given state was written to"
            assert torch.equal(frames, frames_before), "the frames were written to"


def nothing_is_kept_outside_the_state(make: Make) -> None:
    """In eval, the same call gives the same answer, and leaves parameters, buffers and torch's generator as they were."""
    model = built(make)
    frames, state = drawn(model), heard(model, drawn(model, seed=2))
    saved, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    def answers() -> State:
        logits, after = model.step(frames[:, 0], state)
        return (model(frames), logits, model.finish(after))

    first = answers()
    heard(model, drawn(model, seed=7))
    again = answers()
    close((again[0], again), (first[0], first), "the same calls again", 0.0)
    assert torch.equal(torch.get_rng_state(), random), "it draws from torch's global generator"
    now = model.state_dict()
    assert all(torch.equal(now[name], old) for name, old in saved.items()), "a call changed parameters or buffers"


def gradient_reaches_every_parameter(make: Make) -> None:
    """In training, logits depend on every parameter by more than rounding, and gradients are finite."""
    model = built(make).train()
    torch.autograd.backward(loss_of(model(drawn(model, batch=8, length=60))))
    for name, param in model.named_parameters():
        if param.requires_grad:
            assert param.grad is not None, f"no gradient reaches {name}"
            assert param.grad.isfinite().all(), f"the gradient of {name} is not finite"
            assert param.grad.abs().max() > ROUNDING, f"no gradient reaches {name}"


def every_frame_is_heard(make: Make) -> None:
    """The logits of the whole depend on every frame, the first and the last too."""
    model = built(make)
    frames = drawn(model).requires_grad_()
    (back,) = torch.autograd.grad(loss_of(model(frames)), frames)
    heard_of = back.abs().sum((0, 2)) > ROUNDING
    assert heard_of.all(), f"the answer does not depend on the frames {(~heard_of).nonzero().flatten().tolist()}"


def state_dict_round_trip(make: Make) -> None:
    """Saved and loaded into one of other weights, a model answers bit for bit as before; a deep copy stands alone."""
    model = built(make)
    frames = drawn(model)
    state = heard(model, frames[:, :7])
    saved_answers_as_before(model, built(make, seed=9), lambda other: (other(frames), (other.finish(state),)))


def dtype_is_kept(make: Make) -> None:
    """Logits have the dtype of the frames and one number for each class, states the dtypes of the initial state."""
    for dtype in DTYPES:
        model = built(make, dtype)
        frames, state = drawn(model, dtype), model.initial_state(B)
        want = [part.dtype for part in state]
        assert want[0] == torch.int64, f"the first part of a state is {want[0]}, which counts frames"
        assert not state[0].any(), "an initial state has heard frames"
        for t in range(T):
            logits, state = model.step(frames[:, t], state)
            assert (state[0] == t + 1).all(), f"after {t + 1} frames the state counts {state[0].tolist()}"
        for said in (model(frames), logits, model.finish(state)):
            assert said.dtype == dtype, f"{dtype} came out as {said.dtype}"
            assert said.shape == (B, model.classes), f"logits are {tuple(said.shape)} for {model.classes} classes"
            assert said.isfinite().all(), f"logits in {dtype} are not finite"
        assert [part.dtype for part in state] == want, f"a state of {want} became {[part.dtype for part in state]}"


def stays_finite(make: Make) -> None:
    """After 300 frames, of noise or of the same value, logits and state are finite."""
    model = built(make, torch.float32)
    frames = drawn(model, torch.float32, batch=2, length=100)
    frames[1] = 1.0
    state = model.initial_state(2)
    for turn in range(3):
        state = heard(model, frames, state)
        fine = all(part.isfinite().all() for part in (model.finish(state), *state))
        assert fine, f"not finite after {100 * (turn + 1)} frames"


def bad_input_is_refused(make: Make) -> None:
    """A wrong width or dtype, no frames, a wrong state, or a value that is not finite is one ValueError that says so."""
    model = built(make)
    frames, state, width = drawn(model), heard(model, drawn(model, seed=2)), model.C
    nan, infinite = frames.clone(), frames.clone()
    nan[0, 3, 0], infinite[1, 3, 0] = torch.nan, torch.inf
    refused(lambda: model(torch.cat([frames, frames], 2)), str(2 * width), str(width))
    refused(lambda: model(frames[0]), str(tuple(frames[0].shape)))
    refused(lambda: model(frames[:, :0]), "T >= 1")
    refused(lambda: model(frames.long()), "int64")
    refused(lambda: model(nan), "not finite")
    refused(lambda: model(infinite), "not finite")
    refused(lambda: model.step(frames, state), str(tuple(frames.shape)))
    refused(lambda: model.step(torch.cat([frames, frames], 2)[:, 0], state), str(2 * width), str(width))
    refused(lambda: model.step(frames[:, 0].long(), state), "int64")
    refused(lambda: model.step(nan[:, 3], state), "not finite")
    refused(lambda: model.step(infinite[:, 3], state), "not finite")
    refused(lambda: model.step(frames[:2, 0], state), "initial_state(2)")
    refused(lambda: model.step(frames[:, 0], state[:-1]), "state")
    refused(lambda: model.finish((*state, state[0])), "state")
    refused(lambda: model.finish(()), "state")
    refused(lambda: model.finish(model.initial_state(B)), "step first")


def streams_want_eval(make: Make) -> None:
    """In training mode a step and an end are refused, and the whole is not."""
    model = built(make)
    frames, state = drawn(model), heard(model, drawn(model, seed=2))
    model.train()
    refused(lambda: model.step(frames[:, 0], state), "eval()")
    refused(lambda: model.finish(state), "eval()")
    assert model(frames).shape == (B, model.classes), "the whole is not answered in training"


def _close(got: Tensor, want: Tensor, what: str, within: float = EXACT) -> None:
    close((got, ()), (want, ()), what, within)


LAWS: tuple[Law, ...] = (
    stream_is_the_whole, may_be_asked_at_any_time, rows_do_not_mix, state_bytes_are_the_formula,
    what_is_given_is_left_alone, nothing_is_kept_outside_the_state, gradient_reaches_every_parameter, every_frame_is_heard,
    state_dict_round_trip, dtype_is_kept, stays_finite, bad_input_is_refused, streams_want_eval,
)  # fmt: skip

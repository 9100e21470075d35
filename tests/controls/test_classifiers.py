"""Broken twins: each law of classifiers of streams must catch, by name, the classifier that breaks it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.core.card import Card
from loci.core.checking import broken_by
from loci.state.classifier import checks
from loci.state.classifier.base import StreamClassifier

torch.set_num_threads(1)
CARD = Card(name="plain", kind="stream-classifier", title="", says="", bytes="b*B*2*D + 8*B", example={})


class Plain(StreamClassifier):
    """Sound: a head on the mean of leaky sums of features, which are normalised by batches in training."""

    card = CARD

    def __init__(self, C=3, D=4, classes=5):
        super().__init__()
        self.C, self.classes, self.D = C, classes, D
        self.inward, self.norm, self.head = nn.Linear(C, D, bias=False), nn.BatchNorm1d(D), nn.Linear(D, classes)

    def initial_state(self, batch):
        zeros = self.head.weight.new_zeros(batch, self.D)
        return (torch.zeros(batch, dtype=torch.int64), zeros, zeros.clone())

    def shapes(self, batch):
        return {"b": self.head.weight.element_size(), "B": batch, "D": self.D}

    def features(self, frames):
        return self.norm(self.inward(frames).flatten(0, -2)).view(*frames.shape[:-1], self.D)

    def classify(self, frames):
        h, total = 0.0, 0.0
        for x in self.features(frames).unbind(1):
            h = h / 2 + x
            total = total + h
        return self.head(total / frames.shape[1])

    def listen(self, frame, state):
        seen, h, total = state
        h = h / 2 + self.features(frame)
        after = (seen + 1, h, total + h)
        return self.conclude(after), after

    def conclude(self, state):
        return self.head(state[2] / state[0].unsqueeze(1))


class Hasty(Plain):
    """Answers a stream by its last frames."""

    def conclude(self, state):
        return self.head(state[1])


class Late(Plain):
    """Leaves out the last frame at the end of a stream, as one would that looks ahead and does not say so."""

    def conclude(self, state):
        return self.head((state[2] - state[1]) / state[0].unsqueeze(1))


class Spent(Plain):
    """Is not the same once it was asked for the end, but for the first time."""

    asked = False

    def finish(self, state):
        self.asked = True
        return super().finish(state)

    def listen(self, frame, state):
        seen, h, total = state
        again = (seen, h * 0, total) if self.asked else state
        self.asked = False
        return super().listen(frame, again)


class Social(Plain):
    """Subtracts the mean of the batch."""

    def classify(self, frames):
        logits = super().classify(frames)
        return logits - logits.mean(0)


class Lockstep(Plain):
    """Takes all rows of a stream for as old as the first."""

    def conclude(self, state):
        return self.head(state[2] / state[0][0])


class Wide(Plain):
    """Carries twice what its card says."""

    def initial_state(self, batch):
        return (*super().initial_state(batch), self.head.weight.new_zeros(batch, 2 * self.D))

    def listen(self, frame, state):
        logits, after = super().listen(frame, state[:3])
        return logits, (*after, state[3])

    def conclude(self, state):
        return super().conclude(state[:3])


class Viewing(Plain):
    """Keeps what it has made along the way alive."""

    def listen(self, frame, state):
        logits, (seen, h, total) = super().listen(frame, state)
        both = torch.cat([h, total, h], 1)
        return logits, (seen, both[:, : self.D], both[:, self.D : 2 * self.D])


class Writing(Plain):
    """Writes into the state it was given."""

    def listen(self, frame, state):
        logits, after = super().listen(frame, state)
        with torch.no_grad():
            state[1].copy_(after[1])
        return logits, after


class Closing(Plain):
    """Writes into the state whose end it was asked for."""

    def finish(self, state):
        logits = super().finish(state)
        with torch.no_grad():
            state[1].zero_()
        return logits


class Scrubbing(Plain):
    """Writes into the frames."""

    def classify(self, frames):
        logits = super().classify(frames)
        with torch.no_grad():
            frames[:, 0] = 0
        return logits


class Counting(Plain):
    """Keeps count outside its state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def listen(self, frame, state):
        self.calls.add_(1)
        return super().listen(frame, state)


class Dicing(Plain):
    """Draws from torch's generator."""

    def classify(self, frames):
        torch.rand(1)
        return super().classify(frames)


class Idle(Plain):
    """Has a weight that does nothing."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Parameter(torch.ones(2))


class Cancelled(Plain):
    """Has a bias before its normalisation."""

    def __init__(self):
        super().__init__()
        self.inward = nn.Linear(self.C, self.D)


class Impatient(Plain):
    """Hears nothing of the last frame, in the whole."""

    def classify(self, frames):
        return super().classify(torch.cat([frames[:, :-1], frames[:, -1:] * 0], 1))


class Forgetful(Plain):
    """Draws a number that is not saved."""

    def __init__(self):
        super().__init__()
        self.scale = float(torch.rand(()))

    def classify(self, frames):
        return super().classify(frames) * self.scale


class Shared(Plain):
    """Its copy is itself."""

    def __deepcopy__(self, memo):
        return self


class Single(Plain):
    """Says all in float32."""

    def classify(self, frames):
        return super().classify(frames).float()


class Promoting(Plain):
    """Carries what it carries on in float64."""

    def listen(self, frame, state):
        logits, (seen, h, total) = super().listen(frame, (state[0], state[1], state[2].to(self.head.weight.dtype)))
        return logits, (seen, h, total.double())

    def conclude(self, state):
        return super().conclude((state[0], state[1], state[2].to(self.head.weight.dtype)))


class Swelling(Plain):
    """Doubles in place of halving."""

    def listen(self, frame, state):
        seen, h, total = state
        return super().listen(frame, (seen, 4 * h, total))


class Trusting(Plain):
    """Takes whatever it is given."""

    def require_frames(self, frames, shape):
        pass


class Mistaking(Plain):
    """Takes whatever state it is given."""

    def require_state(self, state, batch):
        pass


class Careless(Plain):
    """Runs a stream in training mode."""

    def require_eval(self):
        pass


TWINS = {
    "stream_is_the_whole": (Hasty, Late),
    "may_be_asked_at_any_time": (Spent,),
    "rows_do_not_mix": (Social, Lockstep),
    "state_bytes_are_the_formula": (Wide, Viewing),
    "what_is_given_is_left_alone": (Writing, Closing, Scrubbing),
    "nothing_is_kept_outside_the_state": (Counting, Dicing),
    "gradient_reaches_every_parameter": (Idle, Cancelled),
    "every_frame_is_heard": (Impatient,),
    "state_dict_round_trip": (Forgetful, Shared),
    "dtype_is_kept": (Single, Promoting),
    "stays_finite": (Swelling,),
    "bad_input_is_refused": (Trusting, Mistaking),
    "streams_want_eval": (Careless,),
}


def test_every_law_has_a_twin():
    assert set(TWINS) == {law.__name__ for law in checks.LAWS}


@pytest.mark.parametrize("law", checks.LAWS, ids=lambda law: law.__name__)
def test_the_sound_one_keeps_the_law(law):
    law(Plain)


@pytest.mark.parametrize(
    ("law", "twin"),
    [(law, twin) for law in checks.LAWS for twin in TWINS[law.__name__]],
    ids=lambda part: getattr(part, "__name__", str(part)),
)
def test_a_twin_is_caught(law, twin):
    assert broken_by(law, twin), f"{law.__name__} does not catch {twin.__name__}"


def test_only_the_asking_spends_it():
    """Asked once, at the end, that twin is sound, so that one law cannot stand for the other."""
    checks.stream_is_the_whole(Spent)

"""Broken twins: each law of mixers must catch, by name, the mixer that breaks it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.core.checking import broken_by
from loci.state import checks
from loci.state.elman import Elman
from loci.state.lstm_no_forget import NoForgetLSTM
from loci.state.mixer import Mixer
from loci.state.recurrent import Recurrent

torch.set_num_threads(1)


class Plain(Elman):
    """Sound: Elman's units, scanned moment by moment."""

    scan = Recurrent.scan

    def activation(self, drive):
        return torch.tanh(drive)

    def advance(self, driven, state):
        h = self.activation(driven + self.recurrent(state[0]))
        return h, (h,)


class Hurried(Plain):
    """Scans from an empty state, whichever was given."""

    def scan(self, x, state):
        return super().scan(x, self.initial_state(len(x)))


class Amnesiac(Plain):
    """Hands an empty state on."""

    def forward(self, x, state=None, *, reset=None):
        return super().forward(x, state, reset=reset)[0], self.initial_state(len(x))


class Centred(Plain):
    """Subtracts the mean over time, so that the future is in the present."""

    def scan(self, x, state):
        return super().scan(x - 1e-4 * x.mean(1, keepdim=True), state)


class Prescient(Plain):
    """Adds what its steps will be to what they are."""

    def scan_by_steps(self, x, state):
        y, last = super().scan_by_steps(x, state)
        return y + 1e-9 * y.sum(1, keepdim=True), last


class Deaf(Plain):
    """Hears nothing: causal in the way of a stone."""

    def scan(self, x, state):
        return super().scan(torch.zeros_like(x), state)


class Social(Plain):
    """Subtracts the mean of the batch."""

    def activation(self, drive):
        return super().activation(drive - drive.mean(0))


class Late(Plain):
    """Starts afresh one moment after it was told to."""

    def scan_with_resets(self, x, state, reset):
        return super().scan_with_resets(x, state, reset.roll(1, 1))


class Wholesale(Plain):
    """Resets all rows when one is reset."""

    def scan_with_resets(self, x, state, reset):
        return super().scan_with_resets(x, state, reset.any(0).expand_as(reset))


class Nostalgic(Plain):
    """Forgets what it knew and keeps the gradient to it."""

    def scan_with_resets(self, x, state, reset):
        out = []
        for t in range(x.shape[1]):
            keep = (~reset[:, t]).to(x.dtype).unsqueeze(1)
            state = (keep * state[0] + (1 - keep) * (state[0] - state[0].detach()),)
            y, state = self.step(x[:, t], state)
            out.append(y)
        return torch.stack(out, 1), state


class Hoarding(Plain):
    """Hands on a view of all the states that ever were."""

    def scan(self, x, state):
        y, (h,) = super().scan(x, state)
        return y, (h.new_zeros(x.shape[1], *h.shape).add(h)[-1],)


class Generous(Plain):
    """Keeps a spare of its state."""

    parts = 2

    def advance(self, driven, state):
        h, _ = super().advance(driven, state[:1])
        return h, (h, state[1] + h)


class Scribbling(Plain):
    """Saves an allocation: writes the new state over the old."""

    def advance(self, driven, state):
        h, _ = super().advance(driven, state)
        with torch.no_grad():
            state[0].copy_(h)
        return h, (h,)


class Tiring(Plain):
    """Counts its calls and speaks lower with each."""

    turns = 0

    def scan(self, x, state):
        self.turns += 1
        y, last = super().scan(x, state)
        return y / self.turns, last


class Dicey(Plain):
    """Draws from the global generator."""

    def scan(self, x, state):
        torch.rand(())
        return super().scan(x, state)


class Learning(Plain):
    """Changes its weights as it speaks."""

    def scan(self, x, state):
        with torch.no_grad():
            self.readout.bias.add_(1e-3)
        return super().scan(x, state)


class Idle(Plain):
    """Has a parameter that does nothing."""

    def __init__(self, D, n):
        super().__init__(D, n)
        self.spare = nn.Parameter(torch.ones(3))


class Cut(Plain):
    """Takes the given state without its gradient."""

    def scan(self, x, state):
        return super().scan(x, tuple(part.detach() for part in state))


class Truncated(NoForgetLSTM):
    """Scans under truncated gradients, steps under whole ones."""

    def scan(self, x, state):
        out = []
        for moment in x.unbind(1):
            y, state = self.step(moment, (state[0].detach(), state[1]))
            out.append(y)
        return torch.stack(out, 1), state


class Private(Plain):
    """Draws a scale that its state dict does not know."""

    def __init__(self, D, n):
        super().__init__(D, n)
        self.loudness = 1 + float(torch.rand(()))

    def emit(self, out):
        return super().emit(out) * self.loudness


class Siamese(Plain):
    """Its copy is itself."""

    def __deepcopy__(self, memo):
        return self


class Upcasting(Plain):
    """Answers in float32, whatever it was asked in."""

    def emit(self, out):
        return super().emit(out).float()


class Widening(Plain):
    """Carries its state in float64 once it has begun."""

    def advance(self, driven, state):
        h, _ = super().advance(driven, (state[0].to(driven.dtype),))
        return h, (h.double(),)


class Exploding(Plain):
    """Grows by two hundredths a moment."""

    def __init__(self, D, n):
        super().__init__(D, n)
        with torch.no_grad():
            self.recurrent.weight.copy_(1.02 * torch.eye(n))

    def activation(self, drive):
        return drive


class Starting(Plain):
    """Starts afresh when it hears nothing."""

    def forward(self, x, state=None, *, reset=None):
        return super().forward(x, state if x.shape[1] else None, reset=reset)


class Tolerant(Plain):
    """Takes anything, and fails on it later or never."""

    def require(self, x, state, reset=None):
        return


class Trusting(Plain):
    """Looks at shapes and not at values."""

    def require(self, x, state, reset=None):
        super().require(x.nan_to_num(), state, reset)


class Compiled(Plain):
    """Is another network once it is compiled."""

    def emit(self, out):
        return super().emit(out) * (1.01 if torch.compiler.is_compiling() else 1)


class Strict(Plain):
    """Adds into a buffer of the state's dtype, which autocast's products do not have."""

    def advance(self, driven, state):
        whole = torch.zeros_like(state[0]).index_add(0, torch.arange(len(driven)), driven)
        return super().advance(whole, state)


class Rounding(Plain):
    """Takes what autocast made half precise for a sign that little matters."""

    def activation(self, drive):
        return super().activation(drive if drive.dtype != torch.bfloat16 else drive.round())


SMALL = {"D": 4, "n": 6}
TWINS: list[tuple[object, type[Mixer]]] = [
    (checks.scan_is_the_steps, Hurried),
    (checks.splits_anywhere, Amnesiac),
    (checks.is_causal, Centred),
    (checks.is_causal, Prescient),
    (checks.is_causal, Deaf),
    (checks.rows_do_not_mix, Social),
    (checks.reset_starts_afresh, Late),
    (checks.reset_starts_afresh, Wholesale),
    (checks.reset_starts_afresh, Nostalgic),
    (checks.state_bytes_are_the_formula, Hoarding),
    (checks.state_bytes_are_the_formula, Generous),
    (checks.what_is_given_is_left_alone, Scribbling),
    (checks.nothing_is_kept_outside_the_state, Tiring),
    (checks.nothing_is_kept_outside_the_state, Dicey),
    (checks.nothing_is_kept_outside_the_state, Learning),
    (checks.gradient_reaches_every_parameter, Idle),
    (checks.gradient_reaches_every_parameter, Cut),
    (checks.scan_gradients_are_those_of_steps, Truncated),
    (checks.state_dict_round_trip, Private),
    (checks.state_dict_round_trip, Siamese),
    (checks.dtype_is_kept, Upcasting),
    (checks.dtype_is_kept, Widening),
    (checks.stays_finite, Exploding),
    (checks.no_moments_give_the_state_back, Starting),
    (checks.bad_input_is_refused, Tolerant),
    (checks.bad_input_is_refused, Trusting),
    (checks.runs_under_compile, Compiled),
    (checks.runs_under_autocast, Strict),
    (checks.runs_under_autocast, Rounding),
]


@pytest.mark.parametrize(("law", "twin"), TWINS, ids=lambda part: part.__name__)
def test_the_law_catches_its_broken_twin(law, twin) -> None:
    assert broken_by(law, lambda: twin(**SMALL)), f"{law.__name__} lets {twin.__name__} pass"


def test_every_law_has_a_twin() -> None:
    assert {law for law, _ in TWINS} == set(checks.LAWS)


@pytest.mark.parametrize("law", checks.LAWS, ids=lambda law: law.__name__)
def test_the_twins_parents_keep_every_law(law) -> None:
    for parent in {twin.__mro__[1] for _, twin in TWINS}:
        assert not broken_by(law, lambda parent=parent: parent(**SMALL)), (law.__name__, parent.__name__)


def test_a_truncated_scan_is_caught_by_its_gradients_alone() -> None:
    assert not broken_by(checks.scan_is_the_steps, lambda: Truncated(**SMALL))


def test_a_hoarded_state_is_caught_by_its_storage_alone() -> None:
    assert not broken_by(checks.scan_is_the_steps, lambda: Hoarding(**SMALL))

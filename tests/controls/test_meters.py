"""Broken twins: each law of meters must catch, by name, the meter that breaks it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from dataclasses import replace

from loci.budget import meter_checks as checks
from loci.budget.energy.meter import Energy
from loci.core.checking import broken_by
from loci.core.meter import Reading
from loci.state.lyapunov import Lyapunov

torch.set_num_threads(1)


class Nameless(Energy):
    """Gives a number and no unit."""

    def read(self, run):
        return replace(super().read(run), unit="")


class Bare(Energy):
    """Gives the number alone."""

    def read(self, run):
        return super().read(run).value


class Scribbling(Lyapunov):
    """Runs the recurrence in the tensor that it was given."""

    def read(self, step, inputs, state):
        reading = super().read(step, inputs, state)
        state[0].add_(1.0)
        return reading


class Touching(Lyapunov):
    """Scales a weight that the step has closed over, and scales it back, which rounds."""

    def read(self, step, inputs, state):
        (weight,) = [part for part in checks.parts_of(step) if part.ndim == 2]
        weight.mul_(3).div_(3)
        return super().read(step, inputs, state)


class Adding(Energy):
    """Counts on from the last reading."""

    total = 0.0

    def read(self, run):
        self.total += super().read(run).value
        return Reading(self.total, "kWh", "computed")


class Stuck(Energy):
    """Always reads the same."""

    def read(self, run):
        return replace(super().read(run), value=1.0)


class Swallowing(Energy):
    """Takes an error of the run for its end."""

    def read(self, run):
        def quiet():
            try:
                run()
            except Exception:
                pass

        return super().read(quiet)


class Renaming(Energy):
    """Raises an error of its own in place of the run's."""

    def read(self, run):
        try:
            return super().read(run)
        except checks.Interruption as error:
            raise RuntimeError("the run failed") from error


class Jamming(Energy):
    """Adds to every reading while a run is under way, and forgets to stop when the run fails."""

    extra = 0.0

    def read(self, run):
        def flagged():
            self.extra += 1.0
            run()
            self.extra -= 1.0

        reading = super().read(flagged)
        return replace(reading, value=reading.value + self.extra)


class Sharing(Energy):
    """Keeps its samples where all meters keep theirs."""

    last: list[float] = []

    def read(self, run):
        def marked():
            run()
            self.last[:] = [*self.last, self.clock()]

        self.last.clear()
        super().read(marked)
        return Reading(self.joules() * len(self.last), "J", "computed")


class Hoarding(Lyapunov):
    """Keeps every reading."""

    def read(self, step, inputs, state):
        reading = super().read(step, inputs, state)
        self.past = [*getattr(self, "past", []), self.growth]
        return reading


class Viewing(Lyapunov):
    """Keeps a view of all steps and calls it those after the warm-up."""

    def read(self, step, inputs, state):
        reading = super().read(step, inputs, state)
        self.growth = torch.cat([torch.zeros(self.warmup, dtype=torch.float64), self.growth])[self.warmup :]
        return reading


class Dicey(Lyapunov):
    """Draws its tangent from the global generator."""

    def read(self, step, inputs, state):
        self.seed = int(torch.randint(1000, ()))
        return super().read(step, inputs, state)


SIMULATED = {"sources": ["simulated:100"], "every": None}
WARM = {"warmup": 4}
TWINS: list[tuple[Any, type, dict[str, Any]]] = [
    (checks.readings_have_unit_and_how, Nameless, SIMULATED),
    (checks.readings_have_unit_and_how, Bare, SIMULATED),
    (checks.the_subject_is_left_as_it_was, Scribbling, WARM),
    (checks.the_subject_is_left_as_it_was, Touching, WARM),
    (checks.same_subject_same_reading, Adding, SIMULATED),
    (checks.other_subjects_read_otherwise, Stuck, SIMULATED),
    (checks.errors_of_the_subject_pass_through, Swallowing, SIMULATED),
    (checks.errors_of_the_subject_pass_through, Renaming, SIMULATED),
    (checks.errors_of_the_subject_pass_through, Jamming, SIMULATED),
    (checks.nested_readings_are_their_own, Sharing, SIMULATED),
    (checks.held_bytes_are_the_formula, Hoarding, WARM),
    (checks.held_bytes_are_the_formula, Viewing, WARM),
    (checks.global_randomness_is_left_alone, Dicey, WARM),
]


@pytest.mark.parametrize(("law", "twin", "example"), TWINS, ids=lambda part: getattr(part, "__name__", ""))
def test_the_law_catches_its_broken_twin(law, twin, example) -> None:
    assert broken_by(law, partial(twin, **example)), f"{law.__name__} lets {twin.__name__} pass"


def test_every_law_has_a_twin_and_every_sound_parent_keeps_it() -> None:
    assert {law for law, _, _ in TWINS} == set(checks.LAWS)
    for law, twin, example in TWINS:
        parent = twin.__mro__[1]
        assert not broken_by(law, partial(parent, **example)), (law, parent)

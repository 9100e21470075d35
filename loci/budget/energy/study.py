"""A study: modes of training run by turns, each run measured whole, compared with the run as the unit.

Modes take turns within every block and the first of them changes from block to block, so that a machine that warms up
favours none; warm-up blocks are run and thrown away. Watts, energy, seconds and accuracy stand side by side.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from loci.budget.energy.compare import Comparison, Test, anova, compare
from loci.budget.energy.meter import Energy
from loci.core.meter import How, Reading

Measure: TypeAlias = Literal["kwh", "watts", "seconds", "score", "wall"]
MEASURES: tuple[Measure, ...] = ("kwh", "watts", "seconds", "score")
Train: TypeAlias = Callable[[int], float]  # a seed -> accuracy, or any other score


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run: the mode, the block that it ran in, and what it took and gave."""

    mode: str
    block: int
    kwh: float  # above idle
    watts: float  # idle included
    seconds: float
    score: float
    wall: float | None = None  # watts read by hand off a meter in the wall


@dataclass(frozen=True, slots=True)
class Study:
    """The runs of all modes, in the order in which they ran; the first mode is what the others are held against."""

    modes: tuple[str, ...]
    runs: tuple[Run, ...]
    how: How

    def of(self, mode: str, measure: Measure) -> list[float]:
        """One measure of every run of a mode, by block."""
        runs = sorted((run for run in self.runs if run.mode == mode), key=lambda run: run.block)
        if not runs:
            raise ValueError(f"mode={mode!r} did not run; choose one of {', '.join(self.modes)}")
        values = [getattr(run, measure) for run in runs]
        if None in values:
            raise ValueError(f"measure={measure!r} is missing for runs of {mode!r}; give it by walled(watts)")
        return [float(value) for value in values]

    def walled(self, watts: Sequence[float]) -> Study:
        """The study with watts that were read by hand off a meter in the wall, one a run in the order of the runs."""
        if len(watts) != len(self.runs):
            raise ValueError(f"{len(watts)} watts for {len(self.runs)} runs; give one a run")
        walled = (replace(run, wall=value) for run, value in zip(self.runs, watts, strict=True))
        return replace(self, runs=tuple(walled))

    def compare(self, one: str, other: str, measure: Measure = "kwh", *, alpha: float = 0.05) -> Comparison:
        """The other mode against the one."""
        return compare(self.of(one, measure), self.of(other, measure), alpha=alpha, paired=True)

    def anova(self, measure: Measure = "kwh") -> Test:
        """Whether any mode differs."""
        return anova(*(self.of(mode, measure) for mode in self.modes))

    def table(self, *, grid: float, pue: float = 1.0, alpha: float = 0.05) -> str:
        """Mean and standard deviation by mode, and every mode against the first."""
        first, *rest = self.modes
        lines = [f"{'mode':<12}{'runs':>5}{'W':>18}{'Wh above idle':>22}{'g CO2e':>12}{'s':>18}{'score':>18}"]
        for mode in (first, *rest):
            watts, wh, seconds, score = (self.of(mode, name) for name in ("watts", "kwh", "seconds", "score"))
            wh = [1000 * value for value in wh]
            grams = statistics.fmean(wh) * grid * pue
            lines.append(
                f"{mode:<12}{len(watts):>5}{_spread(watts):>18}{_spread(wh):>22}{grams:>12.4g}"
                f"{_spread(seconds):>18}{_spread(score):>18}"
            )
        for mode in rest:
            for measure in (*MEASURES, *(("wall",) if self.runs[0].wall is not None else ())):
                found = self.compare(first, mode, measure, alpha=alpha)
                lines.append(
                    f"{mode} against {first}, {measure}: {found.difference:+.4g} [{found.low:.4g}, {found.high:.4g}], "
                    f"g = {found.effect:.2f}, p = {found.welch.p:.3g}: {found.verdict}"
                )
        return "\n".join([*lines, f"energy is {self.how}; intervals cover {1 - alpha:.0%}; the unit is the run"])


def study(modes: Mapping[str, Train], meter: Energy, *, repeats: int = 5, warmup: int = 1, seed: int = 0) -> Study:
    """Run every mode `repeats` times by turns. All modes of a block get the same seed, and each block another.

    >>> meter = Energy(["simulated:100"], every=None)
    >>> def train(seconds):
    ...     return lambda seed: meter.clock.tick(seconds) or 0.9
    >>> found = study({"fp32": train(36.0), "mixed": train(36.0)}, meter, repeats=2)
    >>> [run.mode for run in found.runs], found.compare("fp32", "mixed").verdict
    (['mixed', 'fp32', 'fp32', 'mixed'], 'not significant')
    """
    if not modes or repeats < 2 or warmup < 0:
        raise ValueError(
            f"{len(modes)} modes, repeats={repeats}, warmup={warmup}: give a mode, 2 repeats or more, warmup >= 0"
        )
    runs, how = [], set[How]()
    for block in range(warmup + repeats):
        for mode in turn(list(modes), block):
            run, reading = _measured(mode, modes[mode], meter, seed=seed, block=block)
            how.add(reading.how)
            if block >= warmup:
                runs.append(run)
    return Study(tuple(modes), tuple(runs), how.pop())


def _measured(mode: str, train: Train, meter: Energy, *, seed: int, block: int) -> tuple[Run, Reading]:
    scores: list[float] = []
    reading = meter.read(lambda: scores.append(train(seed + block)))
    run = Run(
        mode=mode, block=block, kwh=reading.value, watts=meter.watts(), seconds=meter.seconds(), score=scores[0]
    )  # fmt: skip
    return run, reading


def turn(modes: Sequence[str], block: int) -> list[str]:
    """The order of a block: another mode first each time, so that over as many blocks each stands at each place once.

    >>> turn(["a", "b", "c"], 1)
    ['b', 'c', 'a']
    """
    start = block % len(modes)
    return [*modes[start:], *modes[:start]]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.4g} ± {statistics.stdev(values):.2g}"

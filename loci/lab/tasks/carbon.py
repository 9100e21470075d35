"""Studies of energy on a simulated machine: two modes, a few runs each, noise between runs and within them.

A run's mean power lies sd watts about its mode's; within a run power wanders as an autoregression of lag one, as
temperature and load do, so its samples are far from independent. Every run is read by the energy meter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loci.budget.energy.compare import welch
from loci.budget.energy.meter import Energy
from loci.budget.energy.source import Simulated
from loci.budget.energy.study import turn
from loci.core.rng import generator
from loci.lab.claim import Evidence

SAMPLES, SD, WITHIN, MEMORY = 24, 5.0, 2.0, 0.9
UNIT = "percent of studies of two equal modes that call them different"


@dataclass(frozen=True, slots=True)
class Outcome:
    """p values of one study: with the run as the unit, and with the sample as the unit."""

    by_run: float
    by_sample: float
    bytes: int  # samples kept of one run


class Machine:
    """A machine whose power is set by the run under way."""

    def __init__(self, seed: int) -> None:
        self.random = generator(seed, "carbon")
        self.now = 0.0
        self.simulated = Simulated(lambda at: self.now)
        self.meter = Energy([self.simulated], every=None)

    def run(self, watts: float) -> None:
        """24 seconds of work, sampled once a second."""
        level = self.random.normal(watts, SD)
        shocks = self.random.normal(0.0, WITHIN * (1 - MEMORY**2) ** 0.5, SAMPLES).tolist()
        wander = self.random.normal(0.0, WITHIN)
        for shock in shocks:
            wander = MEMORY * wander + shock
            self.now = level + wander
            self.meter.sample()
            self.simulated.clock.tick(1.0)

    def study(self, gap: float, *, runs: int = 5) -> Outcome:
        """Two modes by turns, the second at `gap` watts less."""
        watts: dict[str, list[float]] = {"fp32": [], "mixed": []}
        samples: dict[str, list[float]] = {"fp32": [], "mixed": []}
        for block in range(runs):
            for mode in turn(list(watts), block):
                self.meter.read(lambda mode=mode: self.run(200.0 - gap * (mode == "mixed")))  # type: ignore[misc]
                watts[mode].append(self.meter.watts())
                samples[mode].extend(self.meter.traces["simulated"].values[1:-1].tolist())
        kept = self.meter.traces["simulated"].nbytes
        return Outcome(welch(*watts.values()).p, welch(*samples.values()).p, kept)


def found(seed: int, *, gap: float, unit: str, studies: int = 2000) -> Evidence:
    """Percent of studies that find a difference at 0.05, by runs or by samples."""
    machine = Machine(seed)
    outcomes = [machine.study(gap) for _ in range(studies)]
    p = np.array([outcome.by_run if unit == "run" else outcome.by_sample for outcome in outcomes])
    return Evidence(float((p < 0.05).mean() * 100), UNIT, outcomes[0].bytes)

"""Energy of a run in kWh, and its carbon: sensors sampled from start to end, less what an idle machine would use.

    E = sum over sensors of integral (P - P_idle) dt / 3.6e6,        CO2e = E * PUE * grid

Paper: Antonopoulos, "Improve Machine Learning carbon footprint using Nvidia GPU and Mixed Precision training for
classification models -- Part I", arXiv:2409.07853.
Differs: the paper compares mean watts and reads its wattmeter by hand; here the run is integrated, and watts stand
beside. Without a sensor CPU time stands in and is called an estimate.
Keeps: 16*S bytes for S samples of all sensors, of the last reading.

>>> meter = Energy(["simulated:100"], every=None)
>>> reading = meter.read(lambda: meter.clock.tick(36.0))
>>> reading.value, reading.unit, reading.how
(0.001, 'kWh', 'computed')
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loci.budget.energy.sampler import Samples, recorded
from loci.budget.energy.source import Source, opened
from loci.budget.energy.trace import KWH, Trace, carbon
from loci.core.card import method
from loci.core.clock import FixedClock
from loci.core.meter import How, Reading

_TRUST: tuple[How, ...] = ("measured", "estimated", "computed")  # the least of several counts


@method(
    name="mixed-precision-carbon",
    kind="meter",
    title="Improve Machine Learning carbon footprint using Nvidia GPU and Mixed Precision training",
    paper="arXiv:2409.07853",
    says="energy of a run above an idle machine, with its watts, seconds and carbon, from NVML, RAPL or CPU time",
    bytes="16*S",
    example={"sources": ["simulated:100"], "every": None},
)
class Energy:
    """Reads what a call of no arguments costs, in kWh. `every` is the pause between samples in seconds.

    `every=None` samples at the start, at the end and at each `sample()`, which is exact for sensors that count. NVML
    averages over about a second and samples of it are not independent, so let a run last 10 s or more: repeat short ones.
    """

    def __init__(
        self, sources: Sequence[Source | str], *, every: float | None = 0.1, idle: Mapping[str, float] | None = None
    ) -> None:
        if every is not None and not every > 0:
            raise ValueError(f"every={every} is no pause; give seconds above 0, or None to sample by hand")
        self.sources = opened(sources)
        self.clock: Any = self.sources[0].clock  # they share it
        self.every = every
        self.idle = dict(idle or {})  # watts by sensor
        if strange := sorted(self.idle.keys() - {source.name for source in self.sources}):
            raise ValueError(
                f"idle names {strange}, sensors are {[source.name for source in self.sources]}; use their names"
            )
        self.traces: dict[str, Trace] = {}  # of the last reading
        self._running: list[Samples] = []

    def read(self, run: Callable[[], object]) -> Reading:
        """Energy of one call, above idle."""
        with recorded(self.sources, every=self.every) as samples:
            self._running.append(samples)
            try:
                run()
            finally:
                self._running.remove(samples)
        self.traces = samples.traces()
        return Reading(self.joules() / KWH, "kWh", max((source.how for source in self.sources), key=_TRUST.index))

    def sample(self) -> None:
        """Sample now, for every reading that is under way; called from within a run."""
        for samples in self._running:
            samples.sample()

    def rest(self, seconds: float, *, wait: Callable[[float], object] = time.sleep) -> dict[str, float]:
        """Wait and take the mean watts meanwhile for those of an idle machine."""
        with recorded(self.sources, every=self.every) as samples:
            wait(seconds)
        if any(trace.duration == 0 for trace in samples.traces().values()):
            raise ValueError(
                f"no time went by in rest({seconds}); give seconds above 0, and a wait that lets the clock run"
            )
        self.idle = {name: trace.watts() for name, trace in samples.traces().items()}
        return self.idle

    def joules(self) -> float:
        """Energy of the last reading, above idle."""
        return sum(trace.joules(idle=self.idle.get(name, 0.0)) for name, trace in self._last().items())

    def watts(self) -> float:
        """Mean power of the last reading over all sensors, idle power included."""
        return sum(trace.watts() for trace in self._last().values())

    def seconds(self) -> float:
        """Duration of the last reading."""
        return max(trace.duration for trace in self._last().values())

    def carbon(self, *, grid: float, pue: float = 1.0) -> float:
        """Kilograms of CO2e of the last reading; `grid` is the kilograms per kWh where the machine stands."""
        return carbon(self.joules(), grid=grid, pue=pue)

    def shapes(self) -> dict[str, int]:
        """S, the samples of all sensors that are kept."""
        return {"S": sum(len(trace.seconds) for trace in self.traces.values())}

    def draw(self, seed: int) -> tuple[Callable[[], object]]:
        """A run: on a simulated machine some quarters of a second, else some work for the CPU."""
        turns = random.Random(seed).randrange(20, 200)  # noqa: S311 - a subject, not a secret
        if isinstance(clock := self.clock, FixedClock):
            return (lambda: clock.tick(turns / 4),)
        return (lambda: sum(range(turns * 1000)),)

    def _last(self) -> dict[str, Trace]:
        if not self.traces:
            raise ValueError("nothing was read yet; call read(run) first")
        return self.traces

"""Sources of power behind one small protocol, and the ones that every machine has: CPU time, and a simulated machine.

A source either reads watts now or counts joules since it was opened. `source("rapl")` opens one by its word.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from loci.core.clock import Clock, FixedClock
from loci.core.meter import How

Watts = Callable[[float], float]


class Source(Protocol):
    """One sensor, and the clock by which it is read."""

    name: str
    how: How
    counts: bool  # whether a value is joules since opening; else it is watts now

    @property
    def clock(self) -> Clock:
        """The clock that its values belong to."""

    def value(self, at: float) -> float:
        """Watts or joules at this moment of the clock; sensors of a real machine know no moment but now."""


class CPUTime:
    """CPU seconds of this process and of its finished children, times a stated power per core: an estimate.

    An idle process uses no CPU time, so its idle baseline is 0. `watts` is the thermal design power of the package.

    >>> cpu = CPUTime(65.0, cores=10)
    >>> cpu.value(0.0) < cpu.value(0.0) + sum(range(1000))
    True
    """

    name = "cpu-time"
    how: How = "estimated"
    counts = True
    clock: Clock = staticmethod(time.monotonic)

    def __init__(self, watts: float, *, cores: int | None = None) -> None:
        cores = os.cpu_count() if cores is None else cores
        if not watts > 0 or not cores or cores < 1:
            raise ValueError(f"watts={watts}, cores={cores}: give the power of a package, above 0, and its cores")
        self._per_second = watts / cores
        self._start = self._seconds()

    @staticmethod
    def _seconds() -> float:
        return sum(os.times()[:4])

    def value(self, at: float) -> float:
        """Joules since opening."""
        return self._per_second * (self._seconds() - self._start)


class Simulated:
    """A machine whose power is a function of its own time, which moves only when told to.

    >>> machine = Simulated(100.0)
    >>> machine.clock.tick(36.0); machine.value(machine.clock())
    100.0
    """

    name = "simulated"
    how: How = "computed"
    counts = False

    def __init__(self, watts: float | Watts) -> None:
        self.clock = FixedClock()
        self._watts: Watts = watts if callable(watts) else lambda at: watts

    def value(self, at: float) -> float:
        """Watts at this moment."""
        return self._watts(at)


def source(word: str) -> Source:
    """Open a source: "nvml" or "nvml:1" (a GPU), "rapl", "cpu:65" (package watts), "simulated:100" (constant watts).

    >>> source("simulated:100").value(0.0)
    100.0
    """
    found = re.fullmatch(r"(nvml|rapl)(?::(\d+))?|(cpu|simulated):(\d+(?:\.\d+)?)W?", word)
    if not found:
        raise ValueError(f"source={word!r} is unknown; give 'nvml', 'nvml:1', 'rapl', 'cpu:65' or 'simulated:100'")
    if found[3]:
        return CPUTime(float(found[4])) if found[3] == "cpu" else Simulated(float(found[4]))
    from loci.budget.energy import sensors

    return sensors.NVML(int(found[2] or 0)) if found[1] == "nvml" else sensors.RAPL(package=int(found[2] or 0))


def opened(sources: Sequence[Source | str]) -> tuple[Source, ...]:
    """Open those given by word; all must have names of their own and one clock."""
    if isinstance(sources, str) or not sources:
        raise ValueError(f"sources={sources!r} is not a list of sources; give at least one, such as ['rapl', 'nvml']")
    all_open = tuple(source(one) if isinstance(one, str) else one for one in sources)
    names = [one.name for one in all_open]
    if len(set(names)) < len(names):
        raise ValueError(f"sources {names} repeat a name; energy would be counted twice, so give each sensor once")
    if any(one.clock is not all_open[0].clock for one in all_open):
        raise ValueError(
            f"sources {names} live by different clocks; read simulated and real ones by meters of their own"
        )
    return all_open

"""What a sensor said during a run, and its integral.

    E = sum_i (P_i + P_{i+1}) / 2 * (t_{i+1} - t_i) - P_idle * (t_n - t_0)        joules, of a sensor that reads watts
    E = C_n - C_0 - P_idle * (t_n - t_0)                                          of one that counts joules

A series read by hand off a wattmeter in the wall is a trace too: `Trace(seconds, watts)`.
Keeps: 16*S bytes for S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

KWH = 3.6e6  # joules


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Samples of one sensor.

    >>> Trace([0.0, 36.0], [100.0, 100.0]).joules() / KWH
    0.001
    """

    seconds: NDArray[np.float64]
    values: NDArray[np.float64]
    counts: bool = field(default=False, kw_only=True)

    def __init__(self, seconds: Sequence[float], values: Sequence[float], *, counts: bool = False) -> None:
        at, what = np.array(seconds, np.float64), np.array(values, np.float64)
        if at.ndim != 1 or at.shape != what.shape or len(at) < 2:
            raise ValueError(
                f"{at.shape} moments and {what.shape} values make no trace; give one value a moment, at least 2"
            )
        if not (np.isfinite(at).all() and np.isfinite(what).all() and (np.diff(at) >= 0).all()):
            raise ValueError("moments or values are not finite, or moments fall; give them in the order of time")
        object.__setattr__(self, "seconds", at)
        object.__setattr__(self, "values", what)
        object.__setattr__(self, "counts", counts)

    @property
    def nbytes(self) -> int:
        """Bytes of the samples."""
        return int(self.seconds.nbytes + self.values.nbytes)

    @property
    def duration(self) -> float:
        """Seconds from the first sample to the last."""
        return float(self.seconds[-1] - self.seconds[0])

    def joules(self, *, idle: float = 0.0) -> float:
        """Energy above that of an idle machine of so many watts; below zero when the run used less."""
        if self.counts:
            total = float(self.values[-1] - self.values[0])
        else:
            total = float(np.sum((self.values[1:] + self.values[:-1]) * np.diff(self.seconds)) / 2)
        return total - idle * self.duration

    def watts(self) -> float:
        """Mean power over the run, idle power included; nan for a run without duration."""
        return self.joules() / self.duration if self.duration else float("nan")


def carbon(joules: float, *, grid: float, pue: float = 1.0) -> float:
    """Kilograms of CO2e: energy, times what the building adds to it (PUE), times the grid's kilograms per kWh.

    >>> carbon(7.2e6, grid=0.5, pue=1.5)
    1.5
    """
    if not grid >= 0 or not pue >= 1:
        raise ValueError(f"grid={grid}, pue={pue}: give kg CO2e per kWh of at least 0 and a PUE of at least 1")
    return joules / KWH * pue * grid

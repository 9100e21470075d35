"""Sensors of a real machine: NVIDIA GPUs by NVML, CPU packages and their memory by RAPL."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from loci.core.clock import Clock
from loci.core.errors import LociError, need
from loci.core.meter import How

POWERCAP = Path("/sys/class/powercap")


class NoSensor(LociError):
    """The machine has no such sensor, or does not let this user read it."""


class NVML:
    """Power of one GPU's board in watts, an average over up to a second, by NVIDIA's own library."""

    how: How = "measured"
    counts = False
    clock: Clock = staticmethod(time.monotonic)

    def __init__(self, index: int = 0) -> None:
        self._nvml: Any = need("pynvml", extra="energy", who="The power of an NVIDIA GPU")
        try:
            self._nvml.nvmlInit()
            self._device = self._nvml.nvmlDeviceGetHandleByIndex(index)
            self._nvml.nvmlDeviceGetPowerUsage(self._device)
        except self._nvml.NVMLError as error:
            raise NoSensor(f"nvml:{index} gives no power ({error}); choose another GPU, 'rapl' or 'cpu:65'") from error
        self.name = f"nvml:{index}"

    def value(self, at: float) -> float:
        """Watts of the whole board."""
        return float(self._nvml.nvmlDeviceGetPowerUsage(self._device)) / 1000


class RAPL:
    """Energy of one CPU package and the memory on it, counted in microjoules by the CPU.

    Counters start anew at `max_energy_range_uj`, every 20 to 60 minutes under load; the last unit before that (61 uJ
    on Intel) is not counted. Core and graphics zones lie within the package's and are left out.
    """

    how: How = "measured"
    counts = True
    clock: Clock = staticmethod(time.monotonic)

    def __init__(self, *, package: int = 0, root: Path = POWERCAP) -> None:
        self.name = f"rapl:{package}"
        found = [path for path in root.glob("*-rapl:*") if _label(path) == f"package-{package}"]
        if not found:
            raise NoSensor(f"{root} has no package-{package}; this machine has no RAPL, choose 'nvml' or 'cpu:65'")
        # one package may appear twice, read by register (intel-rapl) and by memory map (intel-rapl-mmio)
        first = min(found, key=lambda path: (len(path.name), path.name))
        zones = [first, *(path for path in sorted(first.glob("*-rapl:*")) if _label(path) == "dram")]
        try:
            self._counters = [_Counter(zone) for zone in zones]
        except PermissionError as error:
            raise NoSensor(
                f"{error.filename} is not readable by this user; run as root or grant it, or use 'cpu:65'"
            ) from error

    def value(self, at: float) -> float:
        """Joules since opening."""
        return sum(counter.microjoules() for counter in self._counters) / 1e6


class _Counter:
    """One zone's counter, unwrapped."""

    def __init__(self, zone: Path) -> None:
        self._path = zone / "energy_uj"
        self._range = int((zone / "max_energy_range_uj").read_text("ascii"))
        self._last = int(self._path.read_text("ascii"))
        self._sum = 0

    def microjoules(self) -> int:
        """How far it has counted since opening."""
        now = int(self._path.read_text("ascii"))
        self._sum += climbed(self._last, now, self._range)
        self._last = now
        return self._sum


def climbed(before: int, now: int, largest: int) -> int:
    """How far a counter went that starts anew after `largest`, if it did so at most once.

    >>> climbed(10, 25, 1000), climbed(990, 5, 1000)
    (15, 15)
    """
    return now - before if now >= before else now + largest - before


def _label(zone: Path) -> str:
    label = zone / "name"
    return label.read_text("ascii").strip() if label.is_file() else ""

"""Samples of several sensors over one run, taken in a thread of its own or when asked for."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from loci.budget.energy.source import Source
from loci.budget.energy.trace import Trace


class Samples:
    """What the sensors said so far; each sensor is asked for its value at its own moment."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._columns = [(source, array("d"), array("d")) for source in sources]
        self._lock = threading.Lock()

    def sample(self) -> None:
        """Ask every sensor once."""
        with self._lock:
            for source, moments, values in self._columns:
                at = source.clock()
                value = source.value(at)
                moments.append(at)
                values.append(value)

    def traces(self) -> dict[str, Trace]:
        """One trace a sensor, by its name."""
        with self._lock:
            return {source.name: Trace(at, values, counts=source.counts) for source, at, values in self._columns}


@contextmanager
def recorded(sources: Sequence[Source], *, every: float | None = 0.1) -> Iterator[Samples]:
    """Sample at the start, every so many real seconds in between (None: only when asked), and at the end.

    An error of a sensor ends the sampling and is raised at the end of the run, unless the run itself raised one.
    """
    samples, over, errors = Samples(sources), threading.Event(), list[Exception]()

    def watch(pause: float) -> None:
        try:
            while not over.wait(pause):
                samples.sample()
        except Exception as error:  # noqa: BLE001 - carried over to the thread of the run
            errors.append(error)

    samples.sample()
    thread = None if every is None else threading.Thread(target=watch, args=(every,), name="loci-energy", daemon=True)
    if thread:
        thread.start()
    try:
        yield samples
    finally:
        over.set()
        if thread:
            thread.join()
    if errors:
        raise errors[0]
    samples.sample()

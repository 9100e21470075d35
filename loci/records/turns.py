"""Turns: some at once, the others in the order they came.

A recall is computation, and Python computes in one thread at a time: eight threads that recall at once take the
interpreter from each other and finish half as many recalls as eight that wait. Python's own semaphore lets whoever is
quickest in, so that some wait for seconds; here nobody is overtaken.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """A semaphore of `places` that is fair. A thread whose turn it is may begin another: it would wait for itself.

    >>> turns = Turns(1)
    >>> with turns:
    ...     turns.free
    0
    """

    def __init__(self, places: int) -> None:
        self.free = places
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._thread = threading.local()  # depth: turns that the thread is in

    def __enter__(self) -> None:
        depth = getattr(self._thread, "depth", 0)
        if not depth:
            self._wait()
        self._thread.depth = depth + 1

    def _wait(self) -> None:
        with self._lock:
            if self.free:
                self.free -= 1
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        try:
            gate.acquire()
        except BaseException:  # interrupted while it waited, or just after its turn came
            with self._lock:
                mine = gate not in self._waiting
                if not mine:
                    self._waiting.remove(gate)
            if mine:
                self._next()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.depth -= 1
        if not self._thread.depth:
            self._next()

    def _next(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()  # the place goes from hand to hand
            else:
                self.free += 1

"""The contract of meters: what is read off a run, with its unit, and whether it was measured or estimated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Reading:
    """One number with its unit, and how it came about."""

    value: float
    unit: str
    how: Literal["measured", "estimated", "computed"]


class Meter(Protocol):
    """Reads one number off a subject and leaves the subject as it was."""

    def read(self, *subject: Any) -> Reading:
        """Measure. An error of the subject passes through, and the meter can be used again."""

    def draw(self, seed: int) -> tuple[Any, ...]:
        """A small subject to read, the same for the same seed."""

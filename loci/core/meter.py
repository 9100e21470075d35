"""The contract of meters: what is read off a run, with its unit, and whether it was measured or estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

How: TypeAlias = Literal["measured", "estimated", "computed"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One number with its unit, and how it came about."""

    value: float
    unit: str
    how: How


class Meter(Protocol):
    """Reads one number off a subject and leaves the subject as it was."""

    def read(self, *subject: Any, **named: Any) -> Reading:
        """Measure. An error of the subject passes through, and the meter can be used again."""

    def draw(self, seed: int) -> tuple[Any, ...]:
        """A small subject to read, the same for the same seed."""


@runtime_checkable
class Keeping(Protocol):
    """A meter that keeps what it read, so that its byte formula asks for shapes."""

    def shapes(self) -> Mapping[str, int]:
        """The shapes of what is kept now, by their names in the card's formula."""

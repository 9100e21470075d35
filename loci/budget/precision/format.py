"""The contract: a number format says which numbers it holds, what they take, and rounds arrays to them.

    format.round(x, mode)      # numpy array or torch tensor -> the same kind, dtype and shape, in the format's numbers
    format.nbytes(x.shape)     # what a real array of the format takes; x still takes what its own dtype takes

Emulation saves no memory: it shows what precision does to a method before one owns the hardware.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from loci.budget.precision import arrays
from loci.budget.precision.grid import Grid
from loci.budget.precision.modes import Mode
from loci.core import formula
from loci.core.card import Card

A = TypeVar("A")


class NumberFormat(ABC):
    """A set of numbers; formats that share scales among elements fit them to what they round."""

    card: ClassVar[Card]

    @abstractmethod
    def element(self) -> Grid:
        """The numbers at scale 1."""

    @property
    @abstractmethod
    def bits(self) -> int:
        """Bits of one element, shared scales apart."""

    @abstractmethod
    def shapes(self, shape: Sequence[int]) -> Mapping[str, float]:
        """What the names of the card's byte formula stand for, for an array of this shape."""

    def grid(self, x: Any) -> Grid:
        """The numbers that x is rounded to: those of `element`, times scales that fit x where the format has any."""
        arrays.namespace(x)
        return self.element()

    def round(self, x: A, mode: Mode = "nearest-even", *, random: Any = None) -> A:
        """Each element's neighbour in the format; the gradient of a tensor passes straight through.

        `random` is a generator of x's kind, for the modes that draw: stochastic, coin and random-direction.
        """
        if arrays.is_torch(x):
            from loci.budget.precision.straight import rounded

            return rounded(self, x, mode, random)  # type: ignore[arg-type, return-value]
        return self.grid(x).round(x, mode, random=random)

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a packed array of this format and shape, by the card's formula."""
        return int(formula.evaluate(self.card.bytes, self.shapes(shape)))

    @property
    def largest(self) -> float:
        """The largest finite number, at scale 1."""
        return float(self.element().high)

    @property
    def smallest_normal(self) -> float:
        """From here to `largest`, rounding to nearest errs by at most `unit_roundoff * |x|`; at scale 1."""
        return 2.0 ** self.element().lowest

    @property
    def unit_roundoff(self) -> float:
        """2^-(s + 1)."""
        return 2.0 ** -(self.element().significand + 1)


def elements(shape: Sequence[int]) -> int:
    """How many elements an array of this shape has."""
    return math.prod(shape)


def between(name: str, value: int, low: int, high: int) -> None:
    """Refuse a width that is no whole number in its range."""
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name}={value!r} is out of range; choose a whole number from {low} to {high}")

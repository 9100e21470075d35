"""Fixed point: numbers one step apart, from the lowest of i integer bits (the sign among them) to the highest.

    x = k * 2^{-f},   -2^{i-1} <= x <= 2^{i-1} - 2^{-f}

Paper: Carson and Chen, "Pychop", arXiv:2504.07835 (Chopf).
Differs: nothing.
Keeps: ceil(N*(i+f)/8) bytes for N elements.

>>> import numpy as np
>>> FixedPoint(4, 4).round(np.array([1.03, -9.0, 7.99])).tolist()
[1.0, -8.0, 7.9375]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loci.budget.precision.format import NumberFormat, between, elements
from loci.budget.precision.grid import Grid
from loci.core.card import method


@method(
    name="fixed-point",
    kind="number-format",
    title="Pychop: Emulating Low-Precision Arithmetic in Numerical Methods and Neural Networks",
    paper="arXiv:2504.07835",
    says="rounds to multiples of a power of two within a range, past which it saturates",
    bytes="ceil(N*(i+f)/8)",
    example={"integer": 4, "fraction": 4},
    system="pychop",
)
@dataclass(frozen=True, slots=True)
class FixedPoint(NumberFormat):
    """`integer` bits with the sign, `fraction` bits; `mirrored` leaves the lowest code out, so that low is -high."""

    integer: int
    fraction: int
    mirrored: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse widths that float64 cannot carry."""
        between("integer", self.integer, 1, 53)
        between("fraction", self.fraction, 0, 52)
        between("integer + fraction", self.integer + self.fraction, 2, 53)

    def element(self) -> Grid:
        """All its numbers."""
        high = 2.0 ** (self.integer - 1) - 2.0**-self.fraction
        return Grid(
            significand=self.integer + self.fraction - 2,
            lowest=self.integer - 2,
            low=-high if self.mirrored else -(2.0 ** (self.integer - 1)),
            high=high,
            overflow="saturate",
            signed_zero=False,
        )

    @property
    def bits(self) -> int:
        """Integer and fraction bits."""
        return self.integer + self.fraction

    def shapes(self, shape: Sequence[int]) -> Mapping[str, float]:
        """N elements, i and f bits."""
        return {"N": elements(shape), "i": self.integer, "f": self.fraction}

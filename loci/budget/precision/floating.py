"""Floating point with any number of exponent and significand bits: half, bfloat16, tf32, the 8-, 6- and 4-bit formats.

    x = +-(1 + m / 2^s) * 2^E,   e_min <= E <= e_max,   e_min = 2 - 2^{e-1},   u = 2^{-(s+1)}           IEEE 754, table 3.5

The codes of the largest exponent are infinity and NaN (top="infinity", IEEE), or numbers but for one NaN ("nan", OCP
E4M3), or all numbers ("number", OCP's 6- and 4-bit formats); e_max grows by one in the latter two.

Paper: Carson and Chen, "Pychop: Emulating Low-Precision Arithmetic in Numerical Methods and Neural Networks",
arXiv:2504.07835; modes as in Higham and Pranesh, "Simulating Low Precision Floating-Point Arithmetic", 2019.
Differs: exponents are read off the bits, where the authors' code clamps |x| at 1e-38; modes 7 and 8 are right for
negative numbers; overflow starts where IEEE puts it. Without subnormals a tiny number goes to zero or to the smallest
normal one, whichever the mode chooses: the nearest, or the one above, not always zero.
Keeps: ceil(N*(1+e+s)/8) bytes for N elements; the emulation itself keeps the array it was given.

>>> import numpy as np
>>> FloatFormat(5, 2).round(np.array([1.125, -1.125, 1e9, 1e-6])).tolist()
[1.0, -1.0, inf, 0.0]
>>> FloatFormat(5, 2).round(np.array([1.125, -1.125, 1e9, 1e-6]), "up").tolist()
[1.25, -1.0, inf, 1.52587890625e-05]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from loci.budget.precision.format import NumberFormat, between, elements
from loci.budget.precision.grid import Grid, Overflow
from loci.core.card import method

Top: TypeAlias = Literal["infinity", "nan", "number"]
OVERFLOWS: dict[str, tuple[Overflow, ...]] = {
    "infinity": ("infinity", "saturate"),
    "nan": ("nan", "saturate"),
    "number": ("saturate",),
}


@method(
    name="float",
    kind="number-format",
    title="Pychop: Emulating Low-Precision Arithmetic in Numerical Methods and Neural Networks",
    paper="arXiv:2504.07835",
    says="rounds to floating point of any exponent and significand, in ten modes, exactly",
    bytes="ceil(N*(1+e+s)/8)",
    example={"exponent": 5, "significand": 2},
    system="pychop",
)
@dataclass(frozen=True, slots=True)
class FloatFormat(NumberFormat):
    """1 sign bit, `exponent` bits, `significand` stored bits; `overflow` is by default what `top` has a code for."""

    exponent: int
    significand: int
    subnormals: bool = field(default=True, kw_only=True)
    top: Top = field(default="infinity", kw_only=True)
    overflow: Overflow | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse widths that float64 cannot carry, and overflow to a code that is not there."""
        between("exponent", self.exponent, 2, 11)
        between("significand", self.significand, 1, 52)
        if self.top not in OVERFLOWS:
            raise ValueError(f"top={self.top!r} is unknown; choose one of {', '.join(OVERFLOWS)}")
        if self.overflow not in (None, *OVERFLOWS[self.top]):
            raise ValueError(
                f"overflow={self.overflow!r} has no code where top={self.top!r}; choose one of {', '.join(OVERFLOWS[self.top])}"
            )
        if self.top != "infinity" and self.exponent == 11:
            raise ValueError(f"exponent=11 with top={self.top!r} goes past float64; choose exponent <= 10")

    def element(self) -> Grid:
        """All its numbers."""
        s, bias = self.significand, 2 ** (self.exponent - 1) - 1
        last = {"infinity": 0, "nan": 2, "number": 1}[self.top]  # codes of the top exponent that are no number, but one
        high = (2 - 2.0**-s) * 2.0**bias if last == 0 else (2 - last * 2.0**-s) * 2.0 ** (bias + 1)
        overflow = self.overflow or OVERFLOWS[self.top][0]
        return Grid(significand=s, lowest=1 - bias, low=-high, high=high, overflow=overflow, subnormals=self.subnormals)

    @property
    def bits(self) -> int:
        """1 + e + s."""
        return 1 + self.exponent + self.significand

    def shapes(self, shape: Sequence[int]) -> Mapping[str, float]:
        """N elements, e and s bits."""
        return {"N": elements(shape), "e": self.exponent, "s": self.significand}


PRESETS: Mapping[str, FloatFormat] = MappingProxyType({
    "q43": FloatFormat(4, 3),
    "q52": FloatFormat(5, 2),
    "bfloat16": FloatFormat(8, 7),
    "tf32": FloatFormat(8, 10),
    "half": FloatFormat(5, 10),
    "single": FloatFormat(8, 23),
    "double": FloatFormat(11, 52),
    "e4m3fn": FloatFormat(4, 3, top="nan"),
    "e3m2fn": FloatFormat(3, 2, top="number"),
    "e2m3fn": FloatFormat(2, 3, top="number"),
    "e2m1fn": FloatFormat(2, 1, top="number"),
})  # fmt: skip


def preset(name: str) -> FloatFormat:
    """A format by its usual name.

    >>> preset("half").largest, preset("bfloat16").nbytes((3, 5))
    (65504.0, 30)
    """
    if name not in PRESETS:
        raise ValueError(f"name={name!r} is unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]

"""Integers with a real scale: symmetric, or affine with a zero point; one scale for all, or one for each channel.

    q = clip(round(x / scale) + zero, q_min, q_max),   Q(x) = (q - zero) * scale
    symmetric: scale = max|x| / (2^{b-1} - 1), zero = 0;   affine: scale = (max - min) / (2^b - 1), zero = round(-min / scale)

Without a range the scale fits every array anew; `calibrated` fixes it, as post-training quantisation does.

Paper: Carson and Chen, "Pychop", arXiv:2504.07835 (Chopi).
Differs: affine uses all 2^b codes, where the authors' code uses half of them; the scale is never kept silently; it has
at most 24 - b significant bits, rounded down, so that every code times the scale is a float32 and Q is exact.
Keeps: ceil(N*b/8) + 4*G + ceil(Z*b/8) bytes: codes, G scales, Z zero points (G when affine, else 0).

>>> import numpy as np
>>> IntegerFormat(4).round(np.array([-7.0, 0.6, 3.5])).tolist()
[-7.0, 1.0, 4.0]
>>> IntegerFormat(2, symmetric=False).round(np.array([0.0, 1.2, 3.0])).tolist()
[0.0, 1.0, 3.0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from loci.budget.precision import arrays
from loci.budget.precision.format import NumberFormat, between, elements
from loci.budget.precision.grid import Grid
from loci.core.card import method

Range: TypeAlias = tuple[float, float] | tuple[tuple[float, ...], tuple[float, ...]]


@method(
    name="integer",
    kind="number-format",
    title="Pychop: Emulating Low-Precision Arithmetic in Numerical Methods and Neural Networks",
    paper="arXiv:2504.07835",
    says="rounds to integers times a scale, symmetric or affine, per tensor or per channel",
    bytes="ceil(N*b/8) + 4*G + ceil(Z*b/8)",
    example={"bits": 8},
    system="pychop",
)
@dataclass(frozen=True, slots=True)
class IntegerFormat(NumberFormat):
    """`bits` wide; `axis` is the channels' axis, None for one scale; `limits` is a calibrated range (low, high)."""

    bits: int = 8
    axis: int | None = None
    symmetric: bool = field(default=True, kw_only=True)
    limits: Range | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse widths whose codes times a scale are no float32, and a range without numbers."""
        between("bits", self.bits, 2, 16)
        if self.limits is not None:
            low, high = (np.asarray(end, dtype=np.float64) for end in self.limits)
            if low.shape != high.shape or low.ndim > (self.axis is not None) or not (low <= high).all():
                raise ValueError(f"limits={self.limits} is no range; give low <= high, one of each for each channel")

    def calibrated(self, low: Any, high: Any) -> IntegerFormat:
        """The same format with its scales fixed for values from low to high; both may have one entry a channel."""
        low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        return replace(self, limits=(low.tolist(), high.tolist()) if low.ndim == 0 else (tuple(low), tuple(high)))

    def element(self) -> Grid:
        """The codes, or the codes from zero on when affine."""
        high = 2.0 ** (self.bits - self.symmetric) - 1
        return self._grid(-high if self.symmetric else 0.0, high)

    def grid(self, x: Any) -> Grid:
        """The codes times the scale that the calibrated range, or else x's own, asks for."""
        low, high = self._range(x)
        xp, codes = arrays.namespace(low), self.element().high
        if self.symmetric:
            scale = self._scale(xp.maximum(xp.abs(low), xp.abs(high)) / codes)
            return self._grid(-codes, codes, scale)
        low, high = xp.clip(low, None, 0.0), xp.clip(high, 0.0, None)  # zero is always a code
        scale = self._scale((high - low) / codes)
        zero = xp.clip(xp.floor(-low / scale + 0.5), 0.0, codes)
        return self._grid(-zero, codes - zero, scale, zero)

    def shapes(self, shape: Sequence[int]) -> Mapping[str, float]:
        """N elements of b bits, G scales, Z zero points."""
        groups = 1 if self.axis is None else shape[self._axis(len(shape))]
        return {"N": elements(shape), "b": self.bits, "G": groups, "Z": 0 if self.symmetric else groups}

    def _grid(self, low: Any, high: Any, scale: Any = 1.0, zero: Any = 0) -> Grid:
        width = self.bits - 2 if self.symmetric else self.bits - 1
        return Grid(
            significand=width, lowest=width, low=low, high=high, overflow="saturate", signed_zero=False,
            scale=scale, zero=zero, precision=24,
        )  # fmt: skip

    def _range(self, x: Any) -> tuple[Any, Any]:
        axis = None if self.axis is None else self._axis(x.ndim)
        if self.limits is None:
            return arrays.extremes(arrays.wide(x), [place for place in range(x.ndim) if place != axis])
        ends = [np.asarray(end, dtype=np.float64) for end in self.limits]
        if axis is not None and ends[0].ndim == 1:
            if len(ends[0]) != x.shape[axis]:
                raise ValueError(
                    f"x has {x.shape[axis]} channels on axis {axis}, the range {len(ends[0])}; calibrate anew"
                )
            ends = [end.reshape([-1 if place == axis else 1 for place in range(x.ndim)]) for end in ends]
        return arrays.alongside(ends[0], x), arrays.alongside(ends[1], x)

    def _axis(self, ndim: int) -> int:
        if self.axis is None or not -ndim <= self.axis < ndim:
            raise ValueError(f"axis={self.axis} does not fit an array of {ndim} axes; choose one of them, or None")
        return self.axis % ndim

    def _scale(self, scale: Any) -> Any:
        xp = arrays.namespace(scale)
        return arrays.chopped(xp.clip(scale, 2.0**-126, 2.0 ** (127 - self.bits)), 24 - self.bits)

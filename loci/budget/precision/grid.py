"""A grid: the numbers that a format can hold, and the rounding of arrays to them, in numpy and torch alike.

    h(x) = 2^{max(E(x), e_min) - s} * scale,   E(x) = floor(log2(|x| / scale)),   Q(x) = sign(x) * n * h,   n from |x| / h

is every format of this room. Floating point has scale 1. In fixed point and integers E never exceeds e_min, so the step
is one number. In block formats `scale` is a power of two for each block; an affine integer's zero point shifts `low`
and `high`. Every operation below is exact in float64 (for E, exponent bits are read, no logarithm is taken), so numpy
and torch agree to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from loci.budget.precision import arrays
from loci.budget.precision.modes import DRAWN, Mode, goes_up, require_mode, stays_finite

Overflow: TypeAlias = Literal["infinity", "nan", "saturate"]
A = TypeVar("A")
FAR = 2.0**600  # times the scale: past every format with scales, and still no overflow


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """All numbers of a format, once its scales are known. `low`, `high` and the step count in units of `scale`."""

    significand: int  # s, the bits after the leading one
    lowest: int  # e_min, the exponent under which the step stays as it is
    low: Any
    high: Any
    overflow: Overflow
    subnormals: bool = True  # else nothing lies between zero and 2^e_min
    signed_zero: bool = True
    scale: Any = 1.0  # broadcasts against x, or against x cut into blocks
    zero: Any = 0  # the code of zero, in affine integers
    block: int | None = None  # neighbours on the last axis that share a scale
    precision: int = 0  # significant bits that a carrier must have, where scales are no powers of two; 0: s + 1

    @property
    def plain(self) -> bool:
        """Whether there are no scales: the format is of fixed numbers."""
        return type(self.scale) is float  # numpy's float64 is a float as well, and a scale

    def round(self, x: A, mode: Mode = "nearest-even", *, random: Any = None) -> A:
        """Each element's neighbour on the grid that the mode chooses, in x's dtype and shape; NaN stays NaN."""
        require_mode(mode)
        self.require(x)
        draw = _draws(x, mode, random)
        if 0 in x.shape:  # type: ignore[attr-defined]
            return x.clone() if arrays.is_torch(x) else x.copy()  # type: ignore[attr-defined, no-any-return]
        if self.block is None:
            return arrays.narrow(self._rounded(arrays.wide(x), mode, draw), x)  # type: ignore[no-any-return]
        blocks = arrays.cut(arrays.wide(x), self.block)
        draw = draw if draw is None else arrays.cut(draw, self.block)
        value = arrays.joined(self._rounded(blocks, mode, draw), x.shape)  # type: ignore[attr-defined]
        return arrays.narrow(value, x)  # type: ignore[no-any-return]

    def _rounded(self, x: Any, mode: Mode, draw: Any) -> Any:
        xp = arrays.namespace(x)
        finite, negative = xp.isfinite(x), xp.signbit(x)
        size = xp.abs(xp.where(finite, x, 0.0))
        step = self._steps(size)
        whole = xp.floor(size / step)
        rest = size - whole * step
        if self.precision:  # where h is no power of two, |x| / h may have been rounded up to a whole number
            past = rest < 0
            whole, rest = xp.where(past, whole - 1, whole), xp.where(past, rest + step, rest)
        up = goes_up(mode, whole, rest, step, negative, draw)
        value = xp.copysign((whole + xp.where(up, 1.0, 0.0)) * step, x)
        value = self._within(xp.where(finite, value, x), finite, stays_finite(mode, negative, draw))
        return value if self.signed_zero else value + 0.0  # -0 + 0 = 0

    def _steps(self, size: Any) -> Any:
        """h(x), given magnitudes."""
        xp = arrays.namespace(size)
        scale = arrays.alongside(self.scale, size)
        least = 2.0**self.lowest
        power = arrays.power(size if self.plain else xp.minimum(size, scale * FAR) / scale)
        step = xp.clip(power, least, None) * 2.0**-self.significand
        if not self.subnormals:
            step = xp.where(power < least, least, step)
        return step if self.plain else step * scale

    def _within(self, value: Any, finite: Any, inward: Any) -> Any:
        """Numbers past the largest become it, or infinite, or NaN."""
        xp = arrays.namespace(value)
        low, high = self.bounds(value)
        inside = xp.minimum(xp.maximum(value, low), high)  # both pass NaN on
        if self.overflow == "saturate":
            return inside
        outside = xp.copysign(xp.full_like(value, math.inf if self.overflow == "infinity" else math.nan), value)
        kept = xp.where(inward & finite, inside, outside)
        return xp.where((value < low) | (value > high), kept, value)

    def bounds(self, x: Any) -> tuple[Any, Any]:
        """The smallest and the largest number of the grid at each element of x (cut into blocks, where there are any)."""
        scale = arrays.alongside(self.scale, x)
        low, high = arrays.alongside(self.low, x) * scale, arrays.alongside(self.high, x) * scale
        if arrays.is_torch(x) and isinstance(low, float):
            return x.new_full((), low), x.new_full((), high)
        return low, high

    def steps(self, x: Any) -> Any:
        """The distance between the neighbours of each finite element, in float64 and x's shape."""
        size = abs(arrays.wide(x))
        if self.block is None:
            return self._steps(size)
        return arrays.joined(self._steps(arrays.cut(size, self.block)), x.shape)

    def spread(self, value: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """`scale`, `low` or `high` as one float64 number for each element of an array of this shape."""
        value = value.detach().cpu().numpy() if arrays.is_torch(value) else np.asarray(value, dtype=np.float64)
        if self.block is None or value.ndim == 0:
            return np.broadcast_to(value, shape)
        blocks = np.broadcast_to(value, (*value.shape[:-1], self.block))
        return np.asarray(arrays.joined(blocks, shape))

    def require(self, x: Any) -> None:
        """Refuse a carrier that cannot hold the grid's numbers."""
        arrays.namespace(x)
        bits, smallest, largest = arrays.carrier(x.dtype)
        needs = self.precision or self.significand + 1
        step = self.lowest - (self.significand if self.subnormals else 0)
        if needs > bits or (self.plain and (step < smallest or float(self.high) > largest)):
            raise ValueError(
                f"x is {str(x.dtype).removeprefix('torch.')} with {bits} significant bits from 2^{smallest} on, the format's "
                f"numbers have up to {needs} bits from 2^{step} on; give a wider array, such as float32 or float64"
            )


def _draws(x: Any, mode: Mode, random: Any) -> Any:
    if mode not in DRAWN:
        return None
    if random is None:
        raise ValueError(
            f"mode={mode!r} draws numbers and random is None; give numpy.random.default_rng(seed) for arrays, "
            "torch.Generator().manual_seed(seed) for tensors"
        )
    return arrays.uniform(random, x)

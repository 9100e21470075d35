"""Rounding one number at a time in exact fractions: the obvious form, and the oracle of the fast one in grid.py.

Nothing is shared with the fast form but the grid's own numbers and, for the modes that draw, the draws.

>>> from loci.budget.precision.floating import FloatFormat
>>> round_one(1.125, FloatFormat(5, 2).element(), "nearest-away")
1.25
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from loci.budget.precision import arrays
from loci.budget.precision.grid import Grid
from loci.budget.precision.modes import DRAWN, Mode, require_mode


def round_slowly(grid: Grid, x: np.ndarray[Any, Any], mode: Mode, *, random: Any = None) -> np.ndarray[Any, Any]:
    """The same as `grid.round(x, mode, random=random)` in Python numbers."""
    require_mode(mode)
    draws = arrays.uniform(random, x) if mode in DRAWN else np.zeros(x.shape)
    spread = [grid.spread(part, x.shape) for part in (grid.scale, grid.low, grid.high)]
    value = np.empty_like(x)
    for place in np.ndindex(x.shape):
        scale, low, high = (float(part[place]) for part in spread)
        value[place] = round_one(float(x[place]), grid, mode, scale=scale, low=low, high=high, draw=float(draws[place]))
    return value


def round_one(
    x: float,
    grid: Grid,
    mode: Mode = "nearest-even",
    *,
    scale: float = 1.0,
    low: float | None = None,
    high: float | None = None,
    draw: float = 0.0,
) -> float:
    """One number's neighbour on a grid; `low` and `high` are the grid's own unless given."""
    least = Fraction(float(grid.low if low is None else low)) * Fraction(scale)
    most = Fraction(float(grid.high if high is None else high)) * Fraction(scale)
    if math.isnan(x):
        return x
    if math.isinf(x):
        return {"infinity": x, "nan": math.nan, "saturate": float(most if x > 0 else least)}[grid.overflow]
    size, negative = abs(Fraction(x)), math.copysign(1.0, x) < 0
    step = spacing(size, grid, Fraction(scale))
    below = size // step * step
    exact = below == size
    value = below if exact or not _leaves(mode, size, below, step, negative, draw) else below + step
    value = -value if negative else value
    if least <= value <= most:
        return math.copysign(float(value), x) if grid.signed_zero else float(value)
    if grid.overflow == "saturate" or _inward(mode, negative, draw):
        return float(min(max(value, least), most))
    return math.copysign(math.inf, x) if grid.overflow == "infinity" else math.copysign(math.nan, x)


def spacing(size: Fraction, grid: Grid, scale: Fraction) -> Fraction:
    """The distance between the two neighbours of a magnitude."""
    unit = size / scale
    exponent = unit.numerator.bit_length() - unit.denominator.bit_length()  # floor(log2(unit)), or one more
    exponent = max(exponent - (unit < Fraction(2) ** exponent), grid.lowest)
    if not grid.subnormals and unit < Fraction(2) ** grid.lowest:
        return Fraction(2) ** grid.lowest * scale
    return Fraction(2) ** (exponent - grid.significand) * scale


def _leaves(mode: Mode, size: Fraction, below: Fraction, step: Fraction, negative: bool, draw: float) -> bool:  # noqa: FBT001
    """Whether an inexact magnitude goes to the neighbour further from zero."""
    rest, even = size - below, (below / step) % 2 == 0
    return {
        "nearest-even": rest > step / 2 or (rest == step / 2 and not even),
        "up": not negative,
        "down": negative,
        "toward-zero": False,
        "stochastic": Fraction(draw) * step < rest,
        "coin": draw < 0.5,
        "nearest-zero": rest > step / 2,
        "nearest-away": rest >= step / 2,
        "odd": even,
        "random-direction": (draw < 0.5) != negative,
    }[mode]


def _inward(mode: Mode, negative: bool, draw: float) -> bool:  # noqa: FBT001
    """Whether the mode brings a number past the largest one back to it."""
    if mode == "random-direction":
        return (draw < 0.5) == negative
    return mode in {"toward-zero", "odd"} or (mode == "up" and negative) or (mode == "down" and not negative)

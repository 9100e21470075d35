"""The ten ways to round between two neighbours, as decisions on magnitudes: stay below, or go up one step.

A magnitude is `whole * step + rest` with 0 <= rest < step. In the numbering of MATLAB's chop and of pychop:

    1 nearest-even   2 up (+inf)   3 down (-inf)   4 toward-zero   5 stochastic: up with probability rest / step
    6 coin: either with probability 1/2   7 nearest-zero: ties towards zero   8 nearest-away: ties away from zero
    9 odd: the neighbour whose last bit is 1   10 random-direction: all of a number's rest goes to +inf or to -inf, drawn

6 and 10 differ past the largest number alone: there 10 comes back to it when the direction drawn is inward.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from loci.budget.precision.arrays import namespace

Mode: TypeAlias = Literal[
    "nearest-even", "up", "down", "toward-zero", "stochastic",
    "coin", "nearest-zero", "nearest-away", "odd", "random-direction",
]  # fmt: skip
MODES: tuple[Mode, ...] = get_args(Mode)
DRAWN: frozenset[Mode] = frozenset({"stochastic", "coin", "random-direction"})
NEAREST: frozenset[Mode] = frozenset({"nearest-even", "nearest-zero", "nearest-away"})
SYMMETRIC: frozenset[Mode] = NEAREST | {"toward-zero", "odd"}  # and deterministic


def require_mode(mode: Mode) -> None:
    """Refuse an unknown mode.

    >>> require_mode("ceil")
    Traceback (most recent call last):
    ...
    ValueError: mode='ceil' is unknown; choose one of nearest-even, up, down, toward-zero, stochastic, coin, nearest-zero, nearest-away, odd, random-direction
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is unknown; choose one of {', '.join(MODES)}")


def goes_up(mode: Mode, whole: Any, rest: Any, step: Any, negative: Any, draw: Any) -> Any:
    """Whether each magnitude goes up to the next one; exact ones (rest 0) never do.

    >>> import numpy as np
    >>> whole, half, one = np.array([0.0, 1.0]), np.array([0.5, 0.5]), np.array([1.0, 1.0])
    >>> {mode: goes_up(mode, whole, half, one, one < 0, half).tolist() for mode in ("nearest-even", "nearest-away", "odd")}
    {'nearest-even': [False, True], 'nearest-away': [True, True], 'odd': [True, False]}
    """
    twice = rest + rest
    inexact = rest > 0
    match mode:
        case "nearest-even":
            return (twice > step) | ((twice == step) & _odd(whole))
        case "up":
            return inexact & ~negative
        case "down":
            return inexact & negative
        case "toward-zero":
            return inexact & ~inexact
        case "stochastic":
            return draw < rest / step
        case "coin":
            return inexact & (draw < 0.5)
        case "nearest-zero":
            return twice > step
        case "nearest-away":
            return twice >= step
        case "odd":
            return inexact & ~_odd(whole)
        case "random-direction":
            return inexact & ((draw < 0.5) ^ negative)


def stays_finite(mode: Mode, negative: Any, draw: Any) -> Any:
    """Whether a number past the largest one comes back to it: where the mode rounds towards zero (IEEE 754, 7.4)."""
    match mode:
        case "up":
            return negative
        case "down":
            return ~negative
        case "toward-zero" | "odd":
            return negative | ~negative
        case "random-direction":
            return (draw < 0.5) ^ ~negative
        case _:
            return negative & ~negative


def _odd(whole: Any) -> Any:
    return namespace(whole).remainder(whole, 2) == 1

"""Where to clip before integers: the range of values that a scale should cover, by four rules.

    min-max: all of it     percentile: all but the outermost share     MSE: argmin_a mean (x - Q_a(x))^2
    KL: argmin_a KL(P_a || Q_a), P_a the histogram of |x| clipped to a, Q_a the same in 2^{b-1} levels    Migacz 2017

>>> import numpy as np
>>> x = np.random.default_rng(0).laplace(size=10_000)
>>> [round(high, 2) for _, high in (min_max(x), percentile(x, 99.9), mse(x, IntegerFormat(4)), kl(x, 4))]
[11.95, 7.05, 4.83, 5.88]
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from loci.budget.precision.integer import IntegerFormat

Values: TypeAlias = np.ndarray[Any, Any]
BINS, SHRINKS = 2048, 98  # of the histogram; candidates between the whole range and a fiftieth of it


def min_max(x: Values) -> tuple[float, float]:
    """The smallest and the largest finite value."""
    x = _finite(x)
    return float(x.min()), float(x.max())


def percentile(x: Values, share: float = 99.99) -> tuple[float, float]:
    """The range that leaves out (100 - share) / 2 percent of the values at each end."""
    if not 0 < share <= 100:
        raise ValueError(f"share={share} is no percentage of values to keep; choose one above 0, at most 100")
    low, high = np.percentile(_finite(x), [(100 - share) / 2, (100 + share) / 2])
    return float(low), float(high)


def mse(x: Values, format: IntegerFormat) -> tuple[float, float]:  # noqa: A002 - the house's word
    """The part of the range, out of 98 shrunk towards zero, whose rounding errs least in the mean square."""
    x = _finite(x)
    low, high = min_max(x)
    ranges = [(low * share, high * share) for share in np.linspace(1.0, 0.02, SHRINKS).tolist()]
    errors = [float(np.square(format.calibrated(*ends).round(x) - x).mean()) for ends in ranges]
    return ranges[int(np.argmin(errors))]


def kl(x: Values, bits: int = 8) -> tuple[float, float]:
    """The clipping of |x| at which 2^{bits-1} levels keep most of the information of the histogram.

    Zeros are exact at any scale and are not counted: a ReLU makes so many that all else would be clipped to keep them.
    """
    x = _finite(x)
    low, high = min_max(x)
    largest, levels = max(-low, high), 2 ** (bits - 1)
    if largest == 0 or levels >= BINS:
        return low, high
    counts, edges = np.histogram(np.abs(x[x != 0]), bins=BINS, range=(0.0, largest))
    ends = range(levels, BINS + 1)
    best = edges[ends[int(np.argmin([divergence(counts.astype(np.float64), end, levels) for end in ends]))]]
    return max(low, -float(best)), min(high, float(best))


def divergence(counts: Values, end: int, levels: int) -> float:
    """KL(P || Q) of the first `end` bins, outliers counted in the last of them, against the same in `levels` levels."""
    inside = counts[:end]
    clipped = inside.copy()
    clipped[-1] += counts[end:].sum()
    starts = np.arange(levels) * end // levels
    level = np.repeat(np.arange(levels), np.diff(np.append(starts, end)))
    filled = np.bincount(level, weights=inside > 0, minlength=levels)
    mean = np.add.reduceat(inside, starts) / np.maximum(filled, 1)
    coarse = np.where(inside > 0, mean[level], 0.0)
    if clipped.sum() == 0 or coarse.sum() == 0:
        return float("inf")
    p, q = clipped / clipped.sum(), coarse / coarse.sum()
    held = p > 0
    return float((p[held] * np.log(p[held] / np.maximum(q[held], 1e-12))).sum())


def _finite(x: Values) -> Values:
    x = np.asarray(x, dtype=np.float64)
    x = x[np.isfinite(x)]
    if x.size == 0:
        raise ValueError("x has no finite value to calibrate on; run the model on data first")
    return x

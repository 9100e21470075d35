"""Tests of differences between groups of runs; one number a run, never one a sample.

    Welch:   t = (mean_b - mean_a) / sqrt(s_a^2/n_a + s_b^2/n_b), df by Welch and Satterthwaite
    paired:  t = mean(b - a) / (sd(b - a) / sqrt(n)), df = n - 1
    ANOVA:   F = (SS_between / (k - 1)) / (SS_within / (N - k))

The Welch test decides, since it was chosen before anything was measured; the paired one stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loci.budget.energy.distribution import f_tail, t_beyond, t_tails

Verdict: TypeAlias = Literal["lower", "higher", "not significant"]


@dataclass(frozen=True, slots=True)
class Test:
    """A test statistic, its degrees of freedom (within groups, for F) and its p value."""

    statistic: float
    df: float
    p: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Second group less the first: the difference, its confidence interval, its size in standard deviations, the tests."""

    difference: float
    low: float
    high: float
    effect: float  # Hedges' g
    welch: Test
    paired: Test | None
    alpha: float

    @property
    def verdict(self) -> Verdict:
        """What the second group is, by Welch's test; that nothing was found is an outcome like the others."""
        if not self.welch.p < self.alpha:
            return "not significant"
        return "lower" if self.difference < 0 else "higher"


def compare(one: Sequence[float], other: Sequence[float], *, alpha: float = 0.05, paired: bool = False) -> Comparison:
    """Compare two groups of runs; `paired` when the n-th runs of both were made side by side.

    >>> found = compare([1, 2, 3], [2, 3, 4])
    >>> round(found.welch.p, 4), found.difference, found.verdict
    (0.2879, 1.0, 'not significant')
    """
    a, b = _group(one, "first"), _group(other, "second")
    test, error = _welch(a, b)
    middle, reach = float(b.mean() - a.mean()), t_beyond(alpha, test.df) * error
    beside = paired_t(a, b) if paired else None
    return Comparison(middle, middle - reach, middle + reach, hedges(a, b), test, beside, alpha)


def welch(one: ArrayLike, other: ArrayLike) -> Test:
    """Whether the means of two groups differ, each with a variance of its own."""
    return _welch(_group(one, "first"), _group(other, "second"))[0]


def _welch(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[Test, float]:
    va, vb = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    error = math.sqrt(va + vb)
    least = min(len(a), len(b)) - 1  # the bound of df; used where groups do not vary at all
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)) if va**2 + vb**2 > 0 else float(least)
    t = _over(float(b.mean() - a.mean()), error)
    return Test(t, df, t_tails(t, df)), error


def paired_t(one: ArrayLike, other: ArrayLike) -> Test:
    """Whether the differences of pairs have a mean."""
    a, b = _group(one, "first"), _group(other, "second")
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} runs make no pairs; give as many of one as of the other")
    gaps = b - a
    t = _over(float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(len(gaps)))
    return Test(t, len(gaps) - 1, t_tails(t, len(gaps) - 1))


def anova(*groups: ArrayLike) -> Test:
    """Whether any of several groups differs: one-way analysis of variance.

    >>> round(anova([1, 2, 3], [2, 3, 4]).statistic, 4)
    1.5
    """
    if len(groups) < 2:
        raise ValueError(f"{len(groups)} group cannot differ from others; give at least two")
    arrays = [_group(group, f"{place}.") for place, group in enumerate(groups, 1)]
    whole = np.concatenate(arrays)
    between = sum(len(group) * float(group.mean() - whole.mean()) ** 2 for group in arrays)
    within = sum(float(np.sum((group - group.mean()) ** 2)) for group in arrays)
    return _f(between, len(arrays) - 1, within, len(whole) - len(arrays))


def factorial(cells: ArrayLike) -> Mapping[str, Test]:
    """Two factors at once, for cells (A, B, n) of n runs each: the effects "A" and "B", and "AxB", their interaction.

    Comparing the best of one mode with the default of another confounds the two factors; this does not.

    >>> sorted(factorial([[[1, 2], [3, 4]], [[2, 3], [9, 8]]]))
    ['A', 'AxB', 'B']
    """
    y = np.asarray(cells, np.float64)
    if y.ndim != 3 or min(y.shape) < 2:
        raise ValueError(
            f"cells of shape {y.shape} are not (A, B, n); give at least 2 levels of each and 2 runs a cell"
        )
    A, B, n = y.shape
    mean, rows, columns, middles = y.mean(), y.mean((1, 2)), y.mean((0, 2)), y.mean(2)
    of_a = B * n * float(np.sum((rows - mean) ** 2))
    of_b = A * n * float(np.sum((columns - mean) ** 2))
    of_both = n * float(np.sum((middles - rows[:, None] - columns + mean) ** 2))
    within, df = float(np.sum((y - middles[..., None]) ** 2)), A * B * (n - 1)
    return {
        "A": _f(of_a, A - 1, within, df),
        "B": _f(of_b, B - 1, within, df),
        "AxB": _f(of_both, (A - 1) * (B - 1), within, df),
    }


def hedges(one: ArrayLike, other: ArrayLike) -> float:
    """The difference in pooled standard deviations (Cohen's d), less its bias in small groups: Hedges' g."""
    a, b = _group(one, "first"), _group(other, "second")
    df = len(a) + len(b) - 2
    pooled = math.sqrt(((len(a) - 1) * float(a.var(ddof=1)) + (len(b) - 1) * float(b.var(ddof=1))) / df)
    return _over(float(b.mean() - a.mean()), pooled) * (1 - 3 / (4 * df - 1))


def _f(between: float, d1: int, within: float, d2: int) -> Test:
    f = _over(between / d1, within / d2)
    return Test(f, d2, f_tail(f, d1, d2))


def _over(difference: float, error: float) -> float:
    """Nothing over nothing is no difference; something over nothing is beyond doubt."""
    if error > 0:
        return difference / error
    return math.copysign(math.inf, difference) if difference else 0.0


def _group(values: ArrayLike, which: str) -> NDArray[np.float64]:
    group = np.asarray(values, np.float64)
    if group.ndim != 1 or len(group) < 2 or not np.isfinite(group).all():
        raise ValueError(f"the {which} group has shape {group.shape}; give one finite number a run, at least two runs")
    return group

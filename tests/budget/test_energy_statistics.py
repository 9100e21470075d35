"""Statistics of runs: hand examples, scipy, and least squares as oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loci.budget.energy.compare import anova, compare, factorial, hedges, paired_t, welch
from loci.budget.energy.distribution import incomplete_beta, t_beyond
from loci.core.rng import generator

stats = pytest.importorskip("scipy.stats")
special = pytest.importorskip("scipy.special")


def test_the_incomplete_beta_function_is_scipys():
    for a in (0.5, 1.0, 2.37, 10.0, 500.0):
        for b in (0.5, 1.0, 17.2, 200.0):
            for x in (*np.linspace(0, 1, 23), 1e-9, 1 - 1e-9):
                assert incomplete_beta(float(x), a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-11, abs=1e-200)
    for p in (0.5, 0.05, 0.001):
        for df in (1.0, 1.7, 4.0, 1000.0):
            assert t_beyond(p, df) == pytest.approx(stats.t.isf(p / 2, df), rel=1e-11)


def test_the_hand_example():
    one, other = [1, 2, 3], [2, 3, 4]
    assert welch(other, one).statistic == pytest.approx(-1.2247, abs=1e-4)
    assert welch(one, other).df == pytest.approx(4)
    assert welch(one, other).p == pytest.approx(0.2879, abs=1e-4)
    assert compare(one, other).verdict == "not significant"


def test_with_two_groups_f_is_the_square_of_t():
    one, other = generator(1).normal(size=(2, 9))
    t = stats.ttest_ind(one, other)
    found = anova(one, other)
    assert found.statistic == pytest.approx(t.statistic**2, rel=1e-10)
    assert found.p == pytest.approx(t.pvalue, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_tests_are_scipys(seed):
    random = generator(seed)
    groups = [random.normal(place, 1 + place, 4 + place) for place in range(3)]
    one, other = groups[0], groups[2]
    theirs = stats.ttest_ind(other, one, equal_var=False)
    ours = compare(one, other, alpha=0.1)
    assert (ours.welch.statistic, ours.welch.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-10)
    interval = theirs.confidence_interval(0.9)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    pair = stats.ttest_rel(other[:4], one)
    assert (paired_t(one, other[:4]).statistic, paired_t(one, other[:4]).p) == pytest.approx(
        (pair.statistic, pair.pvalue)
    )
    f = stats.f_oneway(*groups)
    assert (anova(*groups).statistic, anova(*groups).p) == pytest.approx((f.statistic, f.pvalue), rel=1e-10)


def test_hedges_g_by_hand():
    """d = 1 for means one standard deviation apart; the correction for 4 degrees of freedom is 1 - 3/15."""
    assert hedges([1, 2, 3], [2, 3, 4]) == pytest.approx(0.8)


def test_two_factors_are_the_f_tests_of_nested_regressions():
    """Each effect against the regression that lacks its columns, by least squares."""
    y = generator(3).normal(size=(3, 2, 4)) + np.arange(3)[:, None, None]
    A, B = np.indices((3, 2, 4))[:2].reshape(2, -1)
    of_a = np.stack([(A == 1) - (A == 0) * 1.0, (A == 2) - (A == 0) * 1.0])
    of_b = ((B == 1) - (B == 0) * 1.0)[None]
    columns = {"1": np.ones((1, 24)), "A": of_a, "B": of_b, "AxB": of_a * of_b}

    def left(names):
        X = np.concatenate([columns[name] for name in names]).T
        return float(np.sum((y.ravel() - X @ np.linalg.lstsq(X, y.ravel(), rcond=None)[0]) ** 2))

    whole, found = left(columns), factorial(y)
    for name in ("A", "B", "AxB"):
        df = len(columns[name])
        f = (left([other for other in columns if other != name]) - whole) / df / (whole / 18)
        assert found[name].statistic == pytest.approx(f)
        assert found[name].p == pytest.approx(stats.f.sf(f, df, 18))


def test_groups_that_do_not_vary():
    assert compare([2, 2], [2, 2]).verdict == "not significant"
    assert compare([2, 2], [1, 1]).verdict == "lower"
    with pytest.raises(ValueError, match="at least two"):
        compare([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="pairs"):
        paired_t([1.0, 2.0], [1.0, 2.0, 3.0])


def test_nine_watts_are_found_as_often_as_theory_says():
    """Power of the equal-variance t test from the noncentral t, which Welch's nearly reaches at n = 5."""
    shift = 9 / 5 / math.sqrt(2 / 5)
    beyond = stats.t.isf(0.025, 8)
    theory = stats.nct.sf(beyond, 8, shift) + stats.nct.cdf(-beyond, 8, shift)
    random = generator(5)
    found = sum(compare(random.normal(200, 5, 5), random.normal(191, 5, 5)).verdict == "lower" for _ in range(1000))
    assert theory > 0.6
    assert found / 1000 == pytest.approx(theory, abs=0.05)
    assert found > 600

"""Student's t and Fisher's F, from the regularised incomplete beta function I_x(a, b).

    P(|t| > s) = I_{df/(df + s^2)}(df/2, 1/2)        P(F > f) = I_{d2/(d2 + d1 f)}(d2/2, d1/2)

I_x is summed as its continued fraction by Lentz's rule (DLMF 8.17.22, and 8.17.4 where the fraction is slow).
"""

from __future__ import annotations

import math

_TINY = 1e-300


def t_tails(t: float, df: float) -> float:
    """P(|t| > s): the p value of a two-sided t test.

    >>> round(t_tails(-1.224744871, 4), 4)
    0.2879
    """
    return 0.0 if math.isinf(t) else incomplete_beta(df / (df + t * t), df / 2, 0.5)


def f_tail(f: float, d1: float, d2: float) -> float:
    """P(F > f): the p value of an analysis of variance.

    >>> round(f_tail(1.5, 1, 4), 4)
    0.2879
    """
    return 0.0 if math.isinf(f) else incomplete_beta(d2 / (d2 + d1 * f), d2 / 2, d1 / 2)


def t_beyond(p: float, df: float) -> float:
    """The t whose two tails hold p, by bisection.

    >>> round(t_beyond(0.05, 4), 4)
    2.7764
    """
    if not 0 < p < 1:
        raise ValueError(f"p={p} is no error rate; give one between 0 and 1, such as 0.05")
    low, high = 0.0, 1.0
    while t_tails(high, df) > p:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if t_tails(middle, df) > p else (low, middle)
    return high


def incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), for x from 0 to 1.

    >>> incomplete_beta(0.25, 1.0, 1.0)
    0.25
    """
    if not (0 <= x <= 1 and a > 0 and b > 0):
        raise ValueError(f"I_x(a, b) of x={x}, a={a}, b={b} is not defined; give 0 <= x <= 1 and a, b > 0")
    if x in (0, 1):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d_1/(1 + d_2/(1 + ...))."""
    value, c, d, n = 1.0, 1.0, 0.0, 0
    while n < 10_000:
        n += 1
        m = n // 2
        if n % 2:
            coefficient = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / ((1 + coefficient * d) or _TINY)
        c = (1 + coefficient / c) or _TINY
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value

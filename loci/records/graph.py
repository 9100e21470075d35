"""Personalised PageRank: the slow exact form beside the fast one."""

from __future__ import annotations

import numpy as np

from loci.core.ports import I64
from loci.records.ledger import F64


def pagerank(src: I64, dst: I64, weight: F64, reset: F64, *, damping: float = 0.5) -> F64:
    """Stationary distribution of a walker that restarts with probability 1 - damping: r = (1-d) p + d A^T r.

    src, dst (E,): arcs of a weighted graph (an undirected edge is two arcs); weight (E,) >= 0; reset (N,) >= 0, not
    all 0, is normalised to p. A is row-stochastic; a walker on a node without arcs restarts from p. Returns (N,), sum 1.
    Haveliwala, "Topic-sensitive PageRank", 2002.
    """
    r = visits(src, dst, weight, _distribution(reset), damping=damping)
    return np.asarray(r / r.sum(), np.float64)


def visits(
    src: I64, dst: I64, weight: F64, start: F64, *, damping: float = 0.5, tolerance: float = 1e-13, most: int = 1000
) -> F64:
    """How often walkers from `start` (N,) are seen before they stop or are stuck: (I - d A^T)^-1 start, linear in it.

    PageRank is this, scaled to sum 1: restarts only scale it. So the visits of parts of a reset vector explain the whole.
    """
    n = len(start)
    out = np.bincount(src, weight, n)
    share = damping * weight / np.where(out > 0, out, 1.0)[src]
    step: F64 = start
    r: F64 = start
    for _ in range(most):
        step = np.asarray(np.bincount(dst, share * step[src], n), np.float64)
        r = r + step
        if step.sum() <= tolerance * r.sum():
            break
    return r


def pagerank_slow(src: I64, dst: I64, weight: F64, reset: F64, *, damping: float = 0.5) -> F64:
    """The same by one dense solve: (1 - d) (I - d A^T)^-1 p."""
    n = len(reset)
    p = _distribution(reset)
    a = np.zeros((n, n))
    np.add.at(a, (src, dst), weight)
    out = np.asarray(a.sum(1), np.float64)
    rows = np.where(out[:, None] > 0, a / np.where(out > 0, out, 1)[:, None], p)
    return np.asarray(np.linalg.solve(np.eye(n) - damping * rows.T, (1 - damping) * p), np.float64)


def _distribution(reset: F64) -> F64:
    total = reset.sum()
    if not np.isfinite(total) or total <= 0 or (reset < 0).any():
        raise ValueError(f"reset sums to {total}; give weights of at least 0 that are not all 0")
    return np.asarray(reset / total, np.float64)

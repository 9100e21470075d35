"""PageRank against a dense solve, against igraph, and its parts against the whole."""

import igraph
import numpy as np
import pytest

from loci.records.graph import pagerank, pagerank_slow, visits


def random_graph(seed):
    rng = np.random.default_rng(seed)
    n, edges = int(rng.integers(2, 40)), int(rng.integers(0, 90))
    a, b = rng.integers(n, size=edges), rng.integers(n, size=edges)
    a, b = a[a != b], b[a != b]
    w = rng.uniform(0.1, 3, len(a))
    reset = rng.uniform(0, 1, n) * (rng.uniform(size=n) < 0.5)
    reset[rng.integers(n)] += 0.5
    return n, np.r_[a, b], np.r_[b, a], np.r_[w, w], reset


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("damping", [0.5, 0.85])
def test_power_iteration_equals_the_dense_solve(seed, damping):
    _, src, dst, w, reset = random_graph(seed)
    fast = pagerank(src, dst, w, reset, damping=damping)
    slow = pagerank_slow(src, dst, w, reset, damping=damping)
    assert np.abs(fast - slow).max() < 1e-8
    assert abs(fast.sum() - 1) < 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_it_equals_igraph_where_nobody_is_stuck(seed):
    n, src, dst, w, reset = random_graph(seed)
    stuck = np.bincount(src, minlength=n) == 0
    ring = np.flatnonzero(stuck)
    src, dst = np.r_[src, ring, np.zeros_like(ring)], np.r_[dst, np.zeros_like(ring), ring]
    keep = src != dst
    w = np.r_[w, np.ones(2 * len(ring))][keep]
    src, dst = src[keep], dst[keep]
    if not len(src) or (np.bincount(src, minlength=n) == 0).any():
        pytest.skip("a single node is left alone")
    graph = igraph.Graph(n=n, edges=list(zip(src.tolist(), dst.tolist())), directed=True)
    expected = graph.personalized_pagerank(
        reset=reset.tolist(), weights=w.tolist(), damping=0.5, implementation="prpack"
    )
    assert np.abs(pagerank(src, dst, w, reset) - expected).max() < 1e-9


def test_visits_are_linear_so_parts_explain_the_whole():
    _, src, dst, w, reset = random_graph(3)
    one = np.where(np.arange(len(reset)) % 2 == 0, reset, 0)
    total = visits(src, dst, w, reset)
    assert np.allclose(visits(src, dst, w, one) + visits(src, dst, w, reset - one), total, atol=1e-12)
    assert np.allclose(total / total.sum(), pagerank_slow(src, dst, w, reset), atol=1e-9)


def test_a_reset_of_nothing_is_refused():
    with pytest.raises(ValueError, match="not all 0"):
        pagerank(np.array([0]), np.array([1]), np.array([1.0]), np.zeros(2))

"""Multi-hop: from the best candidates along the names they mention to what those names are the heads of.

The graph is never stored: its nodes are the best candidates and the items whose head (title, or the name of an entity) they
mention; a walker starts at the candidates, by their scores squared, and personalised PageRank says where it is seen.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from loci.core.ports import I64
from loci.records import analysis, extract
from loci.records.graph import visits
from loci.records.ledger import F64
from loci.records.view import View

START = 5  # candidates that the walk starts from
DAMPING = 0.5
_READ = 4000  # characters of a text in which names are looked for


@lru_cache(maxsize=20_000)
def mentions(text: str) -> tuple[str, ...]:
    """Names that a text mentions, each once, in order."""
    return tuple(dict.fromkeys(extract.names(text[:_READ])))


def linked(query: str, view: View, own: F64) -> tuple[I64, F64]:
    """Places that a walk from the best candidates visits, rising, and how often, the most visited 1."""
    top = view.top(own, START)
    nothing = np.empty(0, np.int64), np.empty(0)
    if not len(top) or not view.has_heads():
        return nothing
    asked = set(analysis.query_tokens(query))
    named = [[n for n in mentions(text) if not set(analysis.tokens(n)) <= asked] for text in view.texts(top.tolist())]
    heads = view.heads({name for names in named for name in names})
    arcs = [
        (place, other, 1.0 / len(heads[name]))
        for place, names in zip(top.tolist(), named, strict=True)
        for name in names
        for other in heads.get(name, ())
        if other != place
    ]
    if not arcs:
        return nothing
    ends = np.array([(a, b) for a, b, _ in arcs], np.int64)
    nodes, at = np.unique(np.concatenate([ends.ravel(), top]), return_inverse=True)
    at = at[: 2 * len(ends)].reshape(-1, 2)
    start = np.zeros(len(nodes))
    start[np.searchsorted(nodes, top)] = own[top] ** 2
    seen = visits(at[:, 0], at[:, 1], np.array([w for *_, w in arcs]), start, damping=DAMPING) - start
    reached = seen > 0
    return nodes[reached], seen[reached] / seen.max()

"""The default scheme: words, surroundings, meaning, time and what was useful, fused by score.

    score(i) = words + near + around + session + answer        (talk.py; BM25 over wider and wider surroundings)
               x (1 + speaker) (1 + asks) (1 + first person)
             + meaning * max(0, cosine) * best score           (with an embedder)
             + recency * 2^(-age / half-life) * best score

Paper: none; the parts are BM25 (Robertson and Zaragoza, 2009), passage context (Callan, 1994) and score fusion
(Fox and Shaw, 1994). Weights were chosen by leave-one-conversation-out on five conversations.
Differs: nothing.
Keeps: what BM25 keeps; with an embedder 2 d bytes an item.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from loci.core.card import method
from loci.core.ports import I64
from loci.records import analysis, talk
from loci.records.item import Hit
from loci.records.ledger import F64
from loci.records.scheme import Plain, Query
from loci.records.view import View

K1, B = 0.9, 0.4
MEANING = 0.5
RECENCY = 0.01
HALF_LIFE = 30 * 86400.0
NEAREST = 50  # items that come in by meaning alone


@method(
    name="loci",
    kind="scheme",
    title="Score fusion of words, surroundings, meaning, time and feedback",
    says="recalls turns of long conversations without a model; explains every score",
    bytes="6*P + 2*d*N",
)
class Loci(Plain):
    """The scheme that `Memory` opens with.

    >>> from loci import Memory
    >>> with Memory(":memory:") as memory:
    ...     ids = memory.add(["Ana: what did you do?", "Bo: I went to Rome with my sister"], session="1")
    ...     memory.recall("where did Bo go?")[0].item.text
    'Bo: I went to Rome with my sister'
    """

    name = "loci"

    def __init__(self) -> None:
        self.weights = talk.Weights()

    def recall(self, query: Query, view: View) -> list[Hit]:
        """The k best by the fused score; `why` has one entry for each part that is not 0."""
        found, shares = self.scored(query, view)
        if not len(found):
            return []
        score = sum(shares.values(), np.zeros(len(found)))
        best = np.lexsort((found, -score))[: query.k]
        best = best[score[best] > 0]
        whys = [{name: float(part[at]) for name, part in shares.items() if part[at]} for at in best]
        return [Hit(item, sum(why.values()), why) for item, why in zip(view.items(found[best].tolist()), whys, strict=True)]

    def scored(self, query: Query, view: View) -> tuple[I64, dict[str, F64]]:
        """Places of the candidates and the parts of their scores."""
        terms = view.postings(analysis.query_tokens(query.text), k1=K1, b=B)
        own = np.zeros(len(view.ledger))
        for places, part in terms.values():
            own[places] += part
        own[~view.live] = 0
        chosen = talk.seeds(view, own)
        cosine = view.dense(query.text)
        if cosine is not None:
            chosen = np.union1d(chosen, view.top(cosine, NEAREST))
        if not len(chosen):
            return chosen, {}
        found, spots = talk.around(view, chosen)
        shares = talk.parts(view, terms, own, found, spots, self.weights)
        best = float(sum(shares.values(), np.zeros(len(found))).max(initial=0)) or 1.0
        if cosine is not None:
            shares["meaning"] = MEANING * best * np.maximum(cosine[found], 0).astype(np.float64)
        return found, shares | {"recency": RECENCY * best * self._recency(view, found, shares)}

    def _recency(self, view: View, found: I64, shares: dict[str, F64]) -> F64:
        """1 for what happened just now, halved every HALF_LIFE; 0 for what matched nothing."""
        at = view.ledger.at[found]
        age = np.maximum(view.when - np.where(np.isnan(at), -np.inf, at), 0)
        matched = sum(shares.values(), np.zeros(len(found))) > 0
        return np.where(matched, np.exp2(-age / HALF_LIFE), 0.0)


def with_weights(**weights: float) -> Loci:
    """The scheme with other weights of its parts: for ablations."""
    scheme = Loci()
    scheme.weights = replace(scheme.weights, **weights)
    return scheme

"""The default scheme: words, surroundings, meaning, time and what was useful, fused by score.

    score(i) = (words + around + session + answer)             (talk.py: BM25 of the turn and of its surroundings)
               x (1 + speaker) (1 + first person)
             + meaning * max(0, cosine) * best score           (with an embedder)
             + linked * (visits of a walk along names) * best score  (linked.py: personalised PageRank)
             + recency * 2^(-age / half-life) * best score
             + learned                                           (words of questions for which it was useful)

Paper: none; the parts are BM25 (Robertson and Zaragoza, 2009), passage context (Callan, 1994) and score fusion
(Fox and Shaw, 1994). Weights were chosen by leave-one-conversation-out on five conversations.
Differs: nothing.
Keeps: what BM25 keeps; with an embedder 2 d bytes an item.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np

from loci.core.card import method
from loci.core.ports import I64
from loci.records import analysis, learning, linked, talk
from loci.records.item import Hit, Hits
from loci.records.ledger import F64
from loci.records.scheme import Changes, Plain, Query
from loci.records.view import View, best

MEANING = 1.0
LINKED = 0.6
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
        policy = learning.Policy.loads(view.state(learning.STATE))
        if policy.trusted:
            shares = {name: part * policy.weights.get(name, 1.0) for name, part in shares.items()}
        else:
            shares.pop(learning.LEARNED, None)
        score = sum(shares.values(), np.zeros(len(found)))
        chosen = best(found, score, query.k)
        chosen = chosen[score[chosen] > 0]
        whys = [{name: float(part[at]) for name, part in shares.items() if part[at]} for at in chosen]
        return [
            Hit(item, sum(why.values()), why)
            for item, why in zip(view.items(found[chosen].tolist()), whys, strict=True)
        ]

    def scored(self, query: Query, view: View) -> tuple[I64, dict[str, F64]]:
        """Places of the candidates and the parts of their scores."""
        terms = view.postings(analysis.query_tokens(query.text))
        own = np.zeros(len(view.ledger))
        for places, part in terms.values():
            own[places] += part
        own[~view.live] = 0
        chosen = talk.seeds(view, own)
        meaning = view.meaning(query.text)
        if meaning is not None:
            chosen = np.union1d(chosen, meaning.nearest(NEAREST))
        if not len(chosen):
            return chosen, {}
        reached, visits = linked.linked(query.text, view, own)
        chosen = np.union1d(chosen, reached)
        found, spots = talk.around(view, chosen)
        shares = talk.parts(query.text, view, terms, own, found, spots, self.weights)
        most = float(sum(shares.values(), np.zeros(len(found))).max(initial=0)) or 1.0
        if meaning is not None:
            shares["meaning"] = MEANING * most * np.maximum(meaning.cosines(found), 0).astype(np.float64)
        if len(reached):
            shares["linked"] = LINKED * most * _at(found, reached, visits)
        shares["recency"] = RECENCY * most * self._recency(view, found, shares)
        shares[learning.LEARNED] = self._learned(view, found, query.text)
        return found, shares

    def learn(self, hits: Hits, reward: float, view: View) -> Changes:
        """Move the policy towards the hits that were useful for their question, and keep its words with them."""
        found, shares = self.scored(Query(text=hits.query, now=view.when), view)
        place = {int(id_): at for at, id_ in enumerate(view.ledger.ids[found])}
        useful = [place[hit.item.id] for hit in hits if hit.item.id in place]
        if not useful or not reward:
            return Changes()
        policy = learning.step(learning.Policy.loads(view.state(learning.STATE)), shares, useful, reward)
        terms = analysis.query_tokens(hits.query)
        kept = {
            name: learning.words(view.state(name), terms, reward) for name in (f"item:{hit.item.id}" for hit in hits)
        }
        value = {hit.item.id: (hit.item.value + reward, hit.item.uses + 1) for hit in hits}
        return Changes(value=value, state={learning.STATE: policy.dumps(), **kept})

    def _learned(self, view: View, found: I64, question: str) -> F64:
        """Idf of the question's words that are kept with an item, each as often as it was rewarded, at most 3."""
        kept: dict[int, dict[str, float]] = view.built("item words", lambda: _kept(view))
        scores = np.zeros(len(found))
        if not kept:
            return scores
        asked = set(analysis.query_tokens(question))
        spread = Counter(term for words in kept.values() for term in words)
        for at, id_ in enumerate(view.ledger.ids[found].tolist()):
            for term, times in kept.get(id_, {}).items():
                if term in asked:
                    scores[at] += times * np.log1p(len(kept) / spread[term])
        return scores

    def _recency(self, view: View, found: I64, shares: dict[str, F64]) -> F64:
        """1 for what happened just now, halved every HALF_LIFE; 0 for what matched nothing."""
        at = view.ledger.at[found]
        age = np.maximum(view.when - np.where(np.isnan(at), -np.inf, at), 0)
        matched = sum(shares.values(), np.zeros(len(found))) > 0
        return np.where(matched, np.exp2(-age / HALF_LIFE), 0.0)


def _at(found: I64, places: I64, values: F64) -> F64:
    """Values of places as an array over `found`, 0 elsewhere; both rising or not."""
    order = np.argsort(found)
    at = order[np.minimum(np.searchsorted(found, places, sorter=order), len(found) - 1)]
    out = np.zeros(len(found))
    hit = found[at] == places
    out[at[hit]] = values[hit]
    return out


def _kept(view: View) -> dict[int, dict[str, float]]:
    return {int(name.split(":")[1]): json.loads(data) for name, data in view.states("item:").items()}


def with_weights(**weights: float) -> Loci:
    """The scheme with other weights of its parts: for ablations."""
    scheme = Loci()
    scheme.weights = replace(scheme.weights, **weights)
    return scheme

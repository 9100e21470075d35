"""BM25 with a question-word stop list and stems: the strong form of the plain lexical baseline.

Paper: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, eq. 3.15; idf as in Lucene.
Differs: statistics are those of the scope; the date on which an item happened is part of its indexed text.
Keeps: 6 bytes for each distinct term of an item, and one row for each term, scope and 4096 ids.
"""

from __future__ import annotations

from loci.core.card import method
from loci.records import analysis
from loci.records.item import Hit
from loci.records.scheme import Plain, Query
from loci.records.view import View


@method(
    name="loci",
    kind="scheme",
    title="The Probabilistic Relevance Framework: BM25 and Beyond",
    paper="doi:10.1561/1500000019",
    says="ranks by shared words, rare ones first: the plain baseline in its strong form",
    bytes="6*P",  # P: distinct (item, term) pairs
)
class Loci(Plain):
    """Items by the words they share with the question.

    >>> from loci import Memory
    >>> with Memory(":memory:", scheme="bm25") as memory:
    ...     ids = memory.add(["the cat sat", "a dog barked"])
    ...     [(hit.item.text, list(hit.why)) for hit in memory.recall("who was barking, the dog?")]
    [('a dog barked', ['bark', 'dog'])]
    """

    name = "loci"
    k1, b = 1.2, 0.75

    def recall(self, query: Query, view: View) -> list[Hit]:
        """The k best by BM25; `why` has one part for each word."""
        terms = view.postings(analysis.query_tokens(query.text), k1=self.k1, b=self.b)
        return hits_of(query, view, terms)


def hits_of(query: Query, view: View, terms: dict) -> list[Hit]:  # type: ignore[type-arg]
    """Sum parts by item and explain each."""
    import numpy as np

    scores = np.zeros(len(view.ledger))
    for places, part in terms.values():
        scores[places] += part
    best = view.top(scores, query.k)
    whys: list[dict[str, float]] = [{} for _ in best]
    for term, (places, part) in terms.items():
        shares = dict(zip(places.tolist(), part.tolist(), strict=True)) if len(places) < 64 else None
        for why, place in zip(whys, best.tolist(), strict=True):
            if shares is not None:
                share = shares.get(place)
            else:
                at = int(np.searchsorted(places, place))
                share = float(part[at]) if at < len(places) and places[at] == place else None
            if share is not None:
                why[term] = share
    return [Hit(item, sum(why.values()), why) for item, why in zip(view.items(best.tolist()), whys, strict=True)]

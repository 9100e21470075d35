"""Dense retrieval: cosine between the question's vector and every item's, exact.

Paper: Karpukhin et al., "Dense Passage Retrieval", arXiv:2004.04906, sec. 3.1 (inner product of two encodings).
Differs: one encoder for both sides, whichever the memory was opened with; vectors are kept as float16.
Keeps: 2 d N bytes.
"""

from __future__ import annotations

from loci.core.card import method
from loci.core.errors import LociError
from loci.records.item import Hit
from loci.records.scheme import Plain, Query
from loci.records.view import View


@method(
    name="dense",
    kind="scheme",
    title="Dense Passage Retrieval for Open-Domain Question Answering",
    paper="arXiv:2004.04906",
    says="ranks by cosine of sentence vectors: what most vector memories are",
    bytes="2*d*N",
)
class Dense(Plain):
    """Items by the cosine of their vector with the question's.

    >>> from loci import Memory
    >>> with Memory(":memory:", scheme="dense", embedder="hash") as memory:
    ...     ids = memory.add(["the cat sat on the mat", "a dog barked"])
    ...     memory.recall("dogs barking")[0].item.text
    'a dog barked'
    """

    name = "dense"

    def recall(self, query: Query, view: View) -> list[Hit]:
        """The k nearest; an item without a vector yet is not found. LociError without an embedder."""
        if view.embedder is None:
            raise LociError(
                "scheme 'dense' has no embedder; open the memory with embedder='minilm', 'hash' or your own"
            )
        meaning = view.meaning(query.text)
        if meaning is None:
            return []
        best = meaning.nearest(query.k)
        whys = [{"cosine": float(cosine)} for cosine in meaning.cosines(best)]
        return [Hit(item, why["cosine"], why) for item, why in zip(view.items(best.tolist()), whys, strict=True)]

"""How near items are to a text: by comparing every vector, or by asking the engine's own index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from loci.core.ports import F32, I64
from loci.records.database import Database

if TYPE_CHECKING:
    from loci.records.view import View

_WIDER = 4  # how often a look-up is repeated for twice as many, where too few of those found are live in the view


class Meaning(Protocol):
    """Nearness of the items of a view to one text."""

    def nearest(self, k: int) -> I64:
        """Places of the k nearest live items, best first."""
        ...

    def cosines(self, places: I64) -> F32:
        """Cosines of the items at places, 0 where one has no vector."""
        ...


@dataclass(frozen=True, slots=True)
class Compared:
    """Exact: the cosine of every item (N,)."""

    view: View
    scores: F32

    def nearest(self, k: int) -> I64:
        """Places of the k nearest live items, best first."""
        return self.view.top(self.scores, k)

    def cosines(self, places: I64) -> F32:
        """Cosines of the items at places."""
        return self.scores[places]


@dataclass(frozen=True, slots=True)
class LookedUp:
    """Approximate in who is found, exact in how near: the engine's index of a model's vectors, for one query (dim,)."""

    view: View
    db: Database
    model: int
    query: F32

    def nearest(self, k: int) -> I64:
        """Places of about the k nearest live items, best first."""
        scopes, asked = list(self.view.ledger.scopes), k
        for _ in range(_WIDER):
            ids = self.db.nearest(self.model, self.query, scopes, asked, self.view.least)
            places = self.view.ledger.places(np.array(ids, np.int64))
            places = places[places >= 0]
            live = places[self.view.live[places]]
            if len(live) >= k or len(ids) < asked:
                break
            asked *= 2
        return live[:k]

    def cosines(self, places: I64) -> F32:
        """Cosines of the items at places."""
        ids = self.view.ledger.ids[places].tolist()
        told = dict(self.db.cosines(self.model, self.query, ids))
        return np.array([told.get(id_, 0.0) for id_ in ids], np.float32)

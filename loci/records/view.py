"""A view: what a scheme sees. One scope, one version, read only, nothing loaded before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loci.core.ports import F32, I64, Embedder
from loci.records import analysis, postings, rows, vectors
from loci.records.database import Database
from loci.records.item import KINDS, ORDINARY, UNTRUSTED, Item, Link
from loci.records.ledger import F64, Ledger
from loci.records.meaning import Compared, LookedUp, Meaning
from loci.records.postings import K1, B, Posting
from loci.records.vectors import Matrix


def best(places: I64, scores: NDArray[np.floating[Any]], k: int) -> I64:
    """Where the k best scores stand, best first, ties by place; the others are not sorted."""
    among = np.arange(len(scores))
    if len(scores) > 4 * k + 64:
        kth = np.partition(scores, len(scores) - k)[len(scores) - k] if k else np.inf
        among = np.flatnonzero(scores >= kth)
    return among[np.lexsort((places[among], -scores[among]))][:k]


class Shelf:
    """What is kept in memory between reads of one scope: its ledger, its vectors, and what schemes built on them."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.matrices: dict[int, Matrix] = {}
        self.built: dict[str, tuple[int, Any]] = {}  # name -> (version, thing)
        self.trusted: Shelf | None = None  # as if nothing untrusted had ever been kept

    def renewed(self, ledger: Ledger) -> Shelf:
        """A shelf for a newer ledger that takes over what can still serve; readers of the old one are not disturbed."""
        shelf = Shelf(ledger)
        shelf.matrices = dict(self.matrices)
        shelf.built = dict(self.built)
        return shelf

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held."""
        mine = self.ledger.nbytes + sum(matrix.nbytes for matrix in self.matrices.values())
        return mine + (0 if self.trusted is None else self.trusted.nbytes)


class View:
    """A snapshot of the items at or under a scope, as they stood at `when`. Arrays are over its N items.

    `live` (N,) tells which items may be recalled; `ledger` holds their numbers; scores outside `live` do not count.
    """

    def __init__(
        self,
        db: Database,
        path: str,
        shelf: Shelf,
        *,
        scheme: str,
        when: float,
        past: bool = False,
        embedders: Sequence[Embedder] = (),
        kinds: Sequence[str] | None = None,
    ) -> None:
        self._db = db
        self._shelf = shelf
        self._scheme = scheme
        self._embedders = embedders
        self._dense: dict[str, F32 | None] = {}
        self._terms: dict[tuple[str, float, float], tuple[I64, F64] | None] = {}
        self._lists: dict[str, Posting] = {}
        self._whole: View | None = None  # the view of which this is the trusted part
        self.least = UNTRUSTED  # the lowest trust of what it shows
        self.scope = path
        self.when = when
        self.past = past  # True: the past as it was, so nothing may be built on it
        self.ledger = shelf.ledger
        self.version = shelf.ledger.seq
        self.live: NDArray[np.bool_] = self.ledger.now(when)
        if kinds is not None:
            self.live = self.live & np.isin(self.ledger.kind, [KINDS.index(kind) for kind in kinds])

    def trusted(self) -> View | None:
        """The same view as if nothing untrusted had ever been kept; None where trust makes no difference.

        Surroundings, statistics, names and speakers are those of the trusted items alone, so that no number of untrusted ones
        moves them. Only the mean length of an item stays that of the whole scope.
        """
        low = self.ledger.trust < ORDINARY
        if not (self.live & low).any() or not (self.live & ~low).any():
            return None
        if self._shelf.trusted is None:
            self._shelf.trusted = Shelf(self.ledger.only(~low))
        view = View(
            self._db, self.scope, self._shelf.trusted, scheme=self._scheme, when=self.when, past=self.past,
            embedders=self._embedders,
        )  # fmt: skip
        view.live, view.least, view._whole = self.live[~low], ORDINARY, self
        return view

    def __len__(self) -> int:
        """How many items are live."""
        return int(np.count_nonzero(self.live))

    def postings(self, terms: Sequence[str], *, k1: float = K1, b: float = B) -> dict[str, tuple[I64, F64]]:
        """BM25 by term: the places of the items that contain it, rising, and its share of their scores."""
        wanted = list(dict.fromkeys(terms))
        if new := [term for term in wanted if (term, k1, b) not in self._terms]:
            lists = self._read(new)
            items, tokens = self._totals
            parts = postings.bm25(lists, items=items, tokens=tokens, k1=k1, b=b)
            self._terms |= {(term, k1, b): self._placed(*parts[term]) if term in parts else None for term in new}
        return {term: held for term in wanted if (held := self._terms[term, k1, b]) is not None}

    def _read(self, terms: Sequence[str]) -> dict[str, Posting]:
        """Posting lists, each read once for a view and its trusted part."""
        if self._whole is None:
            if new := [term for term in terms if term not in self._lists]:
                self._lists |= postings.read(self._db, list(self.ledger.scopes), new)
            return {term: self._lists[term] for term in terms if term in self._lists}
        found = {}
        for term, (ids, tf, lengths) in self._whole._read(terms).items():
            mine = self.ledger.places(ids) >= 0
            if mine.any():
                found[term] = ids[mine], tf[mine], lengths[mine]
        return found

    def _placed(self, ids: I64, part: F64) -> tuple[I64, F64]:
        places = self.ledger.places(ids)
        inside = places >= 0
        places, part = places[inside], part[inside]
        if len(places) > 1 and (places[1:] < places[:-1]).any():  # several scopes: each came in its own order
            order = np.argsort(places)
            places, part = places[order], part[order]
        return places, part

    def lexical(self, text: str, *, k1: float = K1, b: float = B) -> F64:
        """BM25 of every item for a text: (N,), 0 where no term is shared."""
        scores = np.zeros(len(self.ledger))
        for places, part in self.postings(analysis.query_tokens(text), k1=k1, b=b).values():
            scores[places] += part  # an item stands once in a posting list
        return scores

    @cached_property
    def _totals(self) -> tuple[int, int]:
        """Items and tokens in the lexical index of the scope."""
        if self._whole is not None:
            items, tokens = self._whole._totals
            return len(self.ledger), round(tokens * len(self.ledger) / max(items, 1))
        items = tokens = 0
        for some in rows.batches(self.ledger.scopes):
            sql = (
                f"SELECT coalesce(sum(items), 0), coalesce(sum(tokens), 0) FROM scope WHERE id IN ({rows.marks(some)})"
            )
            n, t = self._db.execute(sql, some).fetchone()
            items, tokens = items + int(n), tokens + int(t)
        return items, tokens

    def dense(self, text: str) -> F32 | None:
        """Cosine of every item with a text: (N,), 0 where an item has no vector yet; None without an embedder."""
        if text not in self._dense:
            self._dense[text] = self._cosines(text)
        return self._dense[text]

    def meaning(self, text: str) -> Meaning | None:
        """How near the items are to a text: compared one by one, or looked up in the engine's index of a large scope."""
        if len(self.ledger) > vectors.EXACT and not self.past and len(self._embedders) == 1:
            model = vectors.model_id(self._db, self._embedders[0])
            if model is not None and self._db.indexes_vectors:
                return LookedUp(self, self._db, model, self._embedders[0].embed([text])[0])
        scores = self.dense(text)
        return None if scores is None else Compared(self, scores)

    def _cosines(self, text: str) -> F32 | None:
        scores: F32 | None = None
        served = np.zeros(len(self.ledger), bool)
        for embedder in self._embedders:  # newest first: an older model serves what is not yet embedded again
            matrix = self.matrix(embedder)
            if matrix is None:
                continue
            if scores is None:
                scores = np.zeros(len(self.ledger), np.float32)
            have = np.zeros(len(self.ledger), bool)
            have[self.ledger.places(matrix.have)] = True
            fresh = have & ~served
            if fresh.any():
                cosines = matrix.rows @ embedder.embed([text])[0]
                scores[fresh] = cosines[fresh]
                served |= fresh
        return scores

    def matrix(self, embedder: Embedder | None = None) -> Matrix | None:
        """The vectors of an embedder (by default the newest) over the items; None when there are none."""
        embedder = embedder or (self._embedders[0] if self._embedders else None)
        model = None if embedder is None else vectors.model_id(self._db, embedder)
        if embedder is None or model is None:
            return None
        held = self._shelf.matrices.get(model)
        if held is None or not np.array_equal(held.ids, self.ledger.ids) or len(held.have) < len(held.ids):
            whole = None if self._whole is None else self._whole.matrix(embedder)
            held = vectors.matrix(self._db, model, embedder.dim, self.ledger.ids, whole or held)
            self._shelf.matrices[model] = held
        return held

    @property
    def embedder(self) -> Embedder | None:
        """The memory's embedder, None when it works without."""
        return self._embedders[0] if self._embedders else None

    def top(self, scores: NDArray[np.floating[Any]], k: int, *, positive: bool = True) -> I64:
        """Places of the k best live items by score, ties to the older one; only scores above 0 unless told."""
        usable = self.live & (scores > 0) if positive else self.live
        places = np.flatnonzero(usable)
        return places[best(places, scores[places], k)]

    def items(self, places: Iterable[int]) -> list[Item]:
        """The items at places, in that order."""
        ids = [int(self.ledger.ids[place]) for place in places]
        found = rows.items(self._db, ids, self.ledger.scopes)
        return [found[id_] for id_ in ids]

    def get(self, ids: Iterable[int]) -> dict[int, Item]:
        """Items by id, as far as they belong to the scope."""
        return rows.items(self._db, ids, self.ledger.scopes)

    def texts(self, places: Iterable[int]) -> list[str]:
        """Only the texts of the items at places, in that order."""
        ids = [int(self.ledger.ids[place]) for place in places]
        found: dict[int, str] = {}
        for some in rows.batches(ids):
            found |= self._db.execute(f"SELECT id, text FROM item WHERE id IN ({rows.marks(some)})", some).fetchall()
        return [found[id_] for id_ in ids]

    def every(self) -> list[Item]:
        """Every live item, by id."""
        return self.items(np.flatnonzero(self.live).tolist())

    def links(self, ids: Iterable[int]) -> list[Link]:
        """Links around items that were live, held and were known at the view's time."""
        found = rows.links(self._db, ids)
        away = rows.unlinked(self._db, [link.id for link in found], self.when) if self.past else set()
        return [link for link in found if link.id not in away and self._stands(link)]

    def _stands(self, link: Link) -> bool:
        known = link.known is None or link.known <= self.when
        live = link.gone is None or (self.past and link.gone > self.when)
        holds = (link.since is None or link.since <= self.when) and (link.until is None or self.when < link.until)
        ends = self.ledger.places(np.array([link.src, link.dst], np.int64))
        return bool(known and live and holds and (ends >= 0).all() and self.live[ends].all())

    def heads(self, names: Iterable[str]) -> dict[str, list[int]]:
        """Places of the live items whose head is one of the names."""
        found: dict[str, list[int]] = {}
        scopes = list(self.ledger.scopes)
        for some in rows.batches(sorted(names), 400):
            for within in rows.batches(scopes, 400):
                sql = (
                    f"SELECT head, id FROM item WHERE scope IN ({rows.marks(within)}) AND head IN ({rows.marks(some)})"
                )
                for name, id_ in self._db.execute(sql, (*within, *some)).fetchall():
                    place = int(self.ledger.places(np.array([id_], np.int64))[0])
                    if place >= 0 and self.live[place]:
                        found.setdefault(name, []).append(place)
        return found

    def has_heads(self) -> bool:
        """Whether any item of the scope has a head at all: talk has none."""
        sql = f"SELECT 1 FROM item WHERE scope IN ({rows.marks(list(self.ledger.scopes)[:900])}) AND head IS NOT NULL LIMIT 1"
        return self._db.execute(sql, list(self.ledger.scopes)[:900]).fetchone() is not None

    def named(self, kind: str, texts: Iterable[str]) -> dict[str, int]:
        """Live facts or entities of this very scope by their text: the oldest of each."""
        found: dict[str, int] = {}
        for some in rows.batches(sorted(set(texts))):
            sql = f"""SELECT head, min(item.id) FROM item JOIN scope ON scope.id = item.scope WHERE path = ? AND kind = ?
                      AND head IN ({rows.marks(some)}) AND gone IS NULL AND trust >= ? GROUP BY head"""
            found |= self._db.execute(sql, (self.scope, kind, *some, self.least)).fetchall()
        return found

    def provenance(self) -> tuple[I64, I64]:
        """Places of derived live items and of the live items they rest on, pair by pair."""
        pairs: list[tuple[int, int]] = []
        for some in rows.batches(self.ledger.scopes):
            sql = f"""SELECT p.item, p.source FROM provenance AS p JOIN item ON item.id = p.item
                      WHERE item.scope IN ({rows.marks(some)}) ORDER BY 1, 2"""
            pairs += self._db.execute(sql, some)
        table = np.array(pairs, np.int64).reshape(-1, 2)
        items, sources = self.ledger.places(table[:, 0]), self.ledger.places(table[:, 1])
        stand = (items >= 0) & (sources >= 0)
        items, sources = items[stand], sources[stand]
        live = self.live[items] & self.live[sources]
        return items[live], sources[live]

    def places(self, kind: str) -> I64:
        """Places of the live items of a kind."""
        return np.flatnonzero(self.live & (self.ledger.kind == KINDS.index(kind)))

    def state(self, name: str) -> bytes | None:
        """What the scheme saved under a name for this very scope."""
        sql = "SELECT data FROM state JOIN scope ON scope.id = state.scope WHERE scheme = ? AND name = ? AND path = ?"
        row = self._db.execute(sql, (self._scheme, name, self.scope)).fetchone()
        return None if row is None else bytes(row[0])

    def states(self, prefix: str) -> dict[str, bytes]:
        """Everything the scheme saved for this very scope under names that begin with a prefix."""
        sql = """SELECT name, data FROM state JOIN scope ON scope.id = state.scope
                 WHERE scheme = ? AND path = ? AND substr(name, 1, ?) = ?"""
        return dict(self._db.execute(sql, (self._scheme, self.scope, len(prefix), prefix)))

    def built(self, name: str, build: Callable[[], Any]) -> Any:
        """A thing that the scheme derives from the whole view, kept in memory until the scope changes."""
        if self.past:
            return build()
        held = self._shelf.built.get(name)
        if held is None or held[0] != self.version:
            held = self._shelf.built[name] = (self.version, build())
        return held[1]

"""Reading from a store at hand: the ledger tells order and state, texts are read for what is shown only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np

from loci.app.web.reading import ENDED, FORGOTTEN, HOLDS, LATER, Line, Row, Stock
from loci.records import Item, Memory, exchange, importers, ledger, rows
from loci.records.database import Database
from loci.records.exchange import Progress
from loci.records.importers import Result
from loci.records.item import KINDS
from loci.records.scope import DEFAULT, ROOT


class Local:
    """Reads a memory's own store."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def scopes(self) -> list[str]:
        """Paths that were ever written to."""
        with self._memory.reading() as db:
            return sorted(rows.scopes_under(db, ROOT).values())

    def span(self, scope: str) -> tuple[float, float] | None:
        """When the first and the last item became known."""
        with self._memory.reading(scope) as db:
            inside = list(rows.scopes_under(db, scope))
            found: list[float] = []
            for some in rows.batches(inside):
                sql = f"SELECT min(known), max(known) FROM item WHERE scope IN ({rows.marks(some)})"
                found += [t for t in db.execute(sql, some).fetchone() if t is not None]
        return (min(found), max(found)) if found else None

    def line(
        self, scope: str, when: float | None, *, forgotten: bool = False, start: int = 0, count: int = 100
    ) -> Line:
        """Items newest first, by when they happened, else became known."""
        with self._memory.reading(scope) as db:
            held = self._memory.view(db, scope).ledger if when is None else ledger.as_of(db, scope, when)
            now = self._memory.now() if when is None else when
            places = np.flatnonzero(~held.live if forgotten else held.live)
            at = held.at[places].copy()
            unsaid = np.isnan(at)
            if unsaid.any():
                known = dict(self._known(db, held.scopes))
                at[unsaid] = [known[id_] for id_ in held.ids[places[unsaid]].tolist()]
            places = places[np.lexsort((-held.ids[places], -at))]
            shown = places[start : start + count]
            items = rows.items(db, held.ids[shown].tolist(), held.scopes)
        found = []
        for place in shown.tolist():
            since, until = float(held.since[place]), float(held.until[place])
            item = replace(
                items[int(held.ids[place])],
                since=None if since == -np.inf else since,
                until=None if until == np.inf else until,
            )
            state = FORGOTTEN if forgotten else LATER if since > now else ENDED if until <= now else HOLDS
            found.append(Row(item, state))
        return Line(found, len(places), 0 if forgotten else int(np.count_nonzero(held.now(now)[places])))

    @staticmethod
    def _known(db: Database, scopes: dict[int, str]) -> Iterable[tuple[int, float]]:
        for some in rows.batches(scopes):
            sql = f"SELECT id, known FROM item WHERE scope IN ({rows.marks(some)}) AND at IS NULL"
            yield from db.execute(sql, some).fetchall()

    def items(self, ids: Iterable[int], scope: str) -> dict[int, Item]:
        """Items by id; forgotten ones until they are erased."""
        with self._memory.reading(scope) as db:
            return rows.items(db, list(ids), rows.scopes_under(db, scope))

    def rests(self, ids: Sequence[int], scope: str) -> dict[int, list[int]]:
        """For each item, the live items that were derived from it."""
        found: dict[int, list[int]] = {}
        with self._memory.reading(scope) as db:
            inside = rows.scopes_under(db, scope)
            for some in rows.batches(ids):
                sql = f"SELECT p.source, p.item, i.scope FROM provenance AS p JOIN item AS i ON i.id = p.item WHERE p.source IN ({rows.marks(some)}) AND i.gone IS NULL ORDER BY 1, 2"
                for source, item, of in db.execute(sql, some).fetchall():
                    if of in inside:
                        found.setdefault(source, []).append(item)
        return found

    def stock(self, scope: str) -> Stock:
        """Live items by kind and scope, from the ledger alone."""
        with self._memory.reading(scope) as db:
            held = self._memory.view(db, scope).ledger
        kinds = Counter(KINDS[place] if place >= 0 else "other" for place in held.kind[held.live].tolist())
        scopes = Counter(held.scopes[of] for of in held.scope[held.live].tolist())
        return Stock(dict(kinds.most_common()), dict(scopes.most_common()))

    def now(self) -> float:
        """The time by the memory's clock."""
        return self._memory.now()

    def held(self) -> int:
        """Bytes of the store."""
        return self._memory.nbytes

    def export(self, out: TextIO, progress: Progress) -> None:
        """Write everything as JSON lines."""
        exchange.export(self._memory, out, progress=progress)

    def bring(self, source: Path, scope: str | None, progress: Progress) -> Result:
        """Import a file: an export keeps its scopes under `scope`, everything else goes into it."""
        if exchange.is_export(source):
            added = exchange.load(self._memory, source, scope=scope, progress=progress)
            return Result(added, 0, added)
        return importers.run(self._memory, source, scope=scope or DEFAULT, progress=progress)

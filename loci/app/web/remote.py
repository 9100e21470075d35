"""Reading from a service: only through the verbs that it offers, so what has ended or was forgotten is not listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from loci.app.web.reading import HOLDS, Line, Row, Stock
from loci.app.web.words import when_of
from loci.core import clock
from loci.core.errors import Denied, UnknownItem
from loci.records import Item, Memory, exchange, importers
from loci.records.exchange import Progress
from loci.records.importers import Result
from loci.records.remote import RemoteMemory
from loci.records.scope import DEFAULT


class Remote:
    """Reads a service through its client."""

    def __init__(self, memory: Memory, scope: str) -> None:
        self._memory = memory
        self._scope = scope

    def scopes(self) -> list[str]:
        """Paths of the live items that the token sees."""
        return sorted({item.scope for item in self._memory.items(scope=self._scope)})

    def span(self, scope: str) -> tuple[float, float] | None:
        """When the first and the last live item became known."""
        found = [item.known for item in self._memory.items(scope=scope) if item.known is not None]
        return (min(found), max(found)) if found else None

    def line(
        self, scope: str, when: float | None, *, forgotten: bool = False, start: int = 0, count: int = 100
    ) -> Line:
        """Live items newest first."""
        items = [] if forgotten else self._memory.items(scope=scope, as_of=when)
        items.sort(key=lambda item: (-when_of(item), -item.id))
        return Line([Row(item, HOLDS) for item in items[start : start + count]], len(items), len(items))

    def items(self, ids: Iterable[int], scope: str) -> dict[int, Item]:
        """Live items by id."""
        found = {}
        for id_ in ids:
            try:
                (found[id_],) = self._memory.get(id_, scope=scope)
            except UnknownItem:
                continue
        return found

    def rests(self, ids: Sequence[int], scope: str) -> dict[int, list[int]]:
        """For each item, the live items that were derived from it."""
        found: dict[int, list[int]] = {}
        for item in self._memory.items(scope=scope):
            for source in set(item.sources) & set(ids):
                found.setdefault(source, []).append(item.id)
        return found

    def stock(self, scope: str) -> Stock:
        """Live items by kind and scope."""
        items = self._memory.items(scope=scope)
        kinds, scopes = Counter(item.kind for item in items), Counter(item.scope for item in items)
        return Stock(dict(kinds.most_common()), dict(scopes.most_common()))

    def now(self) -> float:
        """The time here."""
        return clock.system()

    def held(self) -> int | None:
        """Bytes of the store; a token that sees only a part of it is not told."""
        try:
            return self._memory.nbytes
        except Denied:
            return None

    def export(self, out: TextIO, progress: Progress) -> None:
        """Write everything that the token sees as JSON lines."""
        self._service.export(out, scope=self._scope, progress=progress)

    def bring(self, source: Path, scope: str | None, progress: Progress) -> Result:
        """Import a file through the service: an export as it is, what else is read here and sent item by item."""
        if exchange.is_export(source):
            added = self._service.load(source, scope=scope, progress=progress)
            return Result(added, 0, added)
        items = list(importers.read(source))
        added = self._service.load(items, scope=scope or DEFAULT, progress=progress)
        return Result(added, len(items) - added, len(items))

    @property
    def _service(self) -> RemoteMemory:
        assert isinstance(self._memory, RemoteMemory)
        return self._memory

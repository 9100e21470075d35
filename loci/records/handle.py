"""What every verb of `Memory` stands on: the open store, its views, scopes and ids, the query log."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from types import TracebackType
from typing import Any, Self

from loci.core import sizes
from loci.core.clock import Clock, moment
from loci.core.errors import BudgetExceeded, ConflictError, StoreError, UnknownItem
from loci.core.ports import Embedder
from loci.records import forget, ledger, opening, rows, trusts, write
from loci.records.database import Database
from loci.records.item import KINDS, ORDINARY, Hits, Ids, Item
from loci.records.scheme import Changes, Plain, Scheme
from loci.records.scope import DEFAULT, ROOT, covers
from loci.records.scope import scope as checked
from loci.records.turns import Turns
from loci.records.view import Shelf, View

DAY = 86400.0
TRIES = 5
_SHELVES = 64
_AT_ONCE = {  # (from a file, with an embedder): recalls at once; what waits for others leaves Python's lock to them
    (True, False): 1, (False, False): 2, (True, True): 8, (False, True): 8,
}  # fmt: skip
_PRINCIPAL = 500  # characters of who said it
_TIMES = ("at", "since", "until", "known")
Asked = tuple[str, float, str, list[int]]  # scope, time, question, ids of its hits
_LOGGED = 256  # queries kept in memory before they are written


class Handle:
    """An open store, with what it keeps in memory between calls. Safe to share between threads."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        scope: str,
        scheme: str | Scheme,
        embedder: str | Embedder | None,
        previous: str | Embedder | None,
        clock: Clock,
        restore_window: float,
        budget: int | str | None,
        log_queries: bool,
    ) -> None:
        self.scope = checked(scope)
        self.scheme = opening.scheme(scheme)
        self.embedder = opening.embedder(embedder)
        self._previous = opening.embedder(previous)
        self._clock = clock
        self._window = restore_window
        self._budget = None if budget is None else sizes.parse(budget)
        self._log_queries = log_queries
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.RLock()
        self._learning = threading.Lock()
        self._asked: list[Asked] = []
        self._erased = forget.Erased()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._store = opening.store(path)
        self._turns = Turns(_AT_ONCE[self._store.local, self.embedder is not None])

    # --- scopes and ids -------------------------------------------------------------------------------------------

    def _scope(self, scope: str | None) -> str:
        return self.scope if scope is None else checked(scope)

    def _ids(self, ids: int | Sequence[int] | Hits, scope: str | None) -> tuple[list[int], str]:
        """Ids as a list, with the scope they were asked under: named, else their own, else the handle's."""
        if isinstance(ids, Hits):
            ids = ids.ids
        path = ids.scope if scope is None and isinstance(ids, Ids) else self._scope(scope)
        some = [ids] if isinstance(ids, int) else list(ids)
        if wrong := [x for x in some if isinstance(x, bool) or not isinstance(x, int)]:
            raise TypeError(f"ids has {wrong[0]!r}; give ids as ints, as add and recall return them")
        return list(dict.fromkeys(some)), path

    @staticmethod
    def _all_there(ids: Sequence[int], found: Mapping[int, object]) -> None:
        if missing := [id_ for id_ in ids if id_ not in found]:
            raise UnknownItem(
                f"items {missing[:5]} are not live in this scope; give ids that add or recall returned, with their scope"
            )

    def _check_sources(self, db: Database, path: str, new: Sequence[Item]) -> None:
        """What is derived must rest on live items that the call's scope sees."""
        sources = {source for item in new for source in item.sources}
        if sources:
            found = rows.items(db, sources, rows.scopes_under(db, path))
            self._all_there(sorted(sources), {id_: item for id_, item in found.items() if item.gone is None})

    # --- views ----------------------------------------------------------------------------------------------------

    def _view(self, db: Database, path: str, *, as_of: float | None = None, kinds: Sequence[str] | None = None) -> View:
        """What a scheme sees, inside a read transaction."""
        embedders = [x for x in (self.embedder, self._previous) if x is not None]
        if as_of is not None:
            shelf = Shelf(ledger.as_of(db, path, as_of))
            return View(
                db, path, shelf, scheme=self.scheme.name, when=as_of, past=True, embedders=embedders, kinds=kinds
            )
        with self._lock:
            held = self._shelves.pop(path, None)
            fresh = ledger.load(db, path) if held is None else ledger.refresh(db, path, held.ledger)
            if held is None:
                held = Shelf(fresh)
            elif fresh is not held.ledger:
                held = held.renewed(fresh)
            self._shelves[path] = held  # the last used stands last
            while len(self._shelves) > _SHELVES:
                self._shelves.pop(next(iter(self._shelves)))
        return View(db, path, held, scheme=self.scheme.name, when=self._clock(), embedders=embedders, kinds=kinds)

    # --- what consolidation may do --------------------------------------------------------------------------------

    def now(self) -> float:
        """The time, by the memory's clock."""
        return self._clock()

    def reading(self, sees: str = ROOT) -> contextlib.AbstractContextManager[Database]:
        """A snapshot of what is at or under a scope."""
        return self._store.read(sees)

    def writing(self) -> contextlib.AbstractContextManager[Database]:
        """A write transaction on the store."""
        return self._store.write()

    def view(self, db: Database, path: str) -> View:
        """What the scheme sees of a scope now; the caller may narrow its `live`."""
        return self._view(db, path)

    def apply(self, path: str, changes: Changes, read_at: int, *, op: str) -> list[int]:
        """Apply a scheme's changes in one transaction, or refuse them whole (ConflictError)."""
        with self._store.write() as db:
            return self._apply(db, path, changes, read_at, op=op)

    def erase(self, *, window: float | None = None, ids: Sequence[int] | None = None) -> int:
        """Erase what was forgotten longer ago than the restore window (or `window` seconds), or forgotten `ids` now."""
        now = self._clock()
        with self._store.write() as db:
            due = ids if ids is not None else forget.due(db, now - (self._window if window is None else window))
            texts = forget.erase(db, due, now)
        self._erased.note(texts)
        if texts:
            self._store.vacuum()
        return len(texts)

    # --- what a scheme does ----------------------------------------------------------------------------------------

    def _derives(self) -> bool:
        return getattr(type(self.scheme), "write", None) is not Plain.write

    def _write_scheme(self, path: str, ids: Sequence[int]) -> None:
        """Run the scheme on committed items; trusted ones beside trusted ones alone, so that nothing untrusted stands for them."""
        for low in (False, True):
            self._write_some(path, ids, low=low)

    def _write_some(self, path: str, ids: Sequence[int], *, low: bool) -> None:
        """Run the scheme on the untrusted (`low`) or the other items; try again when rows moved meanwhile."""
        for turn in range(TRIES):
            with self._store.read() as db:
                view = self._view(db, path)
                found = view.get(ids)
                items = [found[id_] for id_ in ids if id_ in found and found[id_].gone is None]
                items = [item for item in items if (item.trust < ORDINARY) == low]
                seen = view if low else view.trusted() or view
                changes = self.scheme.write(items, seen) if items else Changes()
            if not changes:
                return
            try:
                with self._store.write() as db:
                    self._apply(db, path, changes, view.version, op="derive", by=[item.id for item in items])
                return
            except ConflictError:
                if turn == TRIES - 1:
                    raise

    def _apply(
        self, db: Database, path: str, changes: Changes, read_at: int, *, op: str, by: Sequence[int] = ()
    ) -> list[int]:
        """Apply changes; values and ends of items that lie in scopes below go to those scopes."""
        if not changes:
            return []
        scopes = rows.scopes_under(db, path)
        here = rows.scope_id(db, path)
        owner = {id_: of for some in rows.batches([*changes.value, *changes.close, *changes.forget])
                 for id_, of in db.execute(f"SELECT id, scope FROM item WHERE id IN ({rows.marks(some)})", some)}  # fmt: skip
        below = {of for of in owner.values() if of != here and of in scopes}

        def part(of: int) -> Changes:
            return Changes(
                close={i: t for i, t in changes.close.items() if owner.get(i, here) == of},
                forget=[i for i in changes.forget if owner.get(i, here) == of],
                value={i: v for i, v in changes.value.items() if owner.get(i, here) == of},
            )

        mine = replace(changes, **{name: getattr(part(here), name) for name in ("close", "forget", "value")})
        if strangers := [i for i, of in owner.items() if of != here and of not in below]:
            raise ConflictError(
                f"items {strangers[:5]} lie outside scope {path!r}; a scheme may change only what it sees"
            )
        ids = write.apply(
            db, self.scheme.name, here, mine, read_at, self._clock(), op=op, inside=scopes.keys() | {here}, by=by
        )
        for of in sorted(below):
            write.apply(
                db, self.scheme.name, of, part(of), read_at, self._clock(), op=op, inside=scopes.keys(), by=[*ids, *by]
            )
        return ids

    # --- the log and the budget --------------------------------------------------------------------------------------

    def _log(self, path: str, now: float, hits: Hits) -> None:
        with self._lock:
            self._asked.append((path, now, hits.query, list(hits.ids)))
            full = len(self._asked) >= _LOGGED
        if full:
            with contextlib.suppress(StoreError), self._store.write() as db:
                self._flush(db)

    def _flush(self, db: Database) -> None:
        """Write the buffered queries into the store's log, inside a write transaction."""
        with self._lock:
            waiting, self._asked = self._asked, []
        if not waiting:
            return
        try:
            self._keep_asked(db, waiting)
        except BaseException:
            with self._lock:
                self._asked = (waiting + self._asked)[-_LOGGED // 2 :]
            raise

    @staticmethod
    def _keep_asked(db: Database, waiting: Sequence[Asked]) -> None:
        known = {path: row[0] for path in {path for path, *_ in waiting}
                 if (row := db.execute("SELECT id FROM scope WHERE path = ?", (path,)).fetchone())}  # fmt: skip
        there = {
            id_ for some in rows.batches({id_ for *_, ids in waiting for id_ in ids})
            for (id_,) in db.execute(f"SELECT id FROM item WHERE id IN ({rows.marks(some)})", some)
        }  # fmt: skip
        db.executemany(
            "INSERT INTO asked (scope, time, query, hits) VALUES (?, ?, ?, ?)",
            ((known[path], now, query, json.dumps(ids)) for path, now, query, ids in waiting
             if path in known and there.issuperset(ids)),  # none was erased
        )  # fmt: skip

    def _check_budget(self, db: Database) -> None:
        if self._budget is None:
            return
        if (needed := db.nbytes) > self._budget:
            raise BudgetExceeded(
                f"the store would hold {sizes.show(needed)} of a budget of {sizes.show(self._budget)}; nothing was added, "
                "call consolidate() or raise the budget",
                needed=needed, limit=self._budget,
            )  # fmt: skip

    # --- the store ------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The file."""
        return str(self._store.path)

    @property
    def name(self) -> str:
        """The store's own name, given at its creation."""
        return self._store.id

    @property
    def local(self) -> bool:
        """Whether the store is a file of this machine, read without waiting for a server."""
        return self._store.local

    @property
    def nbytes(self) -> int:
        """Bytes that the store holds, indexes included."""
        return self._store.nbytes

    def flush(self) -> None:
        """Write the buffered query log and move SQLite's log into the file."""
        with self._store.write() as db:
            self._flush(db)
        self._store.checkpoint()

    def close(self) -> None:
        """Close the file; closing twice is fine. A query log that cannot be written is let go."""
        if self._store.closed:
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join()  # it stops after the batch at hand, which is kept
        with contextlib.suppress(StoreError):
            if self._asked:
                with self._store.write() as db:
                    self._flush(db)
        self._store.close()

    def _start(self, work: Callable[[], None]) -> None:
        """Do slow work in a thread of its own, until it is done or the memory is closed."""
        self._thread = threading.Thread(target=work, name="loci", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, scope={self.scope!r}, scheme={self.scheme.name!r})"


def item_of(one: str | Item, path: str, common: Mapping[str, Any]) -> Item:
    """A text or item as it will be kept: in a scope at or under the call's, of a known kind, JSON in its meta."""
    if isinstance(one, str):
        item = Item(text=one, scope=path, **common)
    elif isinstance(one, Item):
        item = _filled(one, path, common)
    else:
        raise TypeError(f"add was given a {type(one).__name__}; give text, an Item, or a list of them")
    if item.scope != path and not covers(path, item.scope):
        raise ValueError(f"item.scope={item.scope!r} lies outside scope={path!r}; add it under its own scope")
    if item.kind not in KINDS:
        raise ValueError(f"kind={item.kind!r} is unknown; choose one of {', '.join(KINDS)}")
    if item.since is not None and item.until is not None and item.since > item.until:
        raise ValueError(f"since={item.since} is after until={item.until}; give an interval that begins before it ends")
    for name in ("text", "session", "source", "principal"):
        held = getattr(item, name)
        if held is not None and not isinstance(held, str):
            raise TypeError(f"item.{name} is a {type(held).__name__}; give text")
    if item.principal is not None and len(item.principal) > _PRINCIPAL:
        raise ValueError(f"principal has {len(item.principal)} characters; give a name of at most {_PRINCIPAL}")
    try:
        for text in (item.text, item.session, item.source, item.principal):
            if text is not None and not text.isascii():
                text.encode()
        if item.meta:
            json.dumps(dict(item.meta), ensure_ascii=False, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"an item cannot be kept ({error}); give text without lone surrogates and meta that is JSON"
        ) from error
    return item


def _filled(one: Item, path: str, common: Mapping[str, Any]) -> Item:
    """An item with what the call says and it does not, in its own scope, its times as seconds."""
    changes: dict[str, Any] = {
        name: value
        for name, value in common.items()
        if name not in ("kind", "trust") and _stated(value) and not _stated(getattr(one, name))
    }
    if trusts.level(one.trust) == ORDINARY and common["trust"] != ORDINARY:
        changes["trust"] = common["trust"]
    place = path if one.scope == DEFAULT else checked(one.scope)
    if place != one.scope:
        changes["scope"] = place
    if one.id or one.version or one.gone is not None or one.held:
        changes |= {"id": 0, "version": 0, "gone": None, "held": False}
    for name in _TIMES:
        given = getattr(one, name)
        if given is not None and (seconds := moment(given, name=name)) is not given:
            changes[name] = seconds
    return replace(one, **changes) if changes else one


def _stated(value: object) -> bool:
    """Whether an item or a call says it: 0.0 is a time, while None, False and an empty meta say nothing."""
    return value is not None and value is not False and value != {}


def by_scope(items: Sequence[Item]) -> list[tuple[str, list[int]]]:
    """Runs of one scope: (scope, places), in order."""
    return [(of, list(places)) for of, places in groupby(range(len(items)), key=lambda place: items[place].scope)]

"""The doctor: examines a store, and rebuilds what can be rebuilt from the items. It never touches a text."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loci.core.errors import NotAStore
from loci.records import analysis, move, opening, postings, rows
from loci.records.database import Database, Store
from loci.records.sqlite import SQLiteStore

_BATCH = 2000
OWNERS = frozenset(
    {"table", "index", "key", "security", "policy", "orphan"}
)  # damage that only the owner of a schema can mend


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, what, and whether repair can mend it; else what to do."""

    where: str
    what: str
    mendable: bool
    do: str = "restore a backup, or export what is left"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}{'' if self.mendable else f' ({self.do})'}"


def examine(path: str | os.PathLike[str]) -> list[Finding]:
    """Everything wrong with a file or a server's tenant; [] when it is healthy. Raises NotAStore for a file that is none."""
    store = _open(path)
    try:
        with store.read() as db:
            return list(_findings(store, db))
    finally:
        store.close()


def repair(path: str | os.PathLike[str]) -> list[Finding]:
    """Rebuild the lexical index and the counters, drop vectors that do not fit and pointers to nothing; what had been wrong."""
    store = _open(path)
    try:
        with store.read() as db:
            findings = list(_findings(store, db))
        if any(finding.mendable for finding in findings):
            with store.write() as db:
                _reindex(db)
                db.execute(
                    """DELETE FROM vector WHERE item NOT IN (SELECT id FROM item) OR NOT EXISTS (
                         SELECT 1 FROM model AS m WHERE m.id = vector.model AND length(vector.data) = 2 * m.dim)"""
                )
                for table, column in _POINTERS:
                    db.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT id FROM item)")
                for table, _, highest in _behind(store, db):
                    db.advance(table, highest)
                rows.event(db, "repair", _last_time(db))
        return findings
    finally:
        store.close()


_POINTERS = (
    ("provenance", "item"), ("provenance", "source"), ("past", "item"), ("link", "src"), ("link", "dst"), ("link_source", "source"),
)  # fmt: skip
_COUNTED = (("item", "id"), ("link", "id"), ("event", "seq"), ("asked", "id"), ("job", "id"))
_SERIALS = (("scope", "id"), ("model", "id"), ("past", "id"), ("link_past", "id"))  # counted on a server only


def _open(path: str | os.PathLike[str]) -> Store:
    if "://" not in str(path) and not Path(path).exists():
        raise NotAStore(f"{path} does not exist; give the file of a memory")
    return opening.store(path)


def _last_time(db: Database) -> float:
    return float(db.execute("SELECT coalesce(max(time), 0) FROM event").fetchone()[0])


def _findings(store: Store, db: Database) -> Iterator[Finding]:
    pointers = {name for name, _ in _POINTERS} | {"vector"}
    for where, what in store.damage():
        if where in OWNERS:
            yield Finding(where, what, mendable=False, do="run it as the owner of the schema loci")
        else:
            yield Finding(where, what, mendable=where in pointers)
    lost = db.execute("SELECT count(*) FROM item WHERE scope NOT IN (SELECT id FROM scope)").fetchone()[0]
    if lost:
        yield Finding("item", f"{lost} items lie in a scope that is not there", mendable=False)
    bad = db.execute(
        "SELECT count(*) FROM vector AS v LEFT JOIN model AS m ON m.id = v.model WHERE m.id IS NULL OR length(v.data) <> 2 * m.dim"
    ).fetchone()[0]
    if bad:
        yield Finding("vector", f"{bad} vectors have another size than their model", mendable=True)
    ahead = db.execute(
        "SELECT count(*) FROM item WHERE version > (SELECT coalesce(max(seq), 0) FROM event)"
    ).fetchone()[0]
    mark = move.mark_of(db)
    if mark is not None and not mark["done"]:
        what = f"a move or restore stands at line {mark['line']}"
        yield Finding("about", what, mendable=False, do="run it again, it goes on")
    elif ahead:
        yield Finding("item", f"{ahead} items were changed by events that the log does not hold", mendable=False)
    for table, given, highest in _behind(store, db):
        what = f"ids of {table} were given up to {given}, and {highest} is there: new ones would collide"
        yield Finding("counter", what, mendable=True)
    yield from _index_drift(db)


def _behind(store: Store, db: Database) -> Iterator[tuple[str, int, int]]:
    """Counters that would give ids which are there: (table, highest given, highest there)."""
    for table, column in _COUNTED if isinstance(store, SQLiteStore) else (*_COUNTED, *_SERIALS):
        (highest,) = db.execute(f"SELECT coalesce(max({column}), 0) FROM {table}").fetchone()
        if (given := db.used(table)) < highest:
            yield table, given, highest


def _index_drift(db: Database) -> Iterator[Finding]:
    """Compare the index with the one that the items' texts ask for, entry by entry."""
    asked: Counter[tuple[str, int, int]] = Counter()  # (term, scope, item) -> tf
    counts: dict[int, list[int]] = {}
    for id_, scope, text, at in db.execute("SELECT id, scope, text, at FROM item"):
        tokens = analysis.tokens(text, at)
        asked.update((term, scope, id_) for term in tokens)
        held = counts.setdefault(scope, [0, 0])
        held[0] += 1
        held[1] += min(len(tokens), 65535)
    wrong = 0
    found = 0
    for term, scope, chunk, entries in db.execute("SELECT term, scope, chunk, entries FROM posting"):
        if len(entries) % postings.ENTRY.itemsize:
            wrong += 1
            continue
        for low, tf, _ in np.frombuffer(entries, postings.ENTRY).tolist():
            found += 1
            wrong += min(asked.get((term, scope, postings.SPAN * chunk + low), 0), 65535) != tf
    missing = len(asked) - found
    if wrong or missing:
        yield Finding(
            "posting", f"{wrong} entries do not match the items and {max(missing, 0)} are missing", mendable=True
        )
    for scope, items, tokens in db.execute("SELECT id, items, tokens FROM scope"):
        if [items, tokens] != counts.get(scope, [0, 0]):
            yield Finding(
                "scope",
                f"counters of scope {scope} are {items}, {tokens}; its items ask for {counts.get(scope, [0, 0])}",
                mendable=True,
            )


def _reindex(db: Database) -> None:
    """Build the lexical index anew from the items."""
    db.execute("DELETE FROM posting")
    db.execute("UPDATE scope SET items = 0, tokens = 0")
    for (scope,) in db.execute("SELECT id FROM scope").fetchall():
        last = 0
        while batch := db.execute(
            "SELECT id, text, at FROM item WHERE scope = ? AND id > ? ORDER BY id LIMIT ?", (scope, last, _BATCH)
        ).fetchall():
            postings.add(db, scope, [row[0] for row in batch], [analysis.tokens(text, at) for _, text, at in batch])
            last = batch[-1][0]

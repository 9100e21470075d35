"""Rows to items and back: the only place that knows the columns of `item` and `link`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, TypeVar

from loci.records.database import Database
from loci.records.item import Item, Link
from loci.records.scope import ROOT

COLUMNS = "id, kind, text, at, since, until, known, session, source, value, uses, pinned, meta, gone, version, principal, trust, held, scope"
T = TypeVar("T")
_BATCH = 900  # parameters of one statement


def batches(ids: Iterable[T], size: int = _BATCH) -> Iterator[list[T]]:
    """Ids or names in pieces that fit one statement."""
    rest = iter(ids)
    while piece := list(islice(rest, size)):
        yield piece


def marks(values: Sized) -> str:
    """Question marks for an IN list."""
    return ",".join("?" * len(values))


def scope_id(db: Database, path: str) -> int:
    """The row of a scope, made when it is new."""
    row = db.execute("SELECT id FROM scope WHERE path = ?", (path,)).fetchone()
    if row is None:
        row = db.execute("INSERT INTO scope (path) VALUES (?) RETURNING id", (path,)).fetchone()
    return int(row[0])


def scopes_under(db: Database, path: str) -> dict[int, str]:
    """Every scope that is at or under a path: id to path."""
    if path == ROOT:
        return dict(db.execute("SELECT id, path FROM scope"))
    sql = "SELECT id, path FROM scope WHERE path = ? OR (path >= ? AND path < ?)"
    return dict(db.execute(sql, (path, path + "/", path + "0")))  # "0" follows "/"


def items(db: Database, ids: Iterable[int], scopes: dict[int, str]) -> dict[int, Item]:
    """Read items by id, those of the given scopes only; forgotten ones too, erased ones are not there."""
    found = {}
    for some in batches(ids):
        rows = db.execute(f"SELECT {COLUMNS} FROM item WHERE id IN ({marks(some)})", some).fetchall()
        sources = _sources(db, "provenance", "item", some)
        for row in rows:
            if row[-1] in scopes:
                found[row[0]] = item(row, scopes[row[-1]], sources.get(row[0], ()))
    return found


def item(row: Sequence[Any], scope: str, sources: tuple[int, ...] = ()) -> Item:
    """One row of `item`, in the order of COLUMNS."""
    (
        id_,
        kind,
        text,
        at,
        since,
        until,
        known,
        session,
        source,
        value,
        uses,
        pinned,
        meta,
        gone,
        version,
        principal,
        trust,
        held,
        _,
    ) = row
    return Item(
        id=id_, kind=kind, text=text, at=at, since=since, until=until, known=known, session=session, source=source,
        value=value, uses=uses, pinned=bool(pinned), meta=json.loads(meta) if meta != "{}" else {}, gone=gone,
        version=version, principal=principal, trust=trust, held=bool(held), scope=scope, sources=sources,
    )  # fmt: skip


def links(db: Database, ids: Iterable[int]) -> list[Link]:
    """Every link that touches one of the items, forgotten ones too, by id."""
    found: dict[int, Link] = {}
    sql = "SELECT id, src, rel, dst, weight, since, until, known, gone FROM link WHERE src IN ({0}) OR dst IN ({0})"
    for some in batches(ids, _BATCH // 2):
        rows = db.execute(sql.format(marks(some)), some + some).fetchall()
        sources = _sources(db, "link_source", "link", [row[0] for row in rows])
        for id_, src, rel, dst, weight, since, until, known, gone in rows:
            found[id_] = Link(
                id=id_, src=src, rel=rel, dst=dst, weight=weight, since=since, until=until, known=known, gone=gone,
                sources=sources.get(id_, ()),
            )  # fmt: skip
    return [found[id_] for id_ in sorted(found)]


def unlinked(db: Database, links: Iterable[int], when: float) -> set[int]:
    """Links that were forgotten at a time, and came back later."""
    sql = "SELECT link FROM link_past WHERE link IN ({}) AND gone <= ? AND ? < ended"
    return {
        id_ for some in batches(links) for (id_,) in db.execute(sql.format(marks(some)), (*some, when, when)).fetchall()
    }


def _sources(db: Database, table: str, column: str, ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for some in batches(ids):
        sql = f"SELECT {column}, source FROM {table} WHERE {column} IN ({marks(some)}) ORDER BY 1, 2"
        for of, source in db.execute(sql, some):
            found[of] = (*found.get(of, ()), source)
    return found


def event(
    db: Database,
    op: str,
    now: float,
    *,
    scope: int | None = None,
    first: int | None = None,
    last: int | None = None,
    detail: dict[str, object] | None = None,
) -> int:
    """Write one line of the change log; ids first..last of the scope are read again by every cache."""
    sql = "INSERT INTO event (time, op, scope, first, last, detail) VALUES (?, ?, ?, ?, ?, ?) RETURNING seq"
    text = json.dumps(detail, ensure_ascii=False) if detail else "{}"
    return int(db.execute(sql, (now, op, scope, first, first if last is None else last, text)).fetchone()[0])


def latest(db: Database) -> int:
    """The number of the newest event: the version of the whole store."""
    return int(db.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])

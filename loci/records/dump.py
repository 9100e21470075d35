"""A store as lines: what export writes, what a backup and a move carry besides. docs/schema.md describes them.

Everything is read in pages by key, inside one snapshot, so a store of any size passes through little memory. The order of
lines and of their fields is fixed: two stores that hold the same give the same lines.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from loci.records.database import Database
from loci.records.scope import ROOT

Line = dict[str, Any]
FORMAT = 1
PAGE = 2000
ITEM = ("id", "kind", "text", "at", "since", "until", "known", "changed", "session", "source", "principal", "trust",
        "value", "uses", "pinned", "gone", "held")  # fmt: skip
PAST = ("item", "since", "until", "gone", "known", "ended")
LINK = ("id", "src", "rel", "dst", "weight", "since", "until", "known", "gone")
JOB = ("id", "kind", "detail", "done", "total", "error", "created", "ended")
TOKEN = ("hash", "name", "scope", "rights", "created", "expires", "revoked")
COUNTERS = ("item", "link", "event", "job")  # whose ids stand in lines
OWN = ("store", "move")  # keys of `about` that belong to a store and not to what it holds


class Extent(IntEnum):
    """How much of a store its lines say."""

    EXPORT = 0  # what people gave and what became of it
    BACKUP = 1  # also jobs, keys of repeated calls, how far imports came, lines of the log that have no scope
    MOVE = 2  # also vectors and the hashes of tokens


@dataclass(frozen=True, slots=True)
class Part:
    """What is at or under a path of a store, inside a read transaction."""

    db: Database
    path: str = ROOT

    def of_scopes(self, column: str = "scope") -> str:
        """The condition that a column names a scope of the part."""
        if self.path == ROOT:
            return f"{column} IS NOT NULL"
        return f"{column} IN (SELECT id FROM scope WHERE path = ? OR (path >= ? AND path < ?))"

    def of_items(self, *columns: str) -> str:
        """The condition that columns name items of the part."""
        if self.path == ROOT:
            return f"{columns[0]} IS NOT NULL"
        return " AND ".join(f"{column} IN (SELECT id FROM item WHERE {self.of_scopes()})" for column in columns)

    def of_links(self) -> str:
        """The condition that a link joins items of the part."""
        if self.path == ROOT:
            return "link IS NOT NULL"
        return f"link IN (SELECT id FROM link WHERE {self.of_items('src', 'dst')})"

    def query(self, sql: str, more: Sequence[Any] = ()) -> list[Any]:
        """Rows of a statement that holds the conditions above, and then marks for `more` values."""
        own = (self.path, self.path + "/", self.path + "0")  # "0" follows "/"
        return self.db.execute(sql, [*own * ((sql.count("?") - len(more)) // 3), *more]).fetchall()

    def pages(self, columns: str, table: str, where: str, key: Sequence[str], start: Sequence[Any]) -> Iterator[Any]:
        """Rows of a table by a unique key: `columns` begin with it."""
        names, last = ", ".join(key), list(start)
        after = f"({names}) > ({', '.join('?' * len(key))})"
        sql = f"SELECT {columns} FROM {table} WHERE {where} AND {after} ORDER BY {names} LIMIT {PAGE}"
        while found := self.query(sql, last):
            yield from found
            last = list(found[-1][: len(key)])

    def runs(self, columns: str, table: str, where: str, of: str, ids: Sequence[int], order: str) -> Iterator[Any]:
        """Rows of a table that belong to ids, a page of ids at a time."""
        sql = f"SELECT {columns} FROM {table} WHERE {where} AND {of} >= ? AND {of} <= ? ORDER BY {order}"
        for first in range(0, len(ids), PAGE):
            some = ids[first : first + PAGE]
            yield from self.query(sql, (some[0], some[-1]))


def header(part: Part, extent: Extent, store: str) -> Line:
    """The first line of a file: what it is and how many items follow."""
    (total,) = part.query(f"SELECT count(*) FROM item WHERE {part.of_scopes()}")[0]
    line: Line = {"loci": FORMAT, "items": total}
    return line if extent is Extent.EXPORT else line | {"store": store, "used": used(part.db)}


def used(db: Database) -> dict[str, int]:
    """The highest ids that were given so far, of what was erased too."""
    return {name: db.used(name) for name in COUNTERS}


def count(part: Part, extent: Extent) -> int:
    """About how many lines there will be, for progress."""
    tables = ["scope", "item", "past", "provenance", "link", "link_source", "state", "asked", "event"]
    tables += ["vector"] if extent is Extent.MOVE else []
    return sum(int(part.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables)


def lines(part: Part, extent: Extent = Extent.EXPORT) -> Iterator[Line]:
    """Every line but the first, in the order in which they can be taken in again."""
    scopes = dict(part.query(f"SELECT id, path FROM scope WHERE {part.of_scopes('id')}"))
    for id_, path in sorted(scopes.items()):
        yield {"scope": path, "id": id_}
    ids: list[int] = []
    for line in _items(part, scopes):
        ids.append(line["item"]["id"])
        yield line
    for row in part.runs(", ".join(PAST), "past", part.of_items("item"), "item", ids, "item, ended, known"):
        yield {"past": dict(zip(PAST, row, strict=True))}
    both = part.of_items("item", "source")
    for row in part.runs("item, source", "provenance", both, "item", ids, "item, source"):
        yield {"derived": list(row)}
    yield from _links(part)
    yield from _learned(part, scopes)
    yield from _log(part, scopes, extent)
    if extent >= Extent.BACKUP:
        yield from _service(part, scopes)
    if extent is Extent.MOVE:
        yield from _vectors(part, ids)
        yield from _tokens(part)


def _items(part: Part, scopes: dict[int, str]) -> Iterator[Line]:
    columns = f"{', '.join(ITEM)}, meta, version, scope"
    for *row, meta, version, scope in part.pages(columns, "item", part.of_scopes(), ["id"], [-1]):
        yield {
            "item": dict(zip(ITEM, row, strict=True)),
            "meta": json.loads(meta),
            "version": version,
            "scope": scopes[scope],
        }


def _links(part: Part) -> Iterator[Line]:
    ids: list[int] = []
    for row in part.pages(", ".join(LINK), "link", part.of_items("src", "dst"), ["id"], [-1]):
        ids.append(row[0])
        yield {"link": dict(zip(LINK, row, strict=True))}
    for row in part.runs("link, gone, ended", "link_past", part.of_links(), "link", ids, "link, ended, gone"):
        yield {"unlinked": list(row)}
    both = f"{part.of_links()} AND {part.of_items('source')}"
    for row in part.runs("link, source", "link_source", both, "link", ids, "link, source"):
        yield {"vouched": list(row)}


def _learned(part: Part, scopes: dict[int, str]) -> Iterator[Line]:
    inside = part.of_scopes()
    key = ("scheme", "name", "scope")
    for scheme, name, scope, data in part.pages("scheme, name, scope, data", "state", inside, key, ("", "", -1)):
        yield {"state": [scheme, name], "scope": scopes[scope], "data": base64.b64encode(data).decode()}
    columns = "id, time, query, hits, reward, scope"
    for _, time, query, hits, reward, scope in part.pages(columns, "asked", inside, ["id"], [-1]):
        yield {"asked": query, "scope": scopes[scope], "time": time, "hits": json.loads(hits), "reward": reward}


def _log(part: Part, scopes: dict[int, str], extent: Extent) -> Iterator[Line]:
    inside = part.of_scopes()
    if extent >= Extent.BACKUP:
        inside = f"({inside} OR scope IS NULL)"
    columns = "seq, time, op, first, last, detail, scope"
    for seq, time, op, first, last, detail, scope in part.pages(columns, "event", inside, ["seq"], [-1]):
        yield {
            "event": op,
            "seq": seq,
            "time": time,
            "first": first,
            "last": last,
            "detail": json.loads(detail),
            "scope": scopes.get(scope),
        }


def _service(part: Part, scopes: dict[int, str]) -> Iterator[Line]:
    for *row, scope in part.pages(f"{', '.join(JOB)}, scope", "job", "id > 0", ["id"], [-1]):
        line = dict(zip(JOB, row, strict=True))
        yield {"job": line | {"detail": json.loads(line["detail"])}, "scope": scopes.get(scope)}
    columns = "scope, key, time, ids"
    for scope, key, time, ids in part.pages(columns, "request", "time IS NOT NULL", ("scope", "key"), (-1, "")):
        if scope in scopes:
            yield {"once": key, "scope": scopes[scope], "time": time, "ids": json.loads(ids)}
    for key, value in part.pages("key, value", "about", "value IS NOT NULL", ["key"], [""]):
        if key not in OWN:
            yield {"about": [key, value]}


def _vectors(part: Part, ids: Sequence[int]) -> Iterator[Line]:
    for id_, name, dim, version in part.query("SELECT id, name, dim, version FROM model ORDER BY id"):
        yield {"model": id_, "name": name, "dim": dim, "version": version}
    for item, model, data in part.runs("item, model, data", "vector", "1 = 1", "item", ids, "item, model"):
        row = np.asarray(part.db.unpack(data), np.float16)
        yield {"vector": [item, model], "data": base64.b64encode(row.tobytes()).decode()}


def _tokens(part: Part) -> Iterator[Line]:
    for row in part.pages(", ".join(TOKEN), "token", "name IS NOT NULL", ["hash"], [""]):
        yield {"token": dict(zip(TOKEN, row, strict=True))}

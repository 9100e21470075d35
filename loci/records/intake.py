"""Lines into a store: the other half of dump.py. One call is one batch, inside the caller's transaction.

Into an empty store ids and the log are kept (`Plan.fresh`); into another one ids move by one offset and what belongs to a
store alone (its counters, jobs, keys of repeated calls, vectors) is left out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from loci.records import analysis, postings, rows
from loci.records.database import Database
from loci.records.dump import COUNTERS, ITEM, JOB, LINK, PAST, TOKEN, Line
from loci.records.item import Item
from loci.records.scope import ROOT

_LATER: Mapping[str, Any] = {"principal": None, "trust": 1, "held": 0}  # what older exports do not say


@dataclass(frozen=True, slots=True)
class Plan:
    """How lines become rows: by how much ids of items and links move, under which scope, at what time."""

    fresh: bool
    items: int = 0
    links: int = 0
    prefix: str = ""
    now: float = 0.0
    places: dict[str, int] = field(default_factory=dict)  # scopes that were met


def advance(db: Database, used: Mapping[str, int]) -> None:
    """Let ids that were given in the other store not be given here again."""
    for name in COUNTERS:
        if used.get(name):
            db.advance(name, used[name])


def completed(line: Line) -> Line:
    """A line of an older export as it would be written today."""
    if "item" not in line:
        return line
    given = _LATER | line["item"]
    return line | {"item": {name: given[name] for name in ITEM}}


def take(db: Database, lines: Sequence[Line], plan: Plan) -> int:
    """Write a batch of lines, in their order; the number of items among them."""
    items = 0
    for kind, group in groupby(lines, key=_kind):
        some = list(group)
        if kind == "item":
            items += len(some)
            for path, within in groupby(some, key=lambda row: row["scope"]):
                _items(db, list(within), plan, _place(db, plan, path))
        elif plan.fresh or kind not in _ONLY_FRESH:
            _TAKES[kind](db, some, plan)
    return items


def _kind(line: Line) -> str:
    for kind in _KINDS:
        if kind in line:
            return kind
    raise ValueError(f"a line has keys {sorted(line)}; give the file as export wrote it, or upgrade loci to read it")


def _place(db: Database, plan: Plan, path: str) -> int:
    """The row of a scope, under the prefix of the import."""
    if path not in plan.places:
        moved = plan.prefix + path if path != ROOT else plan.prefix.rstrip("/") or ROOT
        plan.places[path] = rows.scope_id(db, moved)
    return plan.places[path]


def _insert(db: Database, table: str, columns: Sequence[str], values: Iterator[Sequence[Any]], rest: str = "") -> None:
    db.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}){rest}", values)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if value else "{}"


# --- one kind of line each ------------------------------------------------------------------------------------------


def _scopes(db: Database, found: list[Line], plan: Plan) -> None:
    if plan.fresh:
        for line in found:
            db.execute("INSERT INTO scope (id, path) VALUES (?, ?) ON CONFLICT DO NOTHING", (line["id"], line["scope"]))
        db.advance("scope", max(line["id"] for line in found))
    for line in found:
        _place(db, plan, line["scope"])


def _items(db: Database, found: list[Line], plan: Plan, scope: int) -> None:
    ids = [line["item"]["id"] + plan.items for line in found]
    given = [_LATER | line["item"] for line in found]
    version = None if plan.fresh else rows.event(db, "import", plan.now, scope=scope, first=ids[0], last=ids[-1])
    known = [
        Item(**{name: item[name] for name in ("kind", "text", "at", "session")}, meta=line["meta"])
        for line, item in zip(found, given, strict=True)
    ]
    columns = (*ITEM, "meta", "version", "scope", "speaker", "cues", "head")
    _insert(
        db, "item", columns,
        (
            (
                id_, *(item[name] for name in ITEM[1:]),
                json.dumps(line["meta"], ensure_ascii=False, sort_keys=True) if line["meta"] else "{}",
                line["version"] if version is None else version, scope, *analysis.said(what), analysis.head(what),
            )
            for id_, line, item, what in zip(ids, found, given, known, strict=True)
        ),
    )  # fmt: skip
    postings.add(db, scope, ids, [analysis.tokens_of(item) for item in known])


def _past(db: Database, found: list[Line], plan: Plan) -> None:
    values = (line["past"] | {"item": line["past"]["item"] + plan.items} for line in found)
    _insert(db, "past", PAST, ([row[name] for name in PAST] for row in values))


def _derived(db: Database, found: list[Line], plan: Plan) -> None:
    pairs = ([id_ + plan.items for id_ in line["derived"]] for line in found)
    _insert(db, "provenance", ("item", "source"), pairs, " ON CONFLICT DO NOTHING")


def _links(db: Database, found: list[Line], plan: Plan) -> None:
    moves = {"id": plan.links, "src": plan.items, "dst": plan.items}
    values = (
        [line["link"][name] + moves[name] if name in moves else line["link"][name] for name in LINK] for line in found
    )
    _insert(db, "link", LINK, values)
    db.advance("link", max(line["link"]["id"] for line in found) + plan.links)


def _unlinked(db: Database, found: list[Line], plan: Plan) -> None:
    _insert(
        db, "link_past", ("link", "gone", "ended"),
        ((link + plan.links, gone, ended) for link, gone, ended in (line["unlinked"] for line in found)),
    )  # fmt: skip


def _vouched(db: Database, found: list[Line], plan: Plan) -> None:
    pairs = ((link + plan.links, source + plan.items) for link, source in (line["vouched"] for line in found))
    _insert(db, "link_source", ("link", "source"), pairs, " ON CONFLICT DO NOTHING")


def _states(db: Database, found: list[Line], plan: Plan) -> None:
    def values() -> Iterator[tuple[Any, ...]]:
        for line in found:
            scheme, name = line["state"]
            if name.startswith("item:"):
                name = f"item:{int(name.split(':')[1]) + plan.items}"
            yield scheme, name, _place(db, plan, line["scope"]), base64.b64decode(line["data"])

    _insert(db, "state", ("scheme", "name", "scope", "data"), iter(list(values())), " ON CONFLICT DO NOTHING")


def _asked(db: Database, found: list[Line], plan: Plan) -> None:
    values = [
        (_place(db, plan, line["scope"]), line["time"], line["asked"],
         json.dumps([id_ + plan.items for id_ in line["hits"]]), line["reward"])
        for line in found
    ]  # fmt: skip
    _insert(db, "asked", ("scope", "time", "query", "hits", "reward"), iter(values))


def _events(db: Database, found: list[Line], plan: Plan) -> None:
    """Lines of the log, with their numbers into an empty store, else after what is there."""
    columns = ("time", "op", "first", "last", "detail", "scope")
    values = []
    for line in found:
        if line["scope"] is None and not plan.fresh:
            continue  # about the whole of another store
        first, last = (None if line[name] is None else line[name] + plan.items for name in ("first", "last"))
        scope = None if line["scope"] is None else _place(db, plan, line["scope"])
        values.append((line["time"], line["event"], first, last, _json(_moved(line["detail"], plan)), scope))
    if not plan.fresh:
        _insert(db, "event", columns, iter(values))
        return
    numbered = ((line["seq"], *row) for line, row in zip(found, values, strict=True))
    _insert(db, "event", ("seq", *columns), numbered)
    db.advance("event", max(line["seq"] for line in found))


def _moved(detail: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """What a line of the log says of items and links, with their ids here."""
    if plan.fresh:
        return detail
    moves = {"by": plan.items, "into": plan.items, "without": plan.items, "links": plan.links}

    def moved(name: str, value: Any) -> Any:
        if name not in moves:
            return value
        return [id_ + moves[name] for id_ in value] if isinstance(value, list) else value + moves[name]

    return {name: moved(name, value) for name, value in detail.items()}


def _jobs(db: Database, found: list[Line], plan: Plan) -> None:
    values = [
        [*(_json(line["job"][name]) if name == "detail" else line["job"][name] for name in JOB),
         None if line["scope"] is None else _place(db, plan, line["scope"])]
        for line in found
    ]  # fmt: skip
    _insert(db, "job", (*JOB, "scope"), iter(values))
    db.advance("job", max(line["job"]["id"] for line in found))


def _requests(db: Database, found: list[Line], plan: Plan) -> None:
    values = [(_place(db, plan, line["scope"]), line["once"], line["time"], json.dumps(line["ids"])) for line in found]
    _insert(db, "request", ("scope", "key", "time", "ids"), iter(values), " ON CONFLICT DO NOTHING")


def _about(db: Database, found: list[Line], plan: Plan) -> None:
    _insert(db, "about", ("key", "value"), (line["about"] for line in found), " ON CONFLICT DO NOTHING")


def _models(db: Database, found: list[Line], plan: Plan) -> None:
    columns = ("id", "name", "dim", "version")
    values = ((line["model"], line["name"], line["dim"], line["version"]) for line in found)
    _insert(db, "model", columns, values, " ON CONFLICT DO NOTHING")
    db.advance("model", max(line["model"] for line in found))


def _vectors(db: Database, found: list[Line], plan: Plan) -> None:
    values = ((*line["vector"], db.pack(np.frombuffer(base64.b64decode(line["data"]), np.float16))) for line in found)
    _insert(db, "vector", ("item", "model", "data"), values, " ON CONFLICT DO NOTHING")


def _tokens(db: Database, found: list[Line], plan: Plan) -> None:
    values = ([line["token"][name] for name in TOKEN] for line in found)
    _insert(db, "token", TOKEN, values, " ON CONFLICT DO NOTHING")


_ONLY_FRESH = frozenset({"job", "once", "about", "model", "vector", "token"})
_TAKES: Mapping[str, Callable[[Database, list[Line], Plan], None]] = {
    "past": _past, "derived": _derived, "link": _links, "unlinked": _unlinked, "vouched": _vouched, "state": _states,
    "asked": _asked, "event": _events, "job": _jobs, "once": _requests, "about": _about, "model": _models,
    "vector": _vectors, "token": _tokens, "scope": _scopes,
}  # fmt: skip
_KINDS = ("item", *_TAKES)  # `scope` last: other lines have that field too

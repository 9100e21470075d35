"""Export and import: JSON lines, lossless, readable without loci. docs/schema.md describes them line by line.

Vectors and posting lists are left out: they are indexes, made again from the texts. Into an empty store ids and the change log
are kept, so export, import, export gives the same lines; into another store ids move by one offset. An import runs in batches
that each note how far they came, so it can be killed and run again; once done, running it again adds nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from loci.records import analysis, postings, rows
from loci.records.database import Database
from loci.records.handle import Handle
from loci.records.item import Item
from loci.records.scope import ROOT
from loci.records.scope import scope as checked

Progress = Callable[[int, int], None]
FORMAT = 1
_BATCH = 2000
_ITEM = ("id", "kind", "text", "at", "since", "until", "known", "changed", "session", "source", "principal", "trust",
         "value", "uses", "pinned", "gone", "held")  # fmt: skip
_LATER = {"principal": None, "trust": 1, "held": 0}  # what older exports do not say
_PAST = ("item", "since", "until", "gone", "known", "ended")
_LINK = ("id", "src", "rel", "dst", "weight", "since", "until", "known", "gone")


# --- export ---------------------------------------------------------------------------------------------------------


def export(handle: Handle, out: TextIO, *, scope: str = ROOT, progress: Progress | None = None) -> int:
    """Write everything at or under a scope; the number of lines. One snapshot: writers are not kept waiting."""
    handle.flush()
    lines = 0
    with handle.reading() as db:
        scopes = rows.scopes_under(db, checked(scope))
        total = db.execute(f"SELECT count(*) FROM item WHERE scope IN ({_ids(scopes)})").fetchone()[0]
        print(json.dumps({"loci": FORMAT, "items": total}), file=out)
        for line in _lines(db, scopes):
            print(json.dumps(line, ensure_ascii=False), file=out)
            lines += 1
            if progress is not None and lines % _BATCH == 0:
                progress(min(lines, total), total)
    return lines + 1


def _ids(scopes: Mapping[int, str]) -> str:
    return ",".join(str(int(id_)) for id_ in scopes)


def _lines(db: Database, scopes: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    inside = _ids(scopes)
    of = f"(SELECT id FROM item WHERE scope IN ({inside}))"
    for id_, path in sorted(scopes.items()):
        yield {"scope": path, "id": id_}
    columns = ", ".join(_ITEM)
    for *row, meta, version, scope in db.execute(
        f"SELECT {columns}, meta, version, scope FROM item WHERE scope IN ({inside}) ORDER BY id"
    ):
        yield {
            "item": dict(zip(_ITEM, row, strict=True)),
            "meta": json.loads(meta),
            "version": version,
            "scope": scopes[scope],
        }
    for row in db.execute(f"SELECT {', '.join(_PAST)} FROM past WHERE item IN {of} ORDER BY item, ended"):
        yield {"past": dict(zip(_PAST, row, strict=True))}
    for item, source in db.execute(
        f"SELECT item, source FROM provenance WHERE item IN {of} AND source IN {of} ORDER BY 1, 2"
    ):
        yield {"derived": [item, source]}
    for row in db.execute(f"SELECT {', '.join(_LINK)} FROM link WHERE src IN {of} AND dst IN {of} ORDER BY id"):
        yield {"link": dict(zip(_LINK, row, strict=True))}
    for row in db.execute(
        f"SELECT link, gone, ended FROM link_past WHERE link IN (SELECT id FROM link WHERE src IN {of} AND dst IN {of}) ORDER BY 1, 2"
    ):
        yield {"unlinked": list(row)}
    for link, source in db.execute(f"SELECT link, source FROM link_source WHERE source IN {of} ORDER BY 1, 2"):
        yield {"vouched": [link, source]}
    for scheme, name, scope, data in db.execute(
        f"SELECT scheme, name, scope, data FROM state WHERE scope IN ({inside}) ORDER BY 1, 2, 3"
    ):
        yield {"state": [scheme, name], "scope": scopes[scope], "data": base64.b64encode(data).decode()}
    for time, query, hits, reward, scope in db.execute(
        f"SELECT time, query, hits, reward, scope FROM asked WHERE scope IN ({inside}) ORDER BY id"
    ):
        yield {"asked": query, "scope": scopes[scope], "time": time, "hits": json.loads(hits), "reward": reward}
    for seq, time, op, first, last, detail, scope in db.execute(
        f"SELECT seq, time, op, first, last, detail, scope FROM event WHERE scope IN ({inside}) ORDER BY seq"
    ):
        yield {
            "event": op,
            "seq": seq,
            "time": time,
            "first": first,
            "last": last,
            "detail": json.loads(detail),
            "scope": scopes[scope],
        }


# --- import ---------------------------------------------------------------------------------------------------------


def is_export(source: Path) -> bool:
    """Whether a file begins like an export of loci."""
    if not source.is_file():
        return False
    with source.open("rb") as file:
        return file.readline(200).startswith(b'{"loci":')


def load(handle: Handle, source: Path, *, scope: str | None = None, progress: Progress | None = None) -> int:
    """Import what `export` wrote, under a scope when one is given; the number of items added now.

    Raises ValueError that names the line of a file that is none of ours, cut short, or broken; what earlier batches kept
    stays, and a repaired file of the same content goes on from there.
    """
    size, last_id, last_link, digest = _survey(source)
    prefix = "" if scope is None or checked(scope) == ROOT else checked(scope) + "/"
    key = f"import:{digest}:{prefix}"
    plan = _plan(handle, key, last_id, last_link)
    added = 0
    with source.open(encoding="utf-8") as file:
        numbered = ((n, line) for n, line in enumerate(file, start=1) if n > max(plan["line"], 1))
        while batch := [pair for _, pair in zip(range(_BATCH), numbered, strict=False)]:
            parsed = [_parse(source, n, line) for n, line in batch]
            with handle.writing() as db:
                added += _apply(db, parsed, plan, prefix, handle.now())
                plan["line"] = batch[-1][0]
                db.execute(
                    "INSERT INTO about VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (key, json.dumps(plan)),
                )
            if progress is not None:
                progress(plan["line"], size)
    return added


def _survey(source: Path) -> tuple[int, int, int, str]:
    """Read a file once: lines, highest item and link id, digest. Broken files are refused before anything is written."""
    if not is_export(source):
        raise ValueError(
            f'{source} is not an export of loci; give JSON lines that begin with {{"loci": {FORMAT}, ...}}'
        )
    digest, items, links, promised, found, n = hashlib.sha256(), 0, 0, 0, 0, 0
    with source.open("rb") as file:
        for n, line in enumerate(file, start=1):
            digest.update(line)
            row = _parse(source, n, line)
            if n == 1:
                if row["loci"] != FORMAT:
                    raise ValueError(
                        f"{source} has format {row['loci']}, this loci reads {FORMAT}; upgrade loci to import it"
                    )
                promised = row["items"]
            elif "item" in row:
                items, found = max(items, row["item"]["id"]), found + 1
            elif "link" in row:
                links = max(links, row["link"]["id"])
    if found != promised:
        raise ValueError(
            f"{source} ends at line {n} with {found} of {promised} items; it was cut short, give the whole file"
        )
    return n, items, links, digest.hexdigest()


def _parse(source: Path, number: int, line: str | bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{source} line {number} is not JSON ({error}); give the file as export wrote it") from error
    if not isinstance(row, dict):
        raise ValueError(f"{source} line {number} is not an object; give the file as export wrote it")
    return row


def _plan(handle: Handle, key: str, last_id: int, last_link: int) -> dict[str, int]:
    """Reserve ids once for the whole import; found again when it is run again."""
    with handle.writing() as db:
        row = db.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        if row is not None:
            plan: dict[str, int] = json.loads(row[0])
            return plan
        fresh = rows.latest(db) == 0 and not key.endswith("/")
        plan = {
            "line": 0,
            "fresh": int(fresh),
            "items": db.reserve("item", last_id) - 1,
            "links": db.reserve("link", last_link) - 1,
        }
        db.execute("INSERT INTO about VALUES (?, ?)", (key, json.dumps(plan)))
    return plan


def _apply(db: Database, parsed: list[dict[str, Any]], plan: Mapping[str, int], prefix: str, now: float) -> int:
    """Write one batch."""

    def place(path: str) -> int:
        return rows.scope_id(db, prefix + path if path != ROOT else prefix.rstrip("/") or ROOT)

    items = [row for row in parsed if "item" in row]
    for path, group in groupby(items, key=lambda row: row["scope"]):
        _items(db, list(group), place(path), plan, now)
    for row in parsed:
        if "item" not in row:
            _other(db, row, plan, place)
    return len(items)


def _items(db: Database, found: list[dict[str, Any]], scope: int, plan: Mapping[str, int], now: float) -> None:
    move = plan["items"]
    ids = [row["item"]["id"] + move for row in found]
    version = None if plan["fresh"] else rows.event(db, "import", now, scope=scope, first=ids[0], last=ids[-1])
    for row in found:
        row["item"] = _LATER | row["item"]
    known = [
        Item(**{name: row["item"][name] for name in ("kind", "text", "at", "session")}, meta=row["meta"])
        for row in found
    ]
    columns = (*_ITEM, "meta", "version", "scope", "speaker", "cues", "head")
    db.executemany(
        f"INSERT INTO item ({', '.join(columns)}) VALUES ({rows.marks(columns)})",
        (
            (
                id_, *(row["item"][name] for name in _ITEM[1:]),
                json.dumps(row["meta"], ensure_ascii=False, sort_keys=True) if row["meta"] else "{}",
                row["version"] if version is None else version, scope, *analysis.said(item), analysis.head(item),
            )
            for id_, row, item in zip(ids, found, known, strict=True)
        ),
    )  # fmt: skip
    postings.add(db, scope, ids, [analysis.tokens_of(item) for item in known])


def _other(db: Database, row: dict[str, Any], plan: Mapping[str, int], place: Callable[[str], int]) -> None:
    items, links = plan["items"], plan["links"]
    match row:
        case {"past": past}:
            values = [past[name] + (items if name == "item" else 0) if name == "item" else past[name] for name in _PAST]
            db.execute(f"INSERT INTO past ({', '.join(_PAST)}) VALUES ({rows.marks(_PAST)})", values)
        case {"derived": [item, source]}:
            db.execute("INSERT INTO provenance VALUES (?, ?) ON CONFLICT DO NOTHING", (item + items, source + items))
        case {"link": link}:
            moved = link | {"id": link["id"] + links, "src": link["src"] + items, "dst": link["dst"] + items}
            db.execute(
                f"INSERT INTO link ({', '.join(_LINK)}) VALUES ({rows.marks(_LINK)})", [moved[name] for name in _LINK]
            )
        case {"unlinked": [link, gone, ended]}:
            db.execute("INSERT INTO link_past VALUES (?, ?, ?)", (link + links, gone, ended))
        case {"vouched": [link, source]}:
            db.execute("INSERT INTO link_source VALUES (?, ?) ON CONFLICT DO NOTHING", (link + links, source + items))
        case {"state": [scheme, name], "scope": scope, "data": data}:
            if name.startswith("item:"):
                name = f"item:{int(name.split(':')[1]) + items}"
            db.execute(
                "INSERT INTO state VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (scheme, name, place(scope), base64.b64decode(data)),
            )
        case {"asked": query, "scope": scope}:
            hits = json.dumps([id_ + items for id_ in row["hits"]])
            sql = "INSERT INTO asked (scope, time, query, hits, reward) VALUES (?, ?, ?, ?, ?)"
            db.execute(sql, (place(scope), row["time"], query, hits, row["reward"]))
        case {"event": op, "scope": scope}:
            first, last = (None if row[name] is None else row[name] + items for name in ("first", "last"))
            detail = json.dumps(row["detail"], ensure_ascii=False) if row["detail"] else "{}"
            told = {
                "time": row["time"],
                "op": op,
                "scope": place(scope),
                "first": first,
                "last": last,
                "detail": detail,
            }
            if plan["fresh"]:
                told["seq"] = row["seq"]
                db.advance("event", row["seq"])
            db.execute(f"INSERT INTO event ({', '.join(told)}) VALUES ({rows.marks(told)})", list(told.values()))
        case {"scope": scope}:
            place(scope)
        case _:
            raise ValueError(f"a line has keys {sorted(row)}; give the file as export wrote it")

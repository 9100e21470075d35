"""Point in time: a new store that holds what an old one held at a moment of the past, by its change log.

The log is cut before its first line that is later than the moment. What its lines up to there put in is taken, as it was
believed then (table `past` for items, `link_past` for links); `known`, which may be back-dated, decides nothing. Ids are kept,
and ids that were given since are not given again.

What the log cannot tell is said in the report: items erased since are gone for good; what schemes learned in a scope is kept
only if it has not changed since, and dropped otherwise; what an undo unlearned stays so. Sources that consolidation added to a derived item since, and
rewards given since to questions asked before, stay. Tokens are not taken: who may use the new store is decided anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from loci.core.clock import When, iso, moment
from loci.records import dump, move, opening, rows
from loci.records.database import Database
from loci.records.dump import Extent, Line, Part
from loci.records.move import Moved, Origin, Progress
from loci.records.scope import covers

_BATCH = 500
_USES_A_SCOPE = (
    ("event", "seq <= ?", "cut"), ("item", "id <= ?", "top"), ("asked", "time <= ?", "when"), ("job", "created <= ?", "when"),
    ("request", "time <= ?", "when"), ("state", "? IS NOT NULL", "when"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rewound:
    """What a point-in-time restore did, and what it could not bring back."""

    moved: Moved
    when: float
    erased: int  # items erased since, of those that may have been there
    unlearned: int  # items and parts of state whose learned numbers changed since, and were dropped

    def __str__(self) -> str:
        lines = [str(self.moved), f"as it was at {iso(self.when)}"]
        if self.erased:
            lines.append(f"{self.erased} items were erased since; those of them that were there then are gone for good")
        if self.unlearned:
            lines.append(f"{self.unlearned} things that were learned changed since; they begin anew")
        return "\n".join([*lines, "tokens are not restored; make new ones with loci token new"])


def rewind(
    source: str | os.PathLike[str], target: str | os.PathLike[str], when: When, *, progress: Progress | None = None
) -> Rewound:
    """Make a new store as an old one was at a moment; the old one is only read. Killed, run it again: it goes on.

    ValueError for a moment before the first line of the log, and for a target that holds anything.
    """
    for path in (source, target):
        move.check(path)
    then = moment(when, name="as_of")
    with closing(move.existing(source)) as old:
        with old.read() as db:
            log = read(db, then)
            past = Past(db, log)
            name, total = f"store:{old.id}@{then!r}", dump.count(Part(db), Extent.MOVE)
            origin = Origin(name, str(old.path), past.lines, total, dump.used(db))
            with closing(opening.store(target)) as new:
                moved = move.pour(origin, new, extent=Extent.MOVE, progress=progress)
        with closing(opening.store(target)) as new:
            move.index_vectors(new)
    return Rewound(moved, then, log.erased, past.unlearned)


# --- the log --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Log:
    """What the change log says of a moment."""

    when: float
    cut: int  # number of the last line that is taken
    top: int  # highest item id by then
    links: int  # highest link id by then
    late: list[tuple[int, int]]  # ids up to `top` that an import had reserved by then and brought later
    learned: Mapping[int, list[tuple[int, int]]]  # scope -> id ranges whose numbers changed since, merged
    states: frozenset[int]  # scopes in which what was learned changed since
    erased: int  # items erased since that may have been there
    imports: bool  # whether an import was at work since

    def there(self, id_: int) -> bool:
        """Whether an item had been put in by then."""
        return id_ <= self.top and not any(first <= id_ <= last for first, last in self.late)


def read(db: Database, when: float) -> Log:
    """Cut the log at a moment; ValueError when nothing was there yet."""
    later, last = db.execute(
        "SELECT min(CASE WHEN time > ? THEN seq END), coalesce(max(seq), 0) FROM event", (when,)
    ).fetchone()
    cut = last if later is None else later - 1
    cut = db.execute("SELECT coalesce(max(seq), 0) FROM event WHERE seq <= ?", (cut,)).fetchone()[0]
    top = db.execute("SELECT max(last) FROM event WHERE seq <= ?", (cut,)).fetchone()[0] or 0
    found = db.execute("SELECT op, time FROM event WHERE seq <= ? ORDER BY seq LIMIT 1", (cut,)).fetchone()
    if found is None:
        first = db.execute("SELECT op, time FROM event ORDER BY seq LIMIT 1").fetchone()
        why = "it is empty" if first is None else f"it begins at {iso(first[1])} with {first[0]!r}"
        raise ValueError(f"as_of={iso(when)} is before the first line of the store's log ({why}); give a later time")
    links = max((ids[1] for detail in _details(db, "links", f"seq <= {cut:d}") if (ids := detail["links"])), default=0)
    late, learned, states = [], dict[int, list[tuple[int, int]]](), set[int]()
    erased, imports = 0, False
    for op, scope, first, end, detail in _since(db, cut):
        if op == "import":
            imports = True
            late += [(first, end)] if first <= top else []
        elif op == "erase" and first <= top:
            erased += detail.get("items", 1)
        elif "values" in detail:
            states.add(scope)
            _merge(learned.setdefault(scope, []), first, end)
        elif "state" in detail:
            states.add(scope)
    return Log(when, cut, top, links, late, learned, frozenset(states), erased, imports)


def _details(db: Database, name: str, where: str) -> Iterator[dict[str, Any]]:
    sql = f"SELECT detail FROM event WHERE {where} AND detail LIKE '{{\"{name}\"%'"
    return (json.loads(detail) for (detail,) in db.execute(sql))


def _since(db: Database, cut: int) -> Iterator[tuple[str, int, int, int, dict[str, Any]]]:
    """Lines after the cut that tell what the log alone cannot undo."""
    sql = f"""SELECT seq, op, scope, first, last, detail FROM event WHERE seq > ? AND (op IN ('import', 'erase')
              OR detail LIKE '{{"values"%' OR detail LIKE '{{"state"%') ORDER BY seq LIMIT {dump.PAGE}"""
    while found := db.execute(sql, (cut,)).fetchall():
        for _, op, scope, first, last, detail in found:
            yield op, scope, first or 0, last or 0, json.loads(detail)
        cut = found[-1][0]


def _merge(ranges: list[tuple[int, int]], first: int, last: int) -> None:
    """Add a range to sorted, disjoint ones."""
    apart = [(a, b) for a, b in ranges if b < first - 1 or last + 1 < a]
    touching = [(a, b) for a, b in ranges if not (b < first - 1 or last + 1 < a)]
    joined = (min([first, *(a for a, _ in touching)]), max([last, *(b for _, b in touching)]))
    ranges[:] = sorted([*apart, joined])


# --- the lines ------------------------------------------------------------------------------------------------------


class Past:
    """The lines of a store as they were at a moment."""

    def __init__(self, db: Database, log: Log) -> None:
        self._db, self._log = db, log
        self._paths = dict(db.execute("SELECT id, path FROM scope"))
        self._numbers = {path: id_ for id_, path in self._paths.items()}
        self._away = dict(
            db.execute("SELECT link, gone FROM link_past WHERE gone <= ? AND ? < ended", (log.when, log.when))
        )
        self._changed = [self._paths[of] for of in log.states if of in self._paths]
        self._dropped: set[int] = set()  # links that were not there, with ids that were given by then
        self.unlearned = 0

    def lines(self) -> Iterator[Line]:
        """Every line that was there, in the order of `dump.lines`; may be asked for again."""
        self.unlearned, self._dropped = 0, set()
        scopes = self._scopes()
        kept: Mapping[str, Callable[[Line], Line | None]] = {
            "past": lambda line: line if self._seen(line["past"]["item"], line["past"]["ended"]) else None,
            "derived": lambda line: line if all(map(self._log.there, line["derived"])) else None,
            "link": self._link,
            "unlinked": lambda line: line if self._joined(line["unlinked"][0], line["unlinked"][2]) else None,
            "vouched": self._vouched,
            "state": self._state,
            "asked": lambda line: line if line["time"] <= self._log.when else None,
            "event": lambda line: line if line["seq"] <= self._log.cut else None,
            "job": self._job,
            "once": lambda line: line if line["time"] <= self._log.when else None,
            "about": lambda line: None if self._log.imports else line,
            "model": lambda line: line,
            "vector": lambda line: line if self._log.there(line["vector"][0]) else None,
            "token": lambda line: None,
            "scope": lambda line: line if line["id"] in scopes else None,
        }
        found = dump.lines(Part(self._db), Extent.MOVE)
        while batch := list(islice(found, _BATCH)):
            items = self._items([line for line in batch if "item" in line])
            for line in batch:
                if "item" in line:
                    then = items.get(line["item"]["id"])
                else:
                    then = next(keep for kind, keep in kept.items() if kind in line)(line)
                if then is not None:
                    yield then

    def _scopes(self) -> set[int]:
        """Scopes that anything of then names."""
        return {
            id_ for table, where, name in _USES_A_SCOPE
            for (id_,) in self._db.execute(
                f"SELECT DISTINCT scope FROM {table} WHERE {where} AND scope IS NOT NULL", (getattr(self._log, name),)
            )
        }  # fmt: skip

    def _seen(self, item: int, ended: float) -> bool:
        return ended <= self._log.when and self._log.there(item)

    def _joined(self, link: int, ended: float) -> bool:
        return ended <= self._log.when and link <= self._log.links and link not in self._dropped

    def _items(self, lines: list[Line]) -> dict[int, Line]:
        """Items of a batch as they were believed, by id."""
        when = self._log.when
        lines = [line for line in lines if self._log.there(line["item"]["id"])]
        moved = [line["item"]["id"] for line in lines if line["item"]["changed"] > when]
        before: dict[int, tuple[Any, ...]] = {}
        for some in rows.batches(moved):
            sql = f"""SELECT item, since, until, gone, known FROM past WHERE known <= ? AND ? < ended
                      AND item IN ({rows.marks(some)})"""
            before |= {id_: row for id_, *row in self._db.execute(sql, (when, when, *some))}
        return {line["item"]["id"]: self._item(line, before.get(line["item"]["id"])) for line in lines}

    def _item(self, line: Line, before: tuple[Any, ...] | None) -> Line:
        item, version = line["item"], line["version"]
        if before is not None:
            since, until, gone, changed = before
            item = item | {"since": since, "until": until, "gone": gone, "changed": changed}
        if version > self._log.cut:
            item = item | {"held": int(item["gone"] is not None and self._held(item["id"]))}
        if version > self._log.cut and (item["value"] or item["uses"]) and self._relearned(line):
            item = item | {"value": 0.0, "uses": 0}
            self.unlearned += 1
        return line | {"item": item, "version": min(version, self._log.cut)}

    def _held(self, id_: int) -> bool:
        """Whether an item that was gone then was in quarantine."""
        sql = """SELECT op FROM event WHERE first = ? AND last = ? AND seq <= ? AND op IN ('quarantine', 'release', 'undo')
                 ORDER BY seq DESC LIMIT 1"""
        found = self._db.execute(sql, (id_, id_, self._log.cut)).fetchone()
        return found is not None and bool(found[0] == "quarantine")

    def _relearned(self, line: Line) -> bool:
        ranges = self._log.learned.get(self._numbers[line["scope"]], ())
        return any(first <= line["item"]["id"] <= last for first, last in ranges)

    def _link(self, line: Line) -> Line | None:
        link = line["link"]
        if link["id"] > self._log.links:
            return None
        if link["known"] > self._log.when or not (self._log.there(link["src"]) and self._log.there(link["dst"])):
            self._dropped.add(link["id"])
            return None
        gone = link["gone"] if link["gone"] is not None and link["gone"] <= self._log.when else None
        return {"link": link | {"gone": self._away.get(link["id"], gone)}}

    def _vouched(self, line: Line) -> Line | None:
        link, source = line["vouched"]
        return line if link <= self._log.links and link not in self._dropped and self._log.there(source) else None

    def _state(self, line: Line) -> Line | None:
        """What was learned of a scope, unless a line of the log since then says that it changed there or below."""
        scope, name = line["scope"], line["state"][1]
        if any(path == scope or covers(scope, path) for path in self._changed):
            self.unlearned += 1
            return None
        return line if not name.startswith("item:") or self._log.there(int(name.split(":")[1])) else None

    def _job(self, line: Line) -> Line | None:
        job, when = line["job"], self._log.when
        if job["created"] > when:
            return None
        if job["ended"] is not None and job["ended"] > when:  # it was waiting then
            job = job | {"ended": None, "done": 0, "error": None}
        return line | {"job": job}

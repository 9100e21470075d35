"""Taking a source back: which items are its own, and undoing what they did to others.

An item whose validity was ended by items of the source gets the interval that the other closings leave it; near duplicates
that were merged into its items come back; the words and the worth that feedback gave its items go.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from loci.records import forget, rows, write
from loci.records.database import Database


@dataclass(frozen=True, slots=True)
class Undone:
    """What undoing a source did. `shared` were derived from it and from others too, so they stay: look at them."""

    forgotten: list[int] = field(default_factory=list)  # its items, and what was known only through them
    reopened: list[int] = field(default_factory=list)  # items whose validity it had ended
    restored: list[int] = field(default_factory=list)  # items that had been merged into its own
    shared: list[int] = field(default_factory=list)
    links: list[int] = field(default_factory=list)  # links that went
    states: list[str] = field(default_factory=list)  # what schemes had learned about its items
    erased: int = 0

    def __str__(self) -> str:
        said = {"forgot": self.forgotten, "reopened": self.reopened, "restored": self.restored, "left": self.shared}
        lines = [f"{what} {' '.join(map(str, ids))}" for what, ids in said.items() if ids]
        lines += [f"removed {len(self.links)} links"] * bool(self.links)
        lines += [f"unlearned {len(self.states)} notes"] * bool(self.states)
        lines += [f"erased {self.erased}"] * bool(self.erased)
        return "\n".join(lines) or "nothing came from there"


def checked(principal: str | None, source: str | None) -> None:
    """Refuse to mean everything by saying nothing."""
    if principal is None and source is None:
        raise ValueError("neither principal nor source was given; say whose items are meant")
    for name, given in (("principal", principal), ("source", source)):
        if given is not None and not isinstance(given, str):
            raise TypeError(f"{name} is a {type(given).__name__}; give text")


def of(
    db: Database, scopes: Iterable[int], principal: str | None, source: str | None, since: float | None = None
) -> dict[int, tuple[int, float | None, bool]]:
    """Items of a principal and a source, each exactly as it was given, written at `since` or later: id to (scope, gone, held)."""
    found: dict[int, tuple[int, float | None, bool]] = {}
    for some in rows.batches(scopes):
        sql = f"SELECT id, scope, gone, held FROM item WHERE scope IN ({rows.marks(some)})"
        values: list[Any] = [*some]
        for column, given in (("principal", principal), ("source", source)):
            if given is not None:
                sql, values = f"{sql} AND {column} = ?", [*values, given]
        found |= {id_: (of_, gone, bool(held)) for id_, of_, gone, held in db.execute(f"{sql} ORDER BY id", values)}
    if since is None or not found:
        return found
    late = set(_written(db, {of_ for of_, _, _ in found.values()}, since))
    return {id_: row for id_, row in found.items() if id_ in late}


def _written(db: Database, scopes: Collection[int], since: float) -> Iterator[int]:
    """Ids that were written at a time or later. Ids rise, so the first line of the log above all before wrote them."""
    for scope in scopes:
        highest = 0
        sql = "SELECT time, first, last FROM event WHERE scope = ? AND first IS NOT NULL AND op <> 'erase' ORDER BY seq"
        for time, first, last in db.execute(sql, (scope,)):
            if first > highest:
                highest = last
                if time >= since:
                    yield from range(first, last + 1)


def undo(
    db: Database,
    scopes: Mapping[int, str],
    principal: str | None,
    source: str | None,
    since: float | None,
    now: float,
) -> Undone:
    """Forget what came from a source and undo what it did, inside a write transaction."""
    mine = of(db, scopes, principal, source, since)
    went = dict.fromkeys(_unheld(db, [id_ for id_, (_, _, held) in mine.items() if held], now))
    live = [id_ for id_, (_, gone, _) in mine.items() if gone is None]
    went |= dict.fromkeys(forget.tombstone(db, scopes, live, now, op="undo"))
    fallen = {*mine, *went}
    return Undone(
        forgotten=sorted(went), reopened=sorted(_reopen(db, fallen, now)), restored=sorted(_unmerge(db, fallen, now)),
        shared=_shared(db, fallen), links=_links(db, fallen), states=_unlearn(db, fallen),
    )  # fmt: skip


def _unheld(db: Database, ids: Collection[int], now: float) -> list[int]:
    """Turn quarantined items, with what was quarantined through them, into forgotten ones."""
    frontier, out = list(ids), dict.fromkeys(ids)
    while frontier:
        frontier = [id_ for some in rows.batches(frontier) for (id_,) in db.execute(
            f"""SELECT DISTINCT item.id FROM provenance AS p JOIN item ON item.id = p.item JOIN item AS s ON s.id = p.source
                WHERE p.source IN ({rows.marks(some)}) AND item.held = 1 AND item.gone = s.gone ORDER BY 1""", some)
            if id_ not in out]  # fmt: skip
        out |= dict.fromkeys(frontier)
    for id_ in out:
        of_ = db.execute("SELECT scope FROM item WHERE id = ?", (id_,)).fetchone()[0]
        version = rows.event(db, "undo", now, scope=of_, first=id_)
        db.execute("UPDATE item SET held = 0, version = ? WHERE id = ?", (version, id_))
    return list(out)


def _links(db: Database, ids: Collection[int]) -> list[int]:
    """Forgotten links that touch the items or that they had vouched for."""
    found: set[int] = set()
    for some in rows.batches(sorted(ids), 300):
        few = rows.marks(some)
        sql = f"""SELECT id FROM link WHERE gone IS NOT NULL AND (src IN ({few}) OR dst IN ({few})
                  OR id IN (SELECT link FROM link_source WHERE source IN ({few})))"""
        found |= {id_ for (id_,) in db.execute(sql, (*some, *some, *some))}
    return sorted(found)


# --- intervals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Closing:
    """One line of the log that ended an item: when it asked to, where the interval ended before all such, who did it."""

    asked: float
    was: float | None
    by: frozenset[int]


def _reopen(db: Database, fallen: set[int], now: float) -> Iterator[int]:
    """Give items that the fallen ones had ended the interval that the other closings leave them."""
    lines = db.execute("SELECT first, scope, detail FROM event WHERE op = 'close' ORDER BY seq").fetchall()
    ended = {first: scope for first, scope, detail in lines if not fallen.isdisjoint(json.loads(detail)["by"])}
    for id_, scope in ended.items():
        row = db.execute("SELECT since, until FROM item WHERE id = ?", (id_,)).fetchone()
        if row is None:
            continue
        since, until = row
        closings = _closings(db, scope, id_)
        undone = [one for one in closings if one.by & fallen and one.by <= fallen | _gone(db, one.by)]
        if not undone:
            continue
        end = closings[0].was
        for one in closings:
            end = end if one in undone else write.closed(since, end, one.asked)
        without = sorted(set().union(*(one.by for one in undone)))
        write.keep_past(db, id_, now)
        version = rows.event(db, "reopen", now, scope=scope, first=id_, detail={"until": end, "without": without})
        if end != until:
            db.execute("UPDATE item SET until = ?, changed = ?, version = ? WHERE id = ?", (end, now, version, id_))
            if id_ not in fallen:
                yield id_


def _closings(db: Database, scope: int, id_: int) -> list[_Closing]:
    """The closings of an item that were not undone, oldest first."""
    found: list[_Closing] = []
    first: list[float | None] = []  # where the interval ended before all of them
    sql = """SELECT time, op, detail FROM event WHERE scope = ? AND first = ? AND last = ? AND op IN ('close', 'reopen')
             ORDER BY seq"""
    for time, op, text in db.execute(sql, (scope, id_, id_)).fetchall():
        detail: dict[str, Any] = json.loads(text)
        if op == "reopen":
            found = [one for one in found if not one.by <= set(detail["without"])]
            continue
        first.append(detail["was"] if "was" in detail else _before(db, id_, time))
        found.append(_Closing(detail.get("asked", detail["until"]), first[0], frozenset(detail["by"])))
    return found


def _before(db: Database, id_: int, time: float) -> float | None:
    """Where an interval ended before it was changed at a time, by the table of the past."""
    row = db.execute("SELECT until FROM past WHERE item = ? AND ended = ?", (id_, time)).fetchone()
    return None if row is None else row[0]


def _gone(db: Database, ids: Collection[int]) -> set[int]:
    """Those of the items that are forgotten, or were erased."""
    live = {id_ for some in rows.batches(ids) for (id_,) in db.execute(
        f"SELECT id FROM item WHERE id IN ({rows.marks(some)}) AND gone IS NULL", some)}  # fmt: skip
    return set(ids) - live


# --- what else it did -------------------------------------------------------------------------------------------------


def _unmerge(db: Database, fallen: set[int], now: float) -> list[int]:
    """Bring back what sleep had merged into fallen items, unless it is of the source itself or nothing vouches for it."""
    sql = """SELECT item.id, item.scope, event.detail FROM item JOIN event ON event.seq = item.version
             WHERE item.gone IS NOT NULL AND event.op = 'merge' ORDER BY item.id"""
    merged = [(id_, scope) for id_, scope, detail in db.execute(sql).fetchall()
              if id_ not in fallen and json.loads(detail).get("into") in fallen]  # fmt: skip
    came: list[int] = []
    for id_, scope in merged:
        sources = {source for (source,) in db.execute("SELECT source FROM provenance WHERE item = ?", (id_,))}
        if not sources or sources - _gone(db, sources):
            came += forget.restore(db, [scope], [id_], now)
    return came


def _unlearn(db: Database, ids: Collection[int]) -> list[str]:
    """Take away the words and the worth that feedback gave to items; the names of the states that went."""
    names = [f"item:{id_}" for id_ in sorted(ids)]  # as a scheme's own words of an item are named
    kept: list[str] = []
    for some in rows.batches(names):
        kept += [name for (name,) in db.execute(f"SELECT name FROM state WHERE name IN ({rows.marks(some)})", some)]
        db.execute(f"DELETE FROM state WHERE name IN ({rows.marks(some)})", some)
    for few in rows.batches(sorted(ids)):
        db.execute(f"UPDATE item SET value = 0, uses = 0 WHERE id IN ({rows.marks(few)})", few)
    return kept


def _shared(db: Database, fallen: Collection[int]) -> list[int]:
    """Live items that rest on fallen ones and on others too."""
    found: set[int] = set()
    for some in rows.batches(sorted(fallen)):
        sql = f"""SELECT DISTINCT item.id FROM provenance AS p JOIN item ON item.id = p.item
                  WHERE p.source IN ({rows.marks(some)}) AND item.gone IS NULL"""
        found |= {id_ for (id_,) in db.execute(sql, some)}
    return sorted(found)

"""Moving: what one store holds into an empty one, line by line, without a file between. `loci move`, `loci restore`.

The target notes with every batch how many lines it has and their digest. A move that was killed is run again: the source is
read from the start, and where its lines up to the note are still the same, the move goes on from there; where the source
changed before the note, what the target holds is dropped and the move begins again. So the target always becomes one
snapshot of the source. At the end the lines of both are digested and compared.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from loci.core.errors import ConflictError
from loci.records import dump, intake, opening, rows, vectors
from loci.records.database import Database, Store
from loci.records.dump import Extent, Line, Part
from loci.records.intake import Plan

Progress = Callable[[int, int], None]
MARK = "move"  # the key of `about` under which a target notes where it stands
_BATCH = 1000
_TABLES = (
    "posting", "vector", "model", "link_source", "link_past", "link", "provenance", "past", "asked", "request", "state", "job",
    "item", "event", "scope",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did: lines by kind, and the digest that source and target share."""

    source: str
    target: str
    counts: Mapping[str, int]
    digest: str
    already: int = 0  # lines that an earlier, unfinished move had brought
    again: bool = False  # the source had changed since that move, so it was begun anew

    def __str__(self) -> str:
        found = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
        how = f"; {self.already} lines were there from before" * bool(self.already)
        anew = "; begun anew, since the source had changed" * self.again
        return f"{self.source} -> {self.target}: {found or 'nothing'}{how}{anew}\nboth sides: sha256 {self.digest}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where lines come from: a name that stays the same when a move is run again, and how to read them from the start."""

    name: str
    shown: str
    lines: Callable[[], Iterable[Line]]
    total: int
    used: Mapping[str, int] = field(default_factory=dict)


def move(source: str | os.PathLike[str], target: str | os.PathLike[str], *, progress: Progress | None = None) -> Moved:
    """Bring all that a store holds into a new or empty one: file to server and back, tokens and vectors too.

    The source is only read. ValueError for a target that holds something else; killed or cut off, run it again.
    """
    for path in (source, target):
        check(path)
    with closing(existing(source)) as old, closing(opening.store(target)) as new:
        if old.id == new.id:
            raise ValueError(f"{target} is the store itself, or a copy of it; give a new place to move it to")
        with old.read() as db:
            part = Part(db)
            if not rows.latest(db):
                raise ValueError(f"{source} holds nothing; check its name, there is nothing to move")
            origin = Origin(
                f"store:{old.id}", str(old.path), lambda: dump.lines(part, Extent.MOVE),
                dump.count(part, Extent.MOVE), dump.used(db),
            )  # fmt: skip
            moved = pour(origin, new, extent=Extent.MOVE, progress=progress)
        index_vectors(new)  # not before: the server waits for older snapshots, and the source may be on it
    return moved


def check(path: str | os.PathLike[str]) -> None:
    """Refuse what is no place of its own: a server's address, and a memory that goes when it is closed."""
    if str(path).startswith(("http://", "https://")):
        raise ValueError(
            f"{path} is the address of a server; give the file or the postgresql:// URL that it serves, or use loci export and loci import"
        )
    if str(path) == ":memory:":
        raise ValueError(f"{path} goes when it is closed; give a file or a postgresql:// URL")


def existing(path: str | os.PathLike[str]) -> Store:
    """The store at a path that must be there."""
    if "://" not in str(path) and not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist; give the file of a memory")
    return opening.store(path)


def index_vectors(store: Store) -> None:
    """Let the engine index vectors of which there are many, as `Memory.embed` does while it makes them."""
    many = f"(SELECT count(*) FROM vector WHERE vector.model = model.id) > {vectors.EXACT:d}"
    with store.read() as db:
        sizes = [dim for (dim,) in db.execute(f"SELECT DISTINCT dim FROM model WHERE {many}").fetchall()]
    for dim in sizes:
        store.index_vectors(dim)


# --- pouring --------------------------------------------------------------------------------------------------------


class _Digest:
    """A running digest of lines, and how many there were of each kind."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self.lines = 0
        self.counts: dict[str, int] = {}

    def add(self, line: Line) -> None:
        """Take one more line."""
        self._sha.update(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        self.lines += 1
        kind = next(iter(line))
        self.counts[kind] = self.counts.get(kind, 0) + 1

    @property
    def hex(self) -> str:
        """The digest of the lines so far."""
        return self._sha.hexdigest()


def pour(origin: Origin, target: Store, *, extent: Extent, progress: Progress | None = None) -> Moved:
    """Take the lines of an origin into an empty store, or go on where an earlier run of the same stopped."""
    mark = _begin(target, origin, extent)
    if mark["done"]:
        return _done(origin, target, extent, mark)
    sums, already, again = _Digest(), int(mark["line"]), False
    lines = iter(origin.lines())
    for line in islice(lines, already):
        sums.add(line)
    if (sums.lines, sums.hex) != (already, mark["digest"]):
        mark, sums, already, again = _restart(target, origin, mark), _Digest(), 0, True
        lines = iter(origin.lines())
    plan = Plan(fresh=True)
    while batch := list(islice(lines, _BATCH)):
        for line in batch:
            sums.add(line)
        with target.write() as db:
            _still(db, mark)
            intake.take(db, batch, plan)
            mark = mark | {"line": sums.lines, "digest": sums.hex}
            _note(db, mark)
        if progress is not None:
            progress(sums.lines, max(origin.total, sums.lines))
    if progress is not None:
        progress(sums.lines, sums.lines)
    there = _digest_of(target, extent)
    if (there.hex, there.counts) != (sums.hex, sums.counts):
        raise ConflictError(
            f"{target.path} holds {_differs(sums.counts, there.counts)}; it was written to meanwhile, give a fresh place and move again"
        )
    with target.write() as db:
        _still(db, mark)
        _note(db, mark | {"done": True})
    return Moved(origin.shown, str(target.path), sums.counts, sums.hex, already, again)


def _done(origin: Origin, target: Store, extent: Extent, mark: Mapping[str, Any]) -> Moved:
    """A move that was finished before: nothing is written, both sides are compared again."""
    sums, there = _Digest(), _digest_of(target, extent)
    for line in origin.lines():
        sums.add(line)
    if not sums.hex == there.hex == mark["digest"]:
        changed = origin.shown if sums.hex != mark["digest"] else target.path
        raise ValueError(
            f"{target.path} is a finished move of {origin.shown}, and {changed} changed since, nothing was written; give a fresh place"
        )
    return Moved(origin.shown, str(target.path), sums.counts, sums.hex, sums.lines)


def _begin(target: Store, origin: Origin, extent: Extent) -> dict[str, Any]:
    """The note of an earlier run, or a first one; ValueError when the target holds anything else."""
    with target.write() as db:
        held = mark_of(db)
        if held is not None and held["origin"] == origin.name:
            if not held["done"]:
                intake.advance(db, origin.used)
            return held
        if held is not None and not held["done"]:
            raise ValueError(
                f"{target.path} is an unfinished move of another store; finish that one, or give a fresh place"
            )
        (items,) = db.execute("SELECT count(*) FROM item").fetchone()
        if items or rows.latest(db):
            raise ValueError(
                f"{target.path} holds {items} items and a history of its own, nothing was written; give a new file or an unused tenant"
            )
        if extent is Extent.MOVE and db.execute("SELECT 1 FROM token LIMIT 1").fetchone():
            raise ValueError(
                f"{target.path} has tokens of its own, and a move brings those of {origin.shown}; give a new file or an unused tenant"
            )
        mark = {"origin": origin.name, "line": 0, "digest": _Digest().hex, "done": False}
        intake.advance(db, origin.used)
        _note(db, mark)
        return mark


def _restart(target: Store, origin: Origin, mark: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what an unfinished move of an older state of the source brought."""
    fresh = {"origin": origin.name, "line": 0, "digest": _Digest().hex, "done": False}
    with target.write() as db:
        _still(db, mark)
        for table in _TABLES:
            db.execute(f"DELETE FROM {table}")
        db.execute("DELETE FROM about WHERE key LIKE 'import:%'")
        _note(db, fresh)
    return fresh


def mark_of(db: Database) -> dict[str, Any] | None:
    """Where a move into this store stands; None when there was none."""
    row = db.execute("SELECT value FROM about WHERE key = ?", (MARK,)).fetchone()
    return None if row is None else json.loads(row[0])


def _note(db: Database, mark: Mapping[str, Any]) -> None:
    sql = "INSERT INTO about VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    db.execute(sql, (MARK, json.dumps(mark)))


def _still(db: Database, mark: Mapping[str, Any]) -> None:
    """Two runs of one move must not take turns."""
    if mark_of(db) != mark:
        raise ConflictError("another run of this move is at work on the target; let it finish")


def _digest_of(store: Store, extent: Extent) -> _Digest:
    sums = _Digest()
    with store.read() as db:
        for line in dump.lines(Part(db), extent):
            sums.add(line)
    return sums


def _differs(wanted: Mapping[str, int], found: Mapping[str, int]) -> str:
    kinds = [f"{found.get(kind, 0)} of {wanted.get(kind, 0)} {kind} lines" for kind in {**wanted, **found}
             if found.get(kind, 0) != wanted.get(kind, 0)]  # fmt: skip
    return ", ".join(kinds) or "other lines than the source"

"""The ledger of a scope: the few numbers of every item that scoring needs, as arrays that follow the change log.

A ledger is a cache. It is read once for a scope, then only the ids that newer events name are read again, so that
many processes can write the file and each sees the others' writes at its next read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loci.core.ports import I64
from loci.records import rows
from loci.records.database import Database
from loci.records.item import KINDS

F64 = NDArray[np.float64]
_COLUMNS = "id, scope, kind, session, at, since, until, gone, value, uses, speaker, cues, trust"


@dataclass(slots=True)
class Ledger:
    """Arrays of length N over the items at or under a path, ids rising."""

    ids: I64
    scope: I64
    kind: I64  # place in KINDS, -1 for other kinds
    session: I64  # number of (scope, session); below 0: none
    at: F64  # nan: not stated
    since: F64  # -inf: always
    until: F64  # inf: still
    live: NDArray[np.bool_]  # not forgotten
    value: F64
    uses: I64
    speaker: I64  # number of the speaker's name, -1: none
    cues: I64  # bits of analysis.ASKS and FIRST
    trust: NDArray[np.int8]  # level of trust
    seq: int  # the event up to which it has read
    scopes: dict[int, str]
    names: dict[tuple[int, str], int]  # (scope, session) to number
    speakers: dict[str, int]  # name to number
    line_: I64 | None = None  # what `line` worked out

    def __len__(self) -> int:
        return len(self.ids)

    def now(self, when: float) -> NDArray[np.bool_]:
        """Which items are live and hold at a time: (N,)."""
        return self.live & (self.since <= when) & (when < self.until)

    def places(self, ids: I64) -> I64:
        """Where ids stand in the arrays; -1 where they do not."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        if self.ids[-1] - self.ids[0] + 1 == len(self.ids):  # without gaps: no search
            at = ids - self.ids[0]
            return np.where((at >= 0) & (at < len(self.ids)), at, -1)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def line(self) -> I64 | None:
        """Places in the order of talk, each session in one run; None when they stand so already."""
        if self.line_ is None:
            runs = np.where(self.session < 0, self.session.max(initial=0) + 1, self.session)
            ordered = bool((np.diff(runs) >= 0).all())
            self.line_ = np.empty(0, np.int64) if ordered else np.argsort(runs, kind="stable")
        return self.line_ if len(self.line_) else None

    def only(self, kept: NDArray[np.bool_]) -> Ledger:
        """The ledger as if it held nothing but some of its items: (N,) tells which."""
        arrays = {name: getattr(self, name)[kept] for name in _ARRAYS}
        said = set(np.unique(arrays["speaker"]).tolist())
        speakers = {name: number for name, number in self.speakers.items() if number in said}
        return Ledger(**arrays, seq=self.seq, scopes=self.scopes, names=self.names, speakers=speakers)

    @property
    def nbytes(self) -> int:
        """Bytes held in memory by the arrays."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)


_ARRAYS = ("ids", "scope", "kind", "session", "at", "since", "until", "live", "value", "uses", "speaker", "cues",
           "trust")  # fmt: skip


def load(db: Database, path: str) -> Ledger:
    """Read the ledger of a path from the start."""
    seq = rows.latest(db)
    scopes = rows.scopes_under(db, path)
    names: dict[tuple[int, str], int] = {}
    speakers: dict[str, int] = {}
    found: list[tuple[object, ...]] = []
    for some in rows.batches(scopes):
        found += db.execute(f"SELECT {_COLUMNS} FROM item WHERE scope IN ({rows.marks(some)})", some).fetchall()
    found.sort(key=lambda row: row[0])  # type: ignore[arg-type, return-value]
    return Ledger(**_arrays(found, names, speakers), seq=seq, scopes=scopes, names=names, speakers=speakers)


def refresh(db: Database, path: str, held: Ledger) -> Ledger:
    """Bring a ledger up to the change log; the old one stays as it was, for those who still read it."""
    seq = rows.latest(db)
    if seq == held.seq:
        return held
    scopes = rows.scopes_under(db, path)
    ranges: set[tuple[int, int]] = set()
    for some in rows.batches(scopes):
        sql = f"SELECT op, first, last FROM event WHERE scope IN ({rows.marks(some)}) AND seq > ? AND first IS NOT NULL"
        for op, first, last in db.execute(sql, (*some, held.seq)):
            if op == "erase":
                return load(db, path)  # ids, sessions, speakers that are nowhere else must not be remembered here
            ranges.add((first, last))
    if db.execute("SELECT 1 FROM event WHERE scope IS NULL AND op = 'wipe' AND seq > ?", (held.seq,)).fetchone():
        return load(db, path)
    names, speakers = held.names, held.speakers
    found: dict[int, tuple[object, ...]] = {}
    stale = np.zeros(len(held), bool)
    for first, last in sorted(ranges):
        stale[np.searchsorted(held.ids, first) : np.searchsorted(held.ids, last, side="right")] = True
        sql = f"SELECT {_COLUMNS} FROM item WHERE id BETWEEN ? AND ?"
        found |= {row[0]: row for row in db.execute(sql, (first, last)) if row[1] in scopes}
    fresh = _arrays([found[id_] for id_ in sorted(found)], names, speakers)
    merged = {name: np.concatenate([getattr(held, name)[~stale], fresh[name]]) for name in _ARRAYS}
    if len(held) and found and min(found) <= held.ids[-1]:
        order = np.argsort(merged["ids"], kind="stable")
        merged = {name: part[order] for name, part in merged.items()}
    return Ledger(**merged, seq=seq, scopes=scopes, names=names, speakers=speakers)


def as_of(db: Database, path: str, when: float) -> Ledger:
    """The ledger as it was: items known by then, forgotten or closed only if that was known by then. Slow and exact."""
    ledger = load(db, path)
    known = np.zeros(len(ledger), bool)
    for some in rows.batches(ledger.scopes):
        sql = f"SELECT id, known, changed FROM item WHERE scope IN ({rows.marks(some)})"
        changed_later = []
        for id_, since_known, changed in db.execute(sql, some).fetchall():
            place = int(np.searchsorted(ledger.ids, id_))
            known[place] = since_known <= when
            if since_known <= when < changed:
                changed_later.append((id_, place))
        for id_, place in changed_later:
            row = db.execute(
                "SELECT since, until, gone FROM past WHERE item = ? AND known <= ? AND ? < ended", (id_, when, when)
            ).fetchone()
            if row is not None:
                ledger.since[place] = -np.inf if row[0] is None else row[0]
                ledger.until[place] = np.inf if row[1] is None else row[1]
                ledger.live[place] = row[2] is None
    ledger.live &= known
    return ledger


def _arrays(
    found: list[tuple[object, ...]], names: dict[tuple[int, str], int], speakers: dict[str, int]
) -> dict[str, Any]:
    columns = list(zip(*found, strict=True)) if found else [()] * 13
    ids, scope, kind, session, at, since, until, gone, value, uses, speaker, cues, trust = columns
    places = {name: place for place, name in enumerate(KINDS)}
    numbers = [
        -1 if name is None else names.setdefault((of, name), len(names))
        for of, name in zip(scope, session, strict=True)
    ]
    return {
        "ids": np.array(ids, np.int64),
        "scope": np.array(scope, np.int64),
        "kind": np.array([places.get(name, -1) for name in kind], np.int64),
        "session": np.array(numbers, np.int64),
        "at": np.array([np.nan if t is None else t for t in at], np.float64),
        "since": np.array([-np.inf if t is None else t for t in since], np.float64),
        "until": np.array([np.inf if t is None else t for t in until], np.float64),
        "live": np.array([t is None for t in gone], bool),
        "value": np.array(value, np.float64),
        "uses": np.array(uses, np.int64),
        "speaker": np.array([-1 if x is None else speakers.setdefault(x, len(speakers)) for x in speaker], np.int64),
        "cues": np.array(cues, np.int64),
        "trust": np.array(trust, np.int8),
    }

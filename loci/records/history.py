"""Time: what became of an item, and what changed in a scope between two moments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from loci.records import ledger, rows
from loci.records.database import Database
from loci.records.item import Item


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit: when, what was done, with what detail (for `close`: until, and the items that did it)."""

    seq: int
    time: float
    op: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Diff:
    """What was recallable at `after` and not at `before`, and the other way round."""

    before: float
    after: float
    added: list[Item]
    removed: list[Item]

    def __str__(self) -> str:
        lines = [f"+ {item.text}" for item in self.added] + [f"- {item.text}" for item in self.removed]
        return "\n".join(lines) or "nothing changed"


def history(db: Database, scope: int, id_: int) -> list[Event]:
    """The audit lines that touched an item, oldest first; `erase` lines span ids that are there no more, never a live one."""
    sql = """SELECT seq, time, op, detail FROM event WHERE scope = ? AND first <= ? AND last >= ? AND op <> 'erase'
             ORDER BY seq"""
    return [Event(seq, time, op, json.loads(detail)) for seq, time, op, detail in db.execute(sql, (scope, id_, id_))]


def diff(db: Database, path: str, before: float, after: float) -> Diff:
    """Compare a scope at two times, each read as it was."""
    old, new = ledger.as_of(db, path, before), ledger.as_of(db, path, after)
    old_ids, new_ids = old.ids[old.now(before)], new.ids[new.now(after)]

    def read(ids: np.ndarray[Any, Any]) -> list[Item]:
        found = rows.items(db, ids.tolist(), new.scopes)
        return [found[id_] for id_ in ids.tolist()]

    return Diff(before, after, read(np.setdiff1d(new_ids, old_ids)), read(np.setdiff1d(old_ids, new_ids)))

"""Slow work after the commit: embedding, and schemes that call a model. Durable, visible, resumable.

A job is a row: what to do, how far it is. It is advanced in pieces, each in a short transaction of its own, so a
killed process loses at most one piece of work and no data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loci.records import rows
from loci.records.database import Database


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of slow work. `detail` holds what the kind needs: for `write`, the ids first..last."""

    id: int
    kind: str
    scope: str
    detail: dict[str, Any]
    done: int
    total: int
    error: str | None
    created: float
    ended: float | None


def put(db: Database, kind: str, scope: int, detail: dict[str, Any], total: int, now: float) -> int:
    """Queue a job."""
    sql = "INSERT INTO job (kind, scope, detail, total, created) VALUES (?, ?, ?, ?, ?) RETURNING id"
    return int(db.execute(sql, (kind, scope, json.dumps(detail), total, now)).fetchone()[0])


def find(db: Database, scopes: Sequence[int], *, waiting: bool = False) -> list[Job]:
    """Jobs of the scopes, oldest first; `waiting` leaves out those that ended."""
    found = []
    for some in rows.batches(scopes):
        sql = f"""SELECT job.id, kind, path, detail, done, total, error, created, ended FROM job
                  JOIN scope ON scope.id = job.scope WHERE job.scope IN ({rows.marks(some)})"""
        text = f"{sql} {'AND ended IS NULL' * waiting} ORDER BY job.id"
        found += [Job(i, k, p, json.loads(d), *rest) for i, k, p, d, *rest in db.execute(text, some)]
    return found


def advance(db: Database, job: int, done: int, now: float) -> None:
    """Note how far a job is; it ends when all is done."""
    db.execute(
        "UPDATE job SET done = ?, error = NULL, ended = CASE WHEN ? >= total THEN ? END WHERE id = ?",
        (done, done, now, job),
    )


def fail(db: Database, job: int, error: str) -> None:
    """Note why a job stands still; it is tried again at the next call of `work`."""
    db.execute("UPDATE job SET error = ? WHERE id = ?", (error[:500], job))

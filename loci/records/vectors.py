"""Vectors: a cache keyed by (item, model). The text is the truth, so a change of model loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loci.core.ports import F32, I64, Embedder
from loci.records import rows
from loci.records.database import Database


def model_id(db: Database, embedder: Embedder) -> int | None:
    """The row of an embedder's model, None when the store has no vector of it yet."""
    sql = "SELECT id FROM model WHERE name = ? AND dim = ? AND version = ?"
    row = db.execute(sql, (embedder.name, embedder.dim, embedder.version)).fetchone()
    return None if row is None else int(row[0])


def register(db: Database, embedder: Embedder) -> int:
    """The row of an embedder's model, made when it is new."""
    found = model_id(db, embedder)
    if found is not None:
        return found
    sql = "INSERT INTO model (name, dim, version) VALUES (?, ?, ?) RETURNING id"
    return int(db.execute(sql, (embedder.name, embedder.dim, embedder.version)).fetchone()[0])


def pending(db: Database, model: int | None, limit: int, after: int = 0) -> list[tuple[int, str]]:
    """Live items that have no vector of the model yet, oldest first: (id, text)."""
    sql = """SELECT id, text FROM item WHERE id > ? AND gone IS NULL AND NOT EXISTS (
               SELECT 1 FROM vector WHERE vector.item = item.id AND vector.model = ?) ORDER BY id LIMIT ?"""
    return db.execute(sql, (after, model or 0, limit)).fetchall()


def put(db: Database, model: int, ids: Sequence[int], vectors: F32) -> None:
    """Keep vectors (N, dim) of items that are still there; those that went meanwhile are left out."""
    db.executemany(
        """INSERT INTO vector (model, item, data) SELECT ?, id, ? FROM item WHERE id = ? AND gone IS NULL
           ON CONFLICT (item, model) DO UPDATE SET data = excluded.data""",
        ((model, db.pack(row), id_) for id_, row in zip(ids, np.asarray(vectors), strict=True)),
    )


EXACT = 20_000  # items up to which every vector is compared, in memory


@dataclass(slots=True)
class Matrix:
    """The vectors of one model over a ledger's items: rows (N, dim), zero where an item has none."""

    model: int
    ids: I64
    rows: F32
    have: I64  # ids that have a vector

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return self.rows.nbytes + self.ids.nbytes + self.have.nbytes


def matrix(db: Database, model: int, dim: int, ids: I64, held: Matrix | None = None) -> Matrix:
    """The matrix over `ids`; rows that an older matrix of the model holds are not read again."""
    found = np.zeros((len(ids), dim), np.float32)
    have = np.zeros(len(ids), bool)
    if held is not None and held.model == model and len(held.have):
        at = np.searchsorted(held.have, ids)
        at = np.minimum(at, len(held.have) - 1)
        have = held.have[at] == ids
        old = np.searchsorted(held.ids, ids[have])
        found[have] = held.rows[old]
    missing = np.flatnonzero(~have)
    for some in rows.batches(missing.tolist()):
        wanted = [int(ids[place]) for place in some]
        sql = f"SELECT item, data FROM vector WHERE model = ? AND item IN ({rows.marks(wanted)})"
        for id_, data in db.execute(sql, (model, *wanted)):
            place = int(np.searchsorted(ids, id_))
            found[place] = db.unpack(data)
            have[place] = True
    return Matrix(model, ids, found, ids[have])

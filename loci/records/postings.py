"""The lexical index: posting lists that belong to one scope, in the same transaction as the items.

A row of `posting` holds, for one term, scope and range of 4096 ids, the entries (id, tf, length) of the items that
contain the term. So a query reads only rows of its own scope: its cost does not depend on what others keep, its
statistics are those of its scope, and an erased item leaves no trace to rebuild.

Scores are BM25 (Robertson and Zaragoza, 2009) in the form of Lucene:

    sum_t  ln(1 + (N - n_t + 0.5) / (n_t + 0.5)) * tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length))
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from loci.core.ports import I64
from loci.records import rows
from loci.records.database import Database

K1, B = 1.0, 0.6  # saturation of term counts, and how much length counts, where nothing else is asked for
SPAN = 4096  # ids of one row
ENTRY = np.dtype([("low", "<u2"), ("tf", "<u2"), ("length", "<u2")])
Posting = tuple[I64, NDArray[np.int64], NDArray[np.int64]]  # ids, tf, lengths
_MOST = 65535
_FEW_SCOPES, _MANY_SCOPES = 20, 200
_MANY_TERMS = 900  # parameters of one statement, scopes apart
_APPEND = """INSERT INTO posting VALUES (?, ?, ?, ?) ON CONFLICT (term, scope, chunk)
             DO UPDATE SET entries = CAST(posting.entries || excluded.entries AS BLOB)"""


def add(db: Database, scope: int, ids: Sequence[int], texts: Sequence[Sequence[str]]) -> None:
    """Index items, ids rising, by their tokens."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    db.execute(
        "UPDATE scope SET items = items + ?, tokens = tokens + ? WHERE id = ?",
        (len(ids), int(np.minimum(lengths, _MOST).sum()), scope),
    )
    db.executemany(_APPEND, _rows(scope, np.asarray(ids, np.int64), lengths, texts))


def _rows(scope: int, ids: I64, lengths: I64, texts: Sequence[Sequence[str]]) -> Iterator[tuple[str, int, int, bytes]]:
    flat = list(chain.from_iterable(texts))
    if not flat:
        return
    numbers: dict[str, int] = {}
    term = np.fromiter((numbers.setdefault(token, len(numbers)) for token in flat), np.int64, len(flat))
    place = np.repeat(np.arange(len(ids)), lengths)
    key, tf = np.unique(term * len(ids) + place, return_counts=True)  # by term, then by id
    term, place = np.divmod(key, len(ids))
    entries = np.empty(len(key), ENTRY)
    entries["low"] = ids[place] % SPAN
    entries["tf"] = np.minimum(tf, _MOST)
    entries["length"] = np.minimum(lengths[place], _MOST)
    chunk = ids[place] // SPAN
    starts = np.flatnonzero(np.r_[True, (np.diff(term) != 0) | (np.diff(chunk) != 0)])
    ends = np.r_[starts[1:], len(key)]
    names = list(numbers)
    data = entries.tobytes()
    size = ENTRY.itemsize
    for of, at, start, end in zip(
        term[starts].tolist(), chunk[starts].tolist(), starts.tolist(), ends.tolist(), strict=True
    ):
        yield names[of], scope, at, data[start * size : end * size]


def remove(db: Database, scope: int, item: int, tokens: Sequence[str]) -> None:
    """Take one item out of the index; `tokens` are what it was indexed by."""
    chunk, low = divmod(item, SPAN)
    found = False
    for term in set(tokens):
        row = db.execute(
            "SELECT entries FROM posting WHERE term = ? AND scope = ? AND chunk = ?", (term, scope, chunk)
        ).fetchone()
        if row is None:
            continue
        entries = np.frombuffer(row[0], ENTRY)
        kept = entries[entries["low"] != low]
        found |= len(kept) < len(entries)
        if len(kept):
            db.execute(
                "UPDATE posting SET entries = ? WHERE term = ? AND scope = ? AND chunk = ?",
                (kept.tobytes(), term, scope, chunk),
            )
        else:
            db.execute("DELETE FROM posting WHERE term = ? AND scope = ? AND chunk = ?", (term, scope, chunk))
    if found or not tokens:
        db.execute(
            "UPDATE scope SET items = items - 1, tokens = tokens - ? WHERE id = ?", (min(len(tokens), _MOST), scope)
        )


def read(db: Database, scopes: Sequence[int], terms: Sequence[str]) -> dict[str, Posting]:
    """The posting list of each term over the scopes: ids, tf, lengths."""
    if not scopes or not terms:
        return {}
    found: dict[str, tuple[list[int], list[bytes]]] = {}
    for start in range(0, len(terms), _MANY_TERMS):
        for term, chunk, entries in _read(db, scopes, terms[start : start + _MANY_TERMS]):
            chunks, blobs = found.setdefault(term, ([], []))
            chunks.append(chunk)
            blobs.append(entries)
    return {term: _list(*parts) for term, parts in found.items()}


def _read(db: Database, scopes: Sequence[int], terms: Sequence[str]) -> list[tuple[str, int, bytes]]:
    sql = f"SELECT term, chunk, entries FROM posting WHERE term IN ({rows.marks(terms)})"
    if len(scopes) <= _FEW_SCOPES:
        return db.execute(f"{sql} AND scope IN ({rows.marks(scopes)})", (*terms, *scopes)).fetchall()
    if len(scopes) > _MANY_SCOPES and len(scopes) == db.execute("SELECT count(*) FROM scope").fetchone()[0]:
        return db.execute(sql, tuple(terms)).fetchall()  # every scope: one range a term
    return db.execute(
        f"{sql} AND scope IN (SELECT value FROM json_each(CAST(? AS TEXT)))", (*terms, json.dumps(scopes))
    ).fetchall()


def _list(chunks: list[int], blobs: list[bytes]) -> Posting:
    entries = np.frombuffer(b"".join(blobs), ENTRY)
    counts = [len(blob) // ENTRY.itemsize for blob in blobs]
    ids = np.repeat(np.asarray(chunks, np.int64) * SPAN, counts) + entries["low"]
    return ids, entries["tf"].astype(np.int64), entries["length"].astype(np.int64)


def bm25(
    lists: Mapping[str, Posting],
    *,
    items: int,
    tokens: int,
    k1: float,
    b: float,
) -> dict[str, tuple[I64, NDArray[np.float64]]]:
    """Each term's ids and its share of their BM25 scores."""
    mean = max(tokens / max(items, 1), 1e-9)
    parts = {}
    for term, (ids, tf, length) in lists.items():
        n = len(ids)
        idf = np.log1p((max(items, n) - n + 0.5) / (n + 0.5))
        parts[term] = ids, idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean))
    return parts

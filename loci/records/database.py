"""What records are kept in: one SQL text that two engines run, SQLite on a file and PostgreSQL on a server.

Statements are written once, for both: `?` for values, `RETURNING` for ids, `ON CONFLICT` with its target. What the engines
do not share is on the two protocols here: `Database` inside a transaction, `Store` around it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from loci.core.ports import F32
from loci.records.scope import ROOT


class Cursor(Protocol):
    """Rows of one statement."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, None after the last."""
        ...

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """One transaction of a store."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Cursor:
        """Run one statement; each `?` stands for a value."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run one statement for many rows of values."""
        ...

    def reserve(self, table: str, count: int) -> int:
        """The first of `count` ids of a table that were never used and never will be by others."""
        ...

    def advance(self, table: str, past: int) -> None:
        """Let new ids of a table begin after `past`, where they do not already."""
        ...

    def used(self, table: str) -> int:
        """The highest id of a table that was given so far."""
        ...

    def pack(self, row: np.ndarray[Any, Any]) -> Any:
        """A float16 vector as the engine stores it."""
        ...

    def unpack(self, cell: Any) -> np.ndarray[Any, Any]:
        """A stored vector as float16."""
        ...

    indexes_vectors: bool  # whether the engine compares vectors itself, so that `nearest` and `cosines` can be asked

    def nearest(self, model: int, query: F32, scopes: Sequence[int], k: int, least: int = 0) -> list[int]:
        """Ids of about the k live items of the scopes, of at least a trust, with the best inner product, best first."""
        ...

    def cosines(self, model: int, query: F32, ids: Sequence[int]) -> list[tuple[int, float]]:
        """(id, inner product) of those of the items that have a vector."""
        ...

    def says(self, piece: bytes) -> bool:
        """Whether the text or meta of an item that is still there contains these bytes."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that the store holds, indexes included."""
        ...


class Store(Protocol):
    """Where a memory is kept: transactions, and what is done to the whole."""

    closed: bool
    local: bool  # whether reading is this process's own work, with no server to wait for

    @property
    def path(self) -> str | os.PathLike[str]:
        """The file or the URL, without a password."""
        ...

    @property
    def id(self) -> str:
        """The store's own name, given at its creation."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that the store holds, indexes included."""
        ...

    def read(self, sees: str = ROOT) -> AbstractContextManager[Database]:
        """A snapshot. A server that guards scopes itself shows only what is at or under `sees`."""
        ...

    def write(self, sees: str = ROOT) -> AbstractContextManager[Database]:
        """A write transaction, durable when it returns, rolled back whole on any error."""
        ...

    def checkpoint(self) -> None:
        """Bring what is on the disk into its lasting place."""
        ...

    def vacuum(self) -> None:
        """Give back the room of what was erased."""
        ...

    def index_vectors(self, dim: int) -> None:
        """Let the engine index vectors of a size, where it can; `Database.nearest` then need not look at all."""
        ...

    def raw(self, overlap: int) -> Iterator[tuple[str, bytes]]:
        """(where, bytes) of everything that is kept; pieces overlap, so that none cuts a word."""
        ...

    def damage(self) -> Iterator[tuple[str, str]]:
        """(where, what) of anything that the engine itself finds broken."""
        ...

    def close(self) -> None:
        """Let go of files and connections; closing twice is fine."""
        ...

"""One connection to PostgreSQL that runs the shared statements: `?` for values, rows guarded by tenant and scope."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.adapt import Dumper, Loader

from loci.core.ports import F32
from loci.records.postgres_schema import TABLES
from loci.records.scope import ROOT

_SETTINGS = """SELECT set_config('loci.tenant', %s, true), set_config('loci.scope', %s, true),
               set_config('loci.low', %s, true), set_config('loci.high', %s, true)"""
_LAST = "\U0010ffff"  # no path is beyond it
MEMBER = "loci_member"  # the role of sessions whose own role would pass row-level security by
_ESCAPE = "\ufdd0"  # a noncharacter: PostgreSQL cannot hold NUL, so NUL is written as _ESCAPE 0, and _ESCAPE twice
_CONFLICT = re.compile(r"ON CONFLICT \((?!tenant)")
_ROW = 24 + 4  # header and line pointer of a row
_ENTRY = 16 + 4 + 2  # header, key and line pointer of an index entry on pages that are nine tenths full


class Text(Dumper):
    """Text without loss: what PostgreSQL cannot hold is escaped."""

    oid = 25

    def dump(self, obj: str) -> bytes:
        """A text as the server keeps it."""
        if "\x00" in obj or _ESCAPE in obj:
            obj = obj.replace(_ESCAPE, _ESCAPE * 2).replace("\x00", _ESCAPE + "0")
        return obj.encode()


class Unescaped(Loader):
    """Text as it was given."""

    def load(self, data: bytes | bytearray | memoryview) -> str:
        """A text from the server."""
        text = bytes(data).decode()
        return re.sub(_ESCAPE + "(.)", lambda m: "\x00" if m[1] == "0" else m[1], text) if _ESCAPE in text else text


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection that speaks text and vectors as loci does."""
    connection = psycopg.connect(url, autocommit=True, connect_timeout=10, application_name="loci")
    connection.adapters.register_dumper(str, Text)
    connection.adapters.register_loader("text", Unescaped)
    return connection


@lru_cache(maxsize=4096)
def translated(sql: str) -> str:
    """A shared statement for psycopg: marks for values, and keys that begin with the tenant."""
    return _CONFLICT.sub("ON CONFLICT (tenant, ", sql.replace("%", "%%").replace("?", "%s"))


class PostgresDatabase:
    """What the shared SQL does not say, on PostgreSQL (`Database`)."""

    indexes_vectors = True

    def __init__(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        self._connection = connection
        self._tenant = tenant
        self.in_transaction = False
        register_vector(connection)
        role = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        if (connection.execute(role).fetchone() or (False,))[0]:
            connection.execute(f"SET ROLE {MEMBER}")
        connection.execute("SELECT set_config('search_path', 'loci, ' || current_setting('search_path'), false)")

    # --- transactions -------------------------------------------------------------------------------------------------

    @property
    def broken(self) -> bool:
        """Whether the server is gone or the session unusable."""
        return self._connection.closed or self._connection.broken

    def begin(self, sees: str, *, write: bool) -> None:
        """Start a transaction of this tenant that sees what is at or under a scope."""
        self._connection.execute("BEGIN" if write else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self.in_transaction = True
        low, high = ("", _LAST) if sees == ROOT else (f"{sees}/", f"{sees}0")  # "0" follows "/"
        self._connection.execute(_SETTINGS, (self._tenant, sees, low, high))

    def end(self, *, commit: bool) -> None:
        """End the transaction; a connection on which even that fails is given up."""
        self.in_transaction = False
        try:
            self._connection.execute("COMMIT" if commit else "ROLLBACK")
        except psycopg.Error:
            self._connection.close()
            if commit:
                raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # --- statements ---------------------------------------------------------------------------------------------------

    def execute(self, sql: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """Run one shared statement."""
        return self._connection.execute(translated(sql), values)

    def executemany(self, sql: str, rows_: Iterable[Sequence[Any]]) -> None:
        """Run one shared statement for many rows."""
        with self._connection.cursor() as cursor:
            cursor.executemany(translated(sql), list(rows_))

    def reserve(self, table: str, count: int) -> int:
        """The first of `count` ids of a table that were never used."""
        return int(self.execute("SELECT reserve(?, ?)", (table, count)).fetchone()[0])  # type: ignore[index]

    def advance(self, table: str, past: int) -> None:
        """Let new ids of a table begin after `past`, where they do not already."""
        self.execute(
            """INSERT INTO counter (name, seq) VALUES (?, ?) ON CONFLICT (name)
               DO UPDATE SET seq = greatest(counter.seq, excluded.seq)""",
            (table, past),
        )

    def used(self, table: str) -> int:
        """The highest id of a table that was given so far."""
        row = self.execute("SELECT seq FROM counter WHERE name = ?", (table,)).fetchone()
        return int(row[0]) if row else 0

    def pack(self, row: np.ndarray[Any, Any]) -> HalfVector:
        """A vector as pgvector keeps it in float16."""
        return HalfVector(np.asarray(row, np.float16))

    def unpack(self, cell: HalfVector) -> np.ndarray[Any, Any]:
        """Such a vector as an array."""
        return np.asarray(cell.to_numpy())

    def nearest(self, model: int, query: F32, scopes: Sequence[int], k: int, least: int = 0) -> list[int]:
        """Live items of the scopes by inner product, best first: from the HNSW index of their size, else from all.

        The index is scanned on until k of them pass the filters (pgvector's iterative scan).
        """
        self.execute(f"SET LOCAL hnsw.ef_search = {min(max(2 * k, 100), 1000):d}")
        self.execute("SET LOCAL hnsw.iterative_scan = strict_order")
        size = f"halfvec({len(query):d})"
        sql = f"""SELECT vector.item FROM vector JOIN item ON item.tenant = vector.tenant AND item.id = vector.item
                  WHERE vector.model = ? AND vector_dims(vector.data) = {len(query):d} AND item.gone IS NULL
                  AND item.scope = ANY(CAST(? AS BIGINT[])) AND item.trust >= ?
                  ORDER BY (vector.data::{size}) <#> CAST(? AS {size}) LIMIT ?"""
        return [id_ for (id_,) in self.execute(sql, (model, list(scopes), least, self.pack(query), k))]

    def cosines(self, model: int, query: F32, ids: Sequence[int]) -> list[tuple[int, float]]:
        """(id, inner product) of those of the items that have a vector, reckoned by the server."""
        sql = """SELECT item, -(data <#> ?) FROM vector WHERE model = ?
                 AND item = ANY(CAST(? AS BIGINT[]))"""
        return self.execute(sql, (self.pack(query), model, list(ids))).fetchall()

    def says(self, piece: bytes) -> bool:
        """Whether the text or meta of an item that is still there contains these bytes."""
        sql = """SELECT 1 FROM item WHERE position(CAST(? AS BYTEA) IN convert_to(text, 'UTF8')) > 0
                 OR position(CAST(? AS BYTEA) IN convert_to(meta, 'UTF8')) > 0 LIMIT 1"""
        return self.execute(sql, (piece, piece)).fetchone() is not None

    @property
    def nbytes(self) -> int:
        """Bytes of the tenant's rows and of their entries in indexes; free room on the server's pages is not counted."""
        total = 0
        for table in TABLES:
            row = self.execute(f"SELECT count(*), coalesce(sum(pg_column_size({table}.*)), 0) FROM {table}").fetchone()
            assert row is not None
            total += row[0] * _ROW + int(row[1])
        return total

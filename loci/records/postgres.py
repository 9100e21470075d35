"""The store on a PostgreSQL server: the statements of the embedded store, for many tenants, processes and machines.

`postgresql://user@host/db?tenant=acme` names a server, a database and a tenant (`default` where none is named); a tenant is
what a file is otherwise: a whole store of its own. Readers see a snapshot; writers of one tenant queue on an advisory lock,
so that its change log is in the order of its commits; tenants never wait for each other.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql as compose

from loci.core.errors import ClosedError, NotAStore
from loci.records import postgres_damage
from loci.records import postgres_schema as schema
from loci.records.postgres_database import MEMBER, PostgresDatabase, connect
from loci.records.postgres_errors import errors
from loci.records.scope import ROOT

_LOCK_S = 30
_SCHEMA_LOCK = 0x6C6F6369
_NO_ROLE = (  # roles belong to the cluster: another database may make it at this very moment
    psycopg.errors.InsufficientPrivilege, psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation,
)  # fmt: skip
_BYTES = {"posting": ("entries",), "state": ("data",)}


class PostgresStore:
    """One tenant of a database: a connection for writing, one for each thread that reads."""

    local = False

    def __init__(self, url: str) -> None:
        self._url, self.tenant = _split(url)
        self.path = _shown(url)
        self.closed = False
        self._lock = threading.RLock()
        self._local = threading.local()
        self._writer: PostgresDatabase | None = None
        self._readers: list[tuple[threading.Thread, PostgresDatabase]] = []
        try:
            with errors(self.path):
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        with connect(self._url) as login:
            _migrate(login)
        with self.write() as db:
            db.execute("INSERT INTO about VALUES ('store', ?) ON CONFLICT DO NOTHING", (uuid.uuid4().hex,))

    def _open(self) -> PostgresDatabase:
        if self.closed:
            raise ClosedError(f"this memory was closed; open it again with Memory({self.path!r})")
        return PostgresDatabase(connect(self._url), self.tenant)

    # --- transactions -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def read(self, sees: str = ROOT) -> Iterator[PostgresDatabase]:
        """One snapshot of what is at or under a scope. Nested reads share the outer one."""
        if self.closed:
            raise ClosedError(f"this memory was closed; open it again with Memory({self.path!r})")
        held: PostgresDatabase | None = getattr(self._local, "db", None)
        if held is not None and held.in_transaction:
            yield held
            return
        with errors(self.path):
            db = self._reader()
            db.begin(sees, write=False)
            try:
                yield db
            finally:
                db.end(commit=True)

    def _reader(self) -> PostgresDatabase:
        db: PostgresDatabase | None = getattr(self._local, "db", None)
        if db is None or db.broken:
            with self._lock:
                for thread, old in [pair for pair in self._readers if not pair[0].is_alive() or pair[1].broken]:
                    old.close()
                    self._readers.remove((thread, old))
                db = self._local.db = self._open()
                self._readers.append((threading.current_thread(), db))
        return db

    @contextlib.contextmanager
    def write(self, sees: str = ROOT) -> Iterator[PostgresDatabase]:
        """One write transaction, durable when it returns; rolled back whole on any error."""
        with self._lock, errors(self.path):
            if self._writer is None or self._writer.broken:
                self._writer = self._open()
            db = self._writer
            db.begin(sees, write=True)
            try:
                db.execute(f"SET LOCAL lock_timeout = '{_LOCK_S}s'")
                db.execute("SELECT pg_advisory_xact_lock(hashtextextended('loci:' || ?, 0))", (self.tenant,))
                yield db
            except BaseException:
                db.end(commit=False)
                raise
            db.end(commit=True)

    # --- the whole --------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The store's own name, given at its creation."""
        with self.read() as db:
            (name,) = db.execute("SELECT value FROM about WHERE key = 'store'").fetchall()[0]
            return str(name)

    @property
    def nbytes(self) -> int:
        """Bytes that the tenant holds, indexes included."""
        with self.read() as db:
            return db.nbytes

    def checkpoint(self) -> None:
        """Nothing: the server has everything that was committed."""

    def vacuum(self) -> None:
        """Let the server use the room of erased rows again; without the right to, its autovacuum will."""
        with errors(self.path), connect(self._url) as login:
            names = compose.SQL(", ").join(compose.Identifier("loci", table) for table in schema.TABLES)
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                login.execute(compose.SQL("VACUUM (ANALYZE) {}").format(names))

    def index_vectors(self, dim: int) -> None:
        """Make the HNSW index over vectors of a size, beside running work; without the right to, recall looks at all."""
        name = f"vector_hnsw_{dim:d}"
        denied = contextlib.suppress(psycopg.errors.InsufficientPrivilege)
        with errors(self.path), connect(self._url) as login, denied:
            login.execute("SELECT set_config('search_path', 'loci, ' || current_setting('search_path'), false)")
            login.execute(
                f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON vector "
                f"USING hnsw ((data::halfvec({dim:d})) halfvec_ip_ops) WHERE vector_dims(data) = {dim:d}"
            )

    def raw(self, overlap: int) -> Iterator[tuple[str, bytes]]:
        """(table, row as bytes) of everything the tenant keeps. The server's own files and logs are not read."""
        with self.read() as db:
            for table in schema.TABLES:
                blobs = "".join(f", {column}" for column in _BYTES.get(table, ()))
                for text, *data in db.execute(f"SELECT CAST({table} AS TEXT){blobs} FROM {table}"):
                    yield table, b"\n".join([text.encode(), *data])

    def damage(self) -> Iterator[tuple[str, str]]:
        """Guards, keys and indexes of the schema that are missing or off; the server checks its pages itself."""
        with self.read() as db:
            yield from postgres_damage.damage(db)
        with errors(self.path), connect(self._url) as login:
            yield from postgres_damage.orphans(login, self.tenant)

    def close(self) -> None:
        """Close every connection; closing twice is fine."""
        with self._lock:
            self.closed = True
            for db in [*(db for _, db in self._readers), *([self._writer] if self._writer else [])]:
                db.close()
            self._readers.clear()
            self._writer = None


def _migrate(login: psycopg.Connection[Any]) -> None:
    """Bring the database to the newest schema, once for all tenants."""
    version = _version(login)
    if version == schema.VERSION:
        return
    if version > schema.VERSION:
        raise NotAStore(
            f"the database has schema {version}, this loci knows up to {schema.VERSION}; upgrade loci to open it"
        )
    with login.transaction():
        login.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
        version = _version(login)  # another process may have been first
        if not version:
            login.execute("CREATE EXTENSION IF NOT EXISTS vector")
            login.execute("CREATE SCHEMA loci")
            login.execute("CREATE TABLE loci.schema_version (version BIGINT NOT NULL)")
            login.execute("INSERT INTO loci.schema_version VALUES (0)")
        login.execute("SELECT set_config('search_path', 'loci, ' || current_setting('search_path'), true)")
        for script in schema.LADDER[version:]:
            login.execute(script)
        login.execute("UPDATE loci.schema_version SET version = %s", (schema.VERSION,))
        if not login.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (MEMBER,)).fetchone():
            with contextlib.suppress(*_NO_ROLE), login.transaction():
                login.execute(compose.SQL("CREATE ROLE {} NOLOGIN").format(compose.Identifier(MEMBER)))
        if login.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (MEMBER,)).fetchone():
            login.execute(
                f"GRANT USAGE ON SCHEMA loci TO {MEMBER}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA loci "
                f"TO {MEMBER}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA loci TO {MEMBER}"
            )


def _version(login: psycopg.Connection[Any]) -> int:
    if login.execute("SELECT to_regclass('loci.schema_version')").fetchone() == (None,):
        return 0
    row = login.execute("SELECT version FROM loci.schema_version").fetchone()
    return int(row[0]) if row else 0


def _split(url: str) -> tuple[str, str]:
    """The URL as libpq knows it, and the tenant."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    tenant = dict(query).get("tenant", "default")
    if not 1 <= len(tenant) <= 200 or not tenant.isprintable():
        raise ValueError(f"tenant={tenant!r} is not a name; give 1 to 200 printable characters")
    rest = urlencode([pair for pair in query if pair[0] != "tenant"])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, rest, "")), tenant


def _shown(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    who, at, where = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, who.partition(":")[0] + at + where, parts.path, parts.query, ""))

"""One SQLite file: opening it safely, reading snapshots, writing short transactions.

Readers see a snapshot (WAL) and never wait; writers queue on the file's write lock, across threads and processes.
`secure_delete` is on: what is erased is overwritten with zeros.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loci.core.errors import Busy, ClosedError, LociError, NotAStore, ReadOnly, StorageFull, StoreError
from loci.core.ports import F32
from loci.records import schema
from loci.records.rawfile import RawFile
from loci.records.scope import ROOT

_BUSY_S = 30.0
_SETTINGS = (
    f"busy_timeout = {int(_BUSY_S * 1000)}", "foreign_keys = ON", "secure_delete = ON", "temp_store = MEMORY",
    "synchronous = FULL",  # acknowledged means on the disk
    "cache_size = -32000",
)  # fmt: skip
_MAGIC = b"SQLite format 3\x00"


class Connection(sqlite3.Connection):
    """What the shared SQL does not say, on SQLite (`Database`)."""

    indexes_vectors = False

    def reserve(self, table: str, count: int) -> int:
        """The first of `count` ids of a table that were never used."""
        row = self.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        self.advance(table, (row[0] if row else 0) + count)
        return int(row[0] if row else 0) + 1

    def advance(self, table: str, past: int) -> None:
        """Let new ids of a table begin after `past`, where they do not already."""
        if not self.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (past, table)).rowcount:
            self.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, past))

    def used(self, table: str) -> int:
        """The highest id of a table that was given so far."""
        row = self.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return int(row[0]) if row else 0

    def pack(self, row: np.ndarray[Any, Any]) -> bytes:
        """A vector as its bytes in float16."""
        return np.asarray(row, np.float16).tobytes()

    def unpack(self, cell: bytes) -> np.ndarray[Any, Any]:
        """The vector of such bytes."""
        return np.frombuffer(cell, np.float16)

    def nearest(self, model: int, query: F32, scopes: Sequence[int], k: int, least: int = 0) -> list[int]:
        """Not asked for: vectors are compared in memory."""
        raise NotImplementedError

    def cosines(self, model: int, query: F32, ids: Sequence[int]) -> list[tuple[int, float]]:
        """Not asked for: vectors are compared in memory."""
        raise NotImplementedError

    def says(self, piece: bytes) -> bool:
        """Whether the text or meta of an item that is still there contains these bytes."""
        sql = "SELECT 1 FROM item WHERE instr(CAST(text AS BLOB), ?) OR instr(CAST(meta AS BLOB), ?) LIMIT 1"
        return self.execute(sql, (piece, piece)).fetchone() is not None

    @property
    def nbytes(self) -> int:
        """Pages in use, indexes included; log and free pages not."""
        pages, free, size = (
            self.execute(f"PRAGMA {x}").fetchone()[0] for x in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


class SQLiteStore:
    """The file and its connections: one writer, one reader for each thread."""

    local = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if str(path) == ":memory:":  # a file of its own that goes when it is closed: the same laws hold
            self._folder = tempfile.TemporaryDirectory(prefix="loci-")
            path = Path(self._folder.name) / "memory.db"
        self.path = Path(path)
        self._lock = threading.RLock()
        self._door = threading.RLock()  # a new reader must not wait until a writer has got the file
        self._local = threading.local()
        self._all: list[Connection] = []
        self._readers: list[tuple[threading.Thread, Connection]] = []
        self._process = os.getpid()
        self._raw: RawFile | None = None
        self.closed = False
        try:
            with errors(self.path):
                self._check_file()
            self._writer = self._connect()
            with errors(self.path):
                self._raw = self._raw or RawFile(self.path)
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _check_file(self) -> None:
        if self.path.is_dir():
            raise NotAStore(f"{self.path} is a folder; give the path of a file such as {self.path / 'memory.db'}")
        if not self.path.parent.is_dir():
            raise StoreError(f"folder {self.path.parent} does not exist; create it, or give another path")
        try:
            self._raw = RawFile(self.path)
            head = self._raw.head(72)
        except FileNotFoundError:
            return
        except PermissionError as error:
            raise ReadOnly(f"{self.path} cannot be read ({error.strerror}); check its permissions") from error
        if not head:
            return
        if not head.startswith(_MAGIC):
            raise NotAStore(
                f"{self.path} is not a loci store (no SQLite header); it was left as it is, give another path"
            )
        owner = int.from_bytes(head[68:72], "big")
        if len(head) < 72 or owner not in (0, schema.APPLICATION_ID):
            raise NotAStore(f"{self.path} is another program's database; it was left as it is, give another path")
        page = int.from_bytes(head[16:18], "big")
        if page > 1 and self._raw.size % page:  # SQLite itself sees only whole pages that lack
            raise NotAStore(f"{self.path} is damaged (its last page is cut); it was left as it is, restore a backup")
        if not owner:  # also what a store of ours looks like whose first pages are still in the log
            log = self.path.with_name(self.path.name + "-wal")  # without one, a reader must not leave one
            how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
            with contextlib.closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?{how}", uri=True)) as db:
                self._check_owner(db)

    def _check_owner(self, db: sqlite3.Connection) -> None:
        """Refuse another program's database. One statement, so that a store being made just now is seen whole."""
        sql = "SELECT (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_master)"
        owner, tables = db.execute(sql).fetchone()
        if owner != schema.APPLICATION_ID and tables:
            raise NotAStore(f"{self.path} is another program's database; it was left as it is, give another path")

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError(f"this memory was closed; open it again with Memory({str(self.path)!r})")
        if os.getpid() != self._process:  # SQLite's connections must not cross a fork
            raise ClosedError(f"this memory was opened before a fork; open it here with Memory({str(self.path)!r})")

    def _connect(self) -> Connection:
        self._check_open()
        with errors(self.path):
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256,
                factory=Connection,
            )  # fmt: skip
        try:
            with errors(self.path):
                for setting in _SETTINGS:
                    connection.execute(f"PRAGMA {setting}")
        except BaseException:
            connection.close()
            raise
        self._all.append(connection)
        return connection

    def _prepare(self) -> None:
        """Bring the file to the newest schema; a file of a newer loci, or of nobody we know, is refused."""
        self._check_owner(self._writer)
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version > schema.VERSION:
            raise NotAStore(
                f"{self.path} has schema {version}, this loci knows up to {schema.VERSION}; upgrade loci to open it"
            )
        if version == schema.VERSION:
            self._writer.execute("SELECT count(*) FROM item WHERE id < 0").fetchone()  # a damaged file fails here
            return
        if not version:
            self._writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        else:
            self._backup(version)
        self._log_ahead()  # a copy that was put in a store's place comes without
        with self.write() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()  # another process may have been first
            for number, script in enumerate(schema.LADDER[version:], start=version + 1):
                for statement in _statements(script):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")
            db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            db.execute("INSERT OR IGNORE INTO about VALUES ('store', ?)", (uuid.uuid4().hex,))

    def _log_ahead(self) -> None:
        """Switch to a write-ahead log. SQLite may answer *busy* here without waiting when several make the file at once."""
        last = time.monotonic() + _BUSY_S
        while True:
            try:
                self._writer.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > last:
                    raise
                time.sleep(0.01)

    def _backup(self, version: int) -> None:
        copy = self.path.with_name(f"{self.path.name}.schema{version}.bak")
        if not copy.exists():
            self._writer.execute("VACUUM INTO ?", (str(copy),))

    @property
    def reader(self) -> Connection:
        """This thread's connection for reads."""
        self._check_open()
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._door:
                self._let_go()
                connection = self._connect()
                self._readers.append((threading.current_thread(), connection))
            self._local.connection = connection
        return connection

    def _let_go(self) -> None:
        """Close the connections of threads that have ended."""
        for thread, connection in [pair for pair in self._readers if not pair[0].is_alive()]:
            connection.close()
            self._readers.remove((thread, connection))
            self._all.remove(connection)

    @contextlib.contextmanager
    def read(self, sees: str = ROOT) -> Iterator[Connection]:
        """One snapshot: everything read inside agrees with everything else. Nested reads share the outer one."""
        db = self.reader
        if db.in_transaction:
            yield db
            return
        with errors(self.path):
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("COMMIT")

    @contextlib.contextmanager
    def write(self, sees: str = ROOT) -> Iterator[Connection]:
        """One write transaction, on the disk when it returns; rolled back whole on any error."""
        self._check_open()
        with self._lock, errors(self.path):
            self._check_open()
            db = self._writer
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @property
    def id(self) -> str:
        """The store's own name, given at its creation."""
        with self.read() as db:
            return str(db.execute("SELECT value FROM about WHERE key = 'store'").fetchone()[0])

    def checkpoint(self) -> None:
        """Move the log into the file and cut it to nothing, as far as readers elsewhere allow."""
        with self._lock, errors(self.path):
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def vacuum(self) -> None:
        """Rewrite the file without free pages, then cut the log: what was erased is then nowhere in the files."""
        with self._lock, errors(self.path):
            self._writer.execute("VACUUM")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def shrink(self) -> None:
        """Give free pages back to the disk."""
        with self._lock, errors(self.path):
            self._writer.execute("PRAGMA incremental_vacuum").fetchall()
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @property
    def nbytes(self) -> int:
        """Bytes that the store holds: pages in use, indexes included, log and free pages not."""
        with self.read() as db:
            return db.nbytes

    def index_vectors(self, dim: int) -> None:
        """Nothing: SQLite knows no vectors."""

    def raw(self, overlap: int) -> Iterator[tuple[str, bytes]]:
        """(file name, chunk of bytes): all that stands in the file and its log; chunks overlap, so that none cuts a word.

        The third file, `-shm`, holds page numbers only, and locks that reading it would let go.
        """
        for end in ("", "-wal"):
            path = self.path.with_name(self.path.name + end)
            with contextlib.suppress(FileNotFoundError), contextlib.closing(RawFile(path)) as raw:
                for chunk in raw.chunks(overlap):
                    yield path.name, chunk

    def damage(self) -> Iterator[tuple[str, str]]:
        """What SQLite's own checks find: broken pages, and rows that point to rows that are not there."""
        with self.read() as db:
            for (line,) in db.execute("PRAGMA integrity_check(20)"):
                if line != "ok":
                    yield "file", str(line)
            for table, rowid, parent, _ in db.execute("PRAGMA foreign_key_check").fetchall()[:20]:
                yield str(table), f"row {rowid} points to a row of {parent} that is not there"

    def close(self) -> None:
        """Close every connection; closing twice is fine."""
        if os.getpid() != self._process:  # after a fork they are the parent's, and closing them here would harm it
            self.closed = True
            return
        with self._lock, self._door:
            self.closed = True
            for connection in self._all:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
            self._all.clear()
            self._readers.clear()
            if self._raw is not None:
                self._raw.close()  # after the connections, or their locks would go with it
            if self._folder is not None:
                self._folder.cleanup()


def _statements(script: str) -> Iterator[str]:
    """Cut a script into statements: `executescript` would commit the transaction that it must be part of."""
    statement = ""
    for line in script.splitlines():
        statement += line.split("--")[0] + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextlib.contextmanager
def errors(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ours: what happened, and what to do."""
    try:
        yield
    except LociError:
        raise
    except sqlite3.Error as error:
        raise _translated(error, path) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(f"no space left for {path}; nothing of this call was kept, free some space") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ReadOnly(
                f"{path} cannot be read or written ({error.strerror}); nothing was written, check permissions"
            ) from error
        raise


def _translated(error: sqlite3.Error, path: Path) -> Exception:
    text = str(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in text:
        return ClosedError(f"this memory was closed; open it again with Memory({str(path)!r})")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"{path} was locked by another process for {_BUSY_S:.0f} s; nothing was written, call again")
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"no space left for {path}; nothing of this call was kept, free some space")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return ReadOnly(f"{path} or its folder cannot be written ({text}); nothing was written, check permissions")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return NotAStore(
            f"{path} is damaged ({text}); it was left as it is, run `loci doctor {path}` or restore a backup"
        )
    if code == sqlite3.SQLITE_IOERR:
        return StorageFull(f"{path} could not be written ({text}); nothing of this call was kept, check the disk")
    return StoreError(f"{path}: {text}")

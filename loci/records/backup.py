"""Backup while others write, and restore: a copy of the file, or lines that any store can take in.

A copy (`VACUUM INTO`) is a whole store: also vectors, keys of repeated calls and the hashes of tokens, so a token that was
revoked after the backup lives again where the copy is restored. A dump (JSON lines, packed when its name ends in .gz) holds
everything but vectors, which `Memory.embed` makes again, and tokens; it is what a server's tenant is backed up with.
Both are written beside their place, checked, forced to the disk, and only then given their name.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from loci.core.errors import NotAStore, StoreError
from loci.records import doctor, dump, exchange, intake, move, opening, sqlite
from loci.records.database import Store
from loci.records.dump import Extent, Line, Part
from loci.records.move import Moved, Origin, Progress
from loci.records.rawfile import RawFile

_OWN = ("", "-wal", "-shm", "-journal")  # files of a store
_MAGIC = b"SQLite format 3\x00"
_LINES = (".jsonl", ".jsonl.gz", ".gz")


@dataclass(frozen=True, slots=True)
class Backup:
    """What was written: where, as a copy or as lines, how many items and bytes."""

    target: str
    kind: str  # "copy" or "lines"
    items: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.target}: a {'copy' if self.kind == 'copy' else 'dump'} of {self.items} items, {self.bytes} bytes, checked"


def backup(
    source: str | os.PathLike[str], target: Path, *, as_lines: bool = False, progress: Progress | None = None
) -> Backup:
    """Write a backup of a store that others may be writing to: one snapshot, checked before it gets its name.

    A file is copied, unless `as_lines` or the target's name (.jsonl, .jsonl.gz) asks for lines; a server always gives lines.
    ValueError for a target that exists or is the store's own; StorageFull and ReadOnly as the disk says; then nothing is left.
    """
    move.check(source)
    _check_target(source, target)
    with closing(move.existing(source)) as store, _beside(target) as part:
        if isinstance(store, sqlite.SQLiteStore) and not (as_lines or target.name.endswith(_LINES)):
            items = _copy(store, part)
            kind = "copy"
        else:
            items = _write_lines(store, part, packed=target.suffix == ".gz", progress=progress)
            kind = "lines"
        size = part.stat().st_size
    return Backup(str(target), kind, items, size)


def restore(source: Path, target: str | os.PathLike[str], *, progress: Progress | None = None) -> Moved | Backup:
    """Make a store from a backup, in a new file or an unused tenant: the same ids, history, past and log.

    ValueError for a target that holds anything and for a backup that is cut or broken. A copy becomes a file at once or not
    at all; lines and whatever goes to a server are taken in batches: killed, run it again, and it goes on.
    """
    move.check(target)
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; give the file of a backup")
    with closing(RawFile(source)) as raw:
        is_store = raw.head(16) == _MAGIC
    if not is_store:
        return _take_lines(source, target, progress)
    if "://" in str(target):
        return move.move(source, target, progress=progress)
    place = Path(target)
    _check_target(source, place)
    with _beside(place) as part:
        _copy_file(source, part)
        items = _checked(part)
        size = part.stat().st_size
    return Backup(str(place), "copy", items, size)


# --- copies ---------------------------------------------------------------------------------------------------------


def _copy(store: sqlite.SQLiteStore, part: Path) -> int:
    """Copy an open store; its writers go on meanwhile."""
    with sqlite.errors(part):
        store.reader.execute("VACUUM INTO ?", (str(part),))
        _log_ahead(part)
    return _checked(part)


def _copy_file(source: Path, part: Path) -> None:
    """Copy a store's file without touching it, nor what may lie beside it."""
    log = source.with_name(source.name + "-wal")
    how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    with sqlite.errors(source):
        try:
            with closing(sqlite3.connect(f"{source.absolute().as_uri()}?{how}", uri=True, isolation_level=None)) as db:
                db.execute("VACUUM INTO ?", (str(part),))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                raise
            raise NotAStore(
                f"{source} cannot be read as a backup ({error}); give a copy or lines that loci backup wrote"
            ) from error
        _log_ahead(part)


def _log_ahead(part: Path) -> None:
    """A copy comes without the write-ahead log that a store is used with."""
    with closing(sqlite3.connect(part, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")


def _checked(part: Path) -> int:
    """Open a copy as a store and examine it; the number of its items."""
    if findings := doctor.examine(part):
        raise StoreError(f"the copy is not sound ({findings[0]}); run loci doctor on the store, nothing was kept")
    with closing(opening.store(part)) as store, store.read() as db:
        return int(db.execute("SELECT count(*) FROM item").fetchone()[0])


# --- lines ----------------------------------------------------------------------------------------------------------


def _write_lines(store: Store, part: Path, *, packed: bool, progress: Progress | None) -> int:
    """Write one snapshot of a store as lines, then read the file back."""
    with sqlite.errors(part), store.read() as db:
        whole = Part(db)
        head, total = dump.header(whole, Extent.BACKUP, store.id), dump.count(whole, Extent.BACKUP)
        with part.open("wb") as file, _text(file, packed=packed) as out:
            print(json.dumps(head), file=out)
            for done, line in enumerate(dump.lines(whole, Extent.BACKUP), start=1):
                print(json.dumps(line, ensure_ascii=False), file=out)
                if progress is not None and done % dump.PAGE == 0:
                    progress(min(done, total), total)
    return exchange.survey(part).items


@contextlib.contextmanager
def _text(file: io.BufferedWriter, *, packed: bool) -> Iterator[io.TextIOWrapper]:
    raw = gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) if packed else file
    with raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as out:
        yield out


def _take_lines(source: Path, target: str | os.PathLike[str], progress: Progress | None) -> Moved:
    """Pour the lines of a file, which were all read once before anything is written."""
    found = exchange.survey(source)

    def lines() -> Iterator[Line]:
        with exchange.opened(source) as file:
            for n, line in enumerate(file, start=1):
                if n > 1:
                    yield intake.completed(exchange.parse(source, n, line))

    origin = Origin(f"lines:{found.digest}", str(source), lines, found.lines - 1, found.used)
    extent = Extent.BACKUP if "store" in found.head else Extent.EXPORT
    with closing(opening.store(target)) as store:
        return move.pour(origin, store, extent=extent, progress=progress)


# --- places ---------------------------------------------------------------------------------------------------------


def _check_target(source: str | os.PathLike[str], target: Path) -> None:
    own = [] if "://" in str(source) else [Path(f"{source}{end}").absolute() for end in _OWN]
    if target.absolute() in own:
        raise ValueError(f"{target} belongs to the store {source} itself; give another name, nothing was written")
    if target.exists() or target.is_symlink():
        raise ValueError(f"{target} exists; give a new name, nothing was written")
    if not target.parent.is_dir():
        raise StoreError(f"folder {target.parent} does not exist; create it, or give another path")


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A name beside a place to write to; when all went well its file is forced to the disk and given the place."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with sqlite.errors(target):
            yield part
            _force(part)
            if target.exists():
                raise ValueError(f"{target} was made meanwhile; it was left as it is, give a new name")
            part.rename(target)
            _force(target.parent)
    finally:
        for end in _OWN:
            part.with_name(part.name + end).unlink(missing_ok=True)


def _force(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

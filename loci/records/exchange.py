"""Export and import: JSON lines, lossless, readable without loci. docs/schema.md describes them line by line.

Vectors and posting lists are left out: they are indexes, made again from the texts. Into an empty store ids and the change log
are kept, so export, import, export gives the same lines; into another store ids move by one offset. An import runs in batches
that each note how far they came, so it can be killed and run again; once done, running it again adds nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TextIO, cast

from loci.records import dump, intake, rows
from loci.records.database import Database
from loci.records.dump import FORMAT, Extent, Line, Part
from loci.records.handle import Handle
from loci.records.intake import Plan
from loci.records.scope import ROOT
from loci.records.scope import scope as checked

Progress = Callable[[int, int], None]
_BATCH = 2000
_GZIP = b"\x1f\x8b"  # how a packed file begins, whatever its name


def export(handle: Handle, out: TextIO, *, scope: str = ROOT, progress: Progress | None = None) -> int:
    """Write everything at or under a scope; the number of lines. One snapshot: writers are not kept waiting."""
    handle.flush()
    path = checked(scope)
    with handle.reading(path) as db:
        part = Part(db, path)
        head = dump.header(part, Extent.EXPORT, "")
        print(json.dumps(head), file=out)
        lines = 0
        for lines, line in enumerate(dump.lines(part), start=1):
            print(json.dumps(line, ensure_ascii=False), file=out)
            if progress is not None and lines % _BATCH == 0:
                progress(min(lines, head["items"]), head["items"])
    return lines + 1


def is_export(source: Path) -> bool:
    """Whether a file begins like an export of loci."""
    if not source.is_file():
        return False
    try:
        with opened(source) as file:
            return file.readline(200).startswith(b'{"loci":')
    except (OSError, EOFError):
        return False


def opened(source: Path) -> IO[bytes]:
    """The lines of a file, which may be packed by gzip."""
    with source.open("rb") as file:
        packed = file.read(2) == _GZIP
    return cast("IO[bytes]", gzip.open(source) if packed else source.open("rb"))


def load(handle: Handle, source: Path, *, scope: str | None = None, progress: Progress | None = None) -> int:
    """Import what `export` wrote, under a scope when one is given; the number of items added now.

    Raises ValueError that names the line of a file that is none of ours, cut short, or broken; what earlier batches kept
    stays, and a repaired file of the same content goes on from there.
    """
    found = survey(source)
    prefix = "" if scope is None or checked(scope) == ROOT else checked(scope) + "/"
    key = f"import:{found.digest}:{prefix}"
    plan, done = _plan(handle, key, found, prefix)
    added = 0
    with opened(source) as file:
        numbered = ((n, line) for n, line in enumerate(file, start=1) if n > max(done, 1))
        while batch := [pair for _, pair in zip(range(_BATCH), numbered, strict=False)]:
            some = [parse(source, n, line) for n, line in batch]
            done = batch[-1][0]
            with handle.writing() as db:
                added += intake.take(db, some, plan)
                _note(db, key, plan, done)
            if progress is not None:
                progress(done, found.lines)
    return added


@dataclass(slots=True)
class Survey:
    """What a file of lines holds, read once before anything is written."""

    head: Line
    lines: int = 0
    digest: str = ""
    items: int = 0  # how many
    used: dict[str, int] = field(default_factory=lambda: {"item": 0, "link": 0, "event": 0})  # highest ids


def survey(source: Path) -> Survey:
    """Read a file from end to end. Broken files are refused before anything is written."""
    if not is_export(source):
        raise ValueError(
            f'{source} is not an export of loci; give JSON lines that begin with {{"loci": {FORMAT}, ...}}'
        )
    digest, found, n = hashlib.sha256(), Survey({}), 0
    with opened(source) as file:
        try:
            for n, line in enumerate(file, start=1):
                digest.update(line)
                _tally(found, parse(source, n, line), source)
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{source} ends in line {n + 1} ({error}); it was cut short, give the whole file"
            ) from error
    if found.items != found.head["items"]:
        raise ValueError(
            f"{source} ends at line {n} with {found.items} of {found.head['items']} items; it was cut short, give the whole file"
        )
    found.lines, found.digest = n, digest.hexdigest()
    return found


def _tally(found: Survey, row: Line, source: Path) -> None:
    if not found.head:
        if row["loci"] != FORMAT:
            raise ValueError(f"{source} has format {row['loci']}, this loci reads {FORMAT}; upgrade loci to import it")
        found.head = row
        found.used |= row.get("used", {})
    elif "item" in row:
        found.items += 1
        found.used["item"] = max(found.used["item"], row["item"]["id"])
    elif "link" in row:
        found.used["link"] = max(found.used["link"], row["link"]["id"])
    elif "event" in row:
        found.used["event"] = max(found.used["event"], row["seq"])


def parse(source: Path, number: int, line: str | bytes) -> Line:
    """One line of a file as an object; ValueError names the place of one that is none."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{source} line {number} is not JSON ({error}); give the file as export wrote it") from error
    if not isinstance(row, dict):
        raise ValueError(f"{source} line {number} is not an object; give the file as export wrote it")
    return row


def _plan(handle: Handle, key: str, found: Survey, prefix: str) -> tuple[Plan, int]:
    """Reserve ids once for the whole import, found again when it is run again; and the lines that were taken in."""
    now = handle.now()
    with handle.writing() as db:
        row = db.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        if row is not None:
            held = json.loads(row[0])
            return Plan(bool(held["fresh"]), held["items"], held["links"], prefix, now), held["line"]
        if rows.latest(db) == 0 and not prefix:
            intake.advance(db, found.used)
            plan = Plan(fresh=True, prefix=prefix, now=now)
        else:
            items, links = (db.reserve(name, found.used[name]) - 1 for name in ("item", "link"))
            plan = Plan(fresh=False, items=items, links=links, prefix=prefix, now=now)
        _note(db, key, plan, 0)
    return plan, 0


def _note(db: Database, key: str, plan: Plan, line: int) -> None:
    """Write down how far an import is, in the transaction that brought it there."""
    value = {"line": line, "fresh": int(plan.fresh), "items": plan.items, "links": plan.links}
    sql = "INSERT INTO about VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    db.execute(sql, (key, json.dumps(value)))

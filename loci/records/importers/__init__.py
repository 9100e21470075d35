"""Importers: text and Markdown, OpenAI-style messages, ChatGPT and Claude exports. One format, one file.

`run` may be stopped and run again: an item is known by its source and the digest of its text, and what is there is skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from loci.records import rows
from loci.records.handle import Handle
from loci.records.importers import chat, chatgpt, claude, text
from loci.records.item import Item
from loci.records.memory import Memory

FORMATS = ("auto", "text", "chat", "chatgpt", "claude")
_BATCH = 500
_TEXTS = (".txt", ".md", ".markdown", ".rst")


@dataclass(frozen=True, slots=True)
class Result:
    """How many items were added, and how many were there already."""

    added: int
    skipped: int
    total: int


def run(
    memory: Memory,
    source: Path,
    *,
    format: str = "auto",  # noqa: A002 - the word of the command line
    scope: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Import a file or folder into a scope, in batches that are each on the disk before the next."""
    found = list(read(source, format=format))
    path = memory._scope(scope)
    there = _there(memory, path)
    added = done = 0
    rest = iter(found)
    while batch := list(islice(rest, _BATCH)):
        new = []
        for item in batch:
            if (mark := _mark(item.source, item.text)) not in there:
                there.add(mark)
                new.append(replace(item, scope=path))
        memory.add(new, scope=path)
        added, done = added + len(new), done + len(batch)
        if progress is not None:
            progress(done, len(found))
    return Result(added, len(found) - added, len(found))


def read(source: Path, *, format: str = "auto") -> Iterator[Item]:  # noqa: A002 - the word of the command line
    """The items of a file or folder, in order. ValueError names the place of what cannot be read."""
    if format not in FORMATS:
        raise ValueError(f"format={format!r} is unknown; choose one of {', '.join(FORMATS)}")
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; give a file or folder to import")
    if format == "text" or (format == "auto" and (source.is_dir() or source.suffix.lower() in _TEXTS)):
        yield from text.read(source, _TEXTS)
        return
    records = _json(source)
    reader = next((r for name, r in _READERS.items() if format == name or (format == "auto" and r.fits(records))), None)
    if reader is None:
        raise ValueError(
            f"{source} is no chat that loci knows; give OpenAI-style messages, a ChatGPT or Claude conversations.json, "
            "text or Markdown, or name its format"
        )
    yield from reader.read(records, source.name)


_READERS: dict[str, Any] = {"chatgpt": chatgpt, "claude": claude, "chat": chat}


def _json(source: Path) -> list[Any]:
    """The records of a JSON document or of JSON lines."""
    data = source.read_text("utf-8-sig")
    try:
        whole = json.loads(data)
    except ValueError:
        records = []
        for number, line in enumerate(data.splitlines(), start=1):
            if line.strip():
                try:
                    records.append(json.loads(line))
                except ValueError as error:
                    raise ValueError(
                        f"{source} line {number} is not JSON ({error}); give JSON or JSON lines"
                    ) from error
        return records
    return whole if isinstance(whole, list) else [whole]


def _mark(source: str | None, said: str) -> bytes:
    return hashlib.blake2b(f"{source}\0{said}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _there(handle: Handle, path: str) -> set[bytes]:
    """Marks of everything in the scope, forgotten items too: what was forgotten is not brought back by an import."""
    found: set[bytes] = set()
    with handle.reading() as db:
        for some in rows.batches(rows.scopes_under(db, path)):
            sql = f"SELECT source, text FROM item WHERE scope IN ({rows.marks(some)})"
            found.update(_mark(source, said) for source, said in db.execute(sql, some))
    return found

"""Commands that write: add, import, export."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from loci.app.common import EmbedderName, File, Json, SchemeName, Scope, opened, out, progress

Supersedes = Annotated[list[int] | None, typer.Option(help="Ids of items that this ends.")]


def add(
    file: File,
    text: Annotated[list[str] | None, typer.Argument(help="Texts, one item each.", show_default=False)] = None,
    *,
    scope: Scope = "default",
    at: Annotated[str | None, typer.Option(help="When it happened: 2023-05-03.")] = None,
    known: Annotated[str | None, typer.Option(help="When it became known; default now.")] = None,
    session: Annotated[str | None, typer.Option(help="Items of one session are neighbours.")] = None,
    source: Annotated[str | None, typer.Option(help="Where it came from.")] = None,
    principal: Annotated[str | None, typer.Option(help="Who said it.")] = None,
    trust: Annotated[str, typer.Option(help="untrusted, ordinary or owner.")] = "ordinary",
    kind: Annotated[str, typer.Option(help="episode, fact, case, skill, note, entity.")] = "episode",
    pin: Annotated[bool, typer.Option("--pin", help="Never dropped by a budget.")] = False,
    supersedes: Supersedes = None,
    scheme: SchemeName = "loci",
    embedder: EmbedderName = "none",
    as_json: Json = False,
) -> None:
    """Remember texts, word for word. Without one, or with -, lines of stdin."""
    texts = [line.rstrip("\n") for line in sys.stdin] if not text or text == ["-"] else text
    with opened(file, new=True, scheme=scheme, embedder=embedder) as memory:
        ids = memory.add(
            texts, scope=scope, at=at, known=known, session=session, source=source, kind=kind, pinned=pin,
            supersedes=supersedes or (), principal=principal, trust=trust,
        )  # fmt: skip
    out({"ids": ids, "scope": ids.scope}, " ".join(map(str, ids)), as_json=as_json)


def import_(
    file: File,
    source: Annotated[Path, typer.Argument(help="A file or folder to import.", show_default=False)],
    *,
    format: Annotated[str, typer.Option(help="auto, jsonl, text, chat, chatgpt, claude.")] = "auto",  # noqa: A002
    scope: Annotated[str | None, typer.Option(help="Put everything under this scope.")] = None,
    as_json: Json = False,
) -> None:
    """Import an export of loci, text or Markdown, or chats. May be run again: it goes on."""
    from loci.records import exchange, importers
    from loci.records.remote import RemoteMemory

    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; give a file or folder to import")
    with opened(file, new=True) as memory, progress("import") as report:
        if isinstance(memory, RemoteMemory):
            known = format == "jsonl" or (format == "auto" and source.suffix == ".jsonl")
            total = memory.load(
                source if known else importers.read(source, format=format), scope=scope, progress=report
            )
            result = {"added": total, "skipped": 0, "total": total}
        elif format == "jsonl" or (format == "auto" and exchange.is_export(source)):
            added = exchange.load(memory, source, scope=scope, progress=report)
            result = {"added": added, "skipped": 0, "total": added}
        else:
            done = importers.run(memory, source, format=format, scope=scope, progress=report)
            result = {"added": done.added, "skipped": done.skipped, "total": done.total}
    out(result, f"added {result['added']}, skipped {result['skipped']} of {result['total']}", as_json=as_json)


def export(
    file: File,
    to: Annotated[Path | None, typer.Argument(help="A file; default stdout.", show_default=False)] = None,
    *,
    scope: Annotated[str, typer.Option(help="Only what is at or under it; / is everything.")] = "/",
) -> None:
    """Write everything as JSON lines, readable without loci."""
    from loci.records import exchange
    from loci.records.remote import RemoteMemory

    with opened(file) as memory, progress("export") as report:
        write = memory.export if isinstance(memory, RemoteMemory) else partial(exchange.export, memory)
        if to is None:
            write(sys.stdout, scope=scope, progress=report)
            return
        if to.exists():
            raise ValueError(f"{to} exists; give a new file, nothing was written")
        with to.open("w", encoding="utf-8") as target:
            lines = write(target, scope=scope, progress=report)
    print(f"wrote {lines} lines to {to}", file=sys.stderr)

"""Commands that keep a memory safe: backup, restore, move. docs/runbook.md says when to use which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loci.app.common import File, Json, out, progress

Target = Annotated[str, typer.Argument(help="A new file, or the URL of an unused tenant.", show_default=False)]


def backup(
    file: File,
    target: Annotated[Path, typer.Argument(help="A new file.", show_default=False)],
    *,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="JSON lines instead of a copy.")] = False,
    as_json: Json = False,
) -> None:
    """Write a checked backup, while others go on writing.

    A file is copied; a server's tenant, and whatever is to end in .jsonl or
    .jsonl.gz, is written as JSON lines, without tokens and vectors.
    """
    from loci.records import backup as vault

    with progress("backup") as report:
        done = vault.backup(file, target, as_lines=jsonl, progress=report)
    out(done, str(done), as_json=as_json)


def restore(
    source: Annotated[str, typer.Argument(help="A backup; with --as-of a memory.", show_default=False)],
    target: Target,
    *,
    as_of: Annotated[str | None, typer.Option(help="As it was then: 2026-03-01T12:00.")] = None,
    as_json: Json = False,
) -> None:
    """Make a memory from a backup, or from a memory as it was at a time.

    Never over one that holds anything. Killed, run it again: it goes on.
    """
    from loci.records import backup as vault
    from loci.records import rewind
    from loci.records.move import Moved

    with progress("restore") as report:
        if as_of is not None:
            past = rewind.rewind(source, target, as_of, progress=report)
            found, text = (
                {"as_of": as_of, "erased": past.erased, "unlearned": past.unlearned, **_sides(past.moved)},
                str(past),
            )
        else:
            done = vault.restore(Path(source), target, progress=report)
            found = _sides(done) if isinstance(done, Moved) else {"target": done.target, "items": done.items}
            text = str(done)
    out(found, text, as_json=as_json)


def move(
    source: File,
    target: Target,
    *,
    as_json: Json = False,
) -> None:
    """Bring a memory to another place: file to server, or back.

    All of it, tokens and vectors too; the source is only read. Killed, run it
    again: it goes on. Both sides are compared at the end.
    """
    from loci.records import move as moving

    with progress("move") as report:
        done = moving.move(source, target, progress=report)
    out(_sides(done), str(done), as_json=as_json)


def _sides(done: object) -> dict[str, object]:
    return {name: getattr(done, name) for name in ("source", "target", "counts", "digest", "already", "again")}

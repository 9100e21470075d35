"""What the commands share: options, opening a file, printing as text or JSON, progress."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from loci.records import Memory

File = Annotated[str, typer.Argument(help="The memory: a file or a URL.", show_default=False)]
Ids = Annotated[list[int], typer.Argument(help="Ids of items.", show_default=False)]
Scope = Annotated[str, typer.Option(help="Whose memory: a slash path.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
SchemeName = Annotated[str, typer.Option(help="How to recall (loci list scheme).")]
EmbedderName = Annotated[str, typer.Option(help="none, hash or minilm.")]


def opened(
    path: str, *, new: bool = False, scheme: str = "loci", embedder: str = "none", log_queries: bool = True
) -> Memory:
    """Open a memory; only `add`, `import` and `mcp` make a new file."""
    if path.startswith(("http://", "https://")):
        if (scheme, embedder) != ("loci", "none"):
            raise ValueError(
                "scheme and embedder are for the server to choose; leave them out, or give them to loci serve"
            )
        return Memory(path, token=os.environ.get("LOCI_TOKEN") or None)
    if not new and "://" not in path and not Path(path).exists():
        raise FileNotFoundError(
            f"{path} does not exist; give the file of a memory, or make one with: loci add {path} TEXT"
        )
    return Memory(path, scheme=scheme, embedder=embedder, log_queries=log_queries)


def out(thing: Any, text: str, *, as_json: bool) -> None:
    """Print a result: as one JSON document, or as text."""
    print(json.dumps(plain(thing), ensure_ascii=False, indent=1) if as_json else text)


def plain(thing: Any) -> Any:
    """As JSON can hold it."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {field.name: plain(getattr(thing, field.name)) for field in dataclasses.fields(thing)}
    if isinstance(thing, dict):
        return {str(key): plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [plain(part) for part in thing]
    return thing if isinstance(thing, str | int | float | bool | None) else str(thing)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while something long runs, where someone watches; yields how to report (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

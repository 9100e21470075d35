"""`loci view`: look at a memory in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from loci.app.common import EmbedderName, File, SchemeName
from loci.core.errors import need

_PORT = 8480


def view(
    file: File,
    *,
    scope: Annotated[str | None, typer.Option(help="The scope to begin with; default all.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 takes a free one.")] = _PORT,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the browser.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Show only; refuse every change.")] = False,
    scheme: SchemeName = "loci",
    embedder: EmbedderName = "none",
) -> None:
    """Look at a memory in the browser: search, timeline, graph, budget. Only this machine can see it."""
    need("nicegui", extra="web", who="loci view")
    from loci.app.web.server import serve

    serve(file, scope=scope, port=port, open_browser=not no_open, read_only=read_only, scheme=scheme, embedder=embedder)

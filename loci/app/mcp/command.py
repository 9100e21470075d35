"""The command `loci mcp`: what it takes, and which transport it starts."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from loci.app.common import EmbedderName, File, SchemeName, Scope, opened
from loci.core.errors import need
from loci.records import trusts


def mcp(
    file: File,
    *,
    scope: Scope = "default",
    read_only: Annotated[bool, typer.Option("--read-only", help="Offer only the tools that read.")] = False,
    principal: Annotated[str | None, typer.Option(help="Who says what is remembered here.")] = None,
    trust: Annotated[str, typer.Option(help="How far that is believed: untrusted, ordinary, owner.")] = "ordinary",
    http: Annotated[bool, typer.Option("--http", help="Streamable HTTP instead of stdio.")] = False,
    host: Annotated[str, typer.Option(help="Where to listen; elsewhere than here needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8765,
    token: Annotated[
        str | None, typer.Option(envvar="LOCI_MCP_TOKEN", help="What clients must bring as bearer.")
    ] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A name that clients use for this server.")] = None,
    scheme: SchemeName = "loci",
    embedder: EmbedderName = "none",
) -> None:
    """Serve a memory to MCP hosts: stdio, or HTTP with --http."""
    need("mcp", extra="serve", who="loci mcp")
    from loci.app.mcp import server, web

    file = file if "://" in file else os.path.expanduser(file)  # hosts start it without a shell  # noqa: PTH111
    if http:
        web.check(host, port, token)
    with opened(file, new=not read_only, scheme=scheme, embedder=embedder, log_queries=not read_only) as memory:
        author = {"principal": principal, "trust": trusts.level(trust)}
        built = server.build(memory, scope=scope, read_only=read_only, author=author)
        if http:
            web.serve(built, host=host, port=port, token=token, names=allow_host or ())
        else:
            server.stdio(built)

"""`loci serve` and `loci token`: a memory for others, on this machine only until there is a token."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loci.app.common import EmbedderName, File, Json, SchemeName, opened, out
from loci.core import sizes
from loci.core.clock import iso
from loci.core.errors import Denied, need
from loci.records import tokens

if TYPE_CHECKING:
    from loci.app.http.limits import Limits
    from loci.records import Memory

_DAY = 86400.0
_SWITCH_S = (
    0.0005  # a recall gives Python's lock to the loop that answers after so long; by default after ten times that
)

token = typer.Typer(help="Who may use a served memory, and for what.", no_args_is_help=True)


def serve(
    file: File,
    *,
    host: Annotated[str, typer.Option(help="Where to listen; another than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.")] = 8787,
    scheme: SchemeName = "loci",
    embedder: EmbedderName = "none",
    max_body: Annotated[str, typer.Option(help="Bytes of one call.")] = "32MB",
    max_import: Annotated[str, typer.Option(help="Bytes of one import.")] = "16GB",
    rate: Annotated[float, typer.Option(help="Requests a second of one token.")] = 1000.0,
    concurrent: Annotated[int, typer.Option(help="Requests answered at once.")] = 64,
    grace: Annotated[int, typer.Option(help="Seconds to finish in, when told to stop.")] = 30,
    open_metrics: Annotated[bool, typer.Option("--open-metrics", help="/metrics without a token.")] = False,
    otel: Annotated[bool, typer.Option("--otel", help="OpenTelemetry spans, as OTEL_ variables say.")] = False,
) -> None:
    """Serve a memory over HTTP: every verb, imports and exports as streams."""
    need("fastapi", extra="serve", who="loci serve")
    need("uvicorn", extra="serve", who="loci serve")
    from loci.app.http.limits import Limits

    limits = Limits(
        body=sizes.parse(max_body, name="max-body"), upload=sizes.parse(max_import, name="max-import"),
        rate=rate, concurrent=concurrent,
    )  # fmt: skip
    with opened(_held(file), new=True, scheme=scheme, embedder=embedder) as memory:
        _run(memory, host, port, limits, grace=grace, open_metrics=open_metrics, otel=otel)


def _run(memory: Memory, host: str, port: int, limits: Limits, *, grace: int, open_metrics: bool, otel: bool) -> None:
    from loci.app.http.app import create
    from loci.app.http.auth import loopback
    from loci.app.http.door import listening, server

    _may_listen(memory, host, local=loopback(host))
    tracer = None
    if otel:
        from loci.app.http import tracing

        tracer = tracing.tracer()
    app = create(
        memory, limits=limits, open_access=loopback(host), open_metrics=open_metrics, closes=True, tracer=tracer
    )
    sys.setswitchinterval(_SWITCH_S)
    with listening(host, port) as door:
        shown = f"[{host}]" if ":" in host else host
        print(f"loci serves {memory.path} at http://{shown}:{door.getsockname()[1]}", flush=True)
        print("what it offers: /docs and /openapi.json; stop it with Ctrl-C", flush=True)
        server(app, grace=grace).run(sockets=[door])


def _may_listen(memory: Memory, host: str, *, local: bool) -> None:
    """Refuse to open a memory without tokens to other machines."""
    live = any(one.live(memory.now()) for one in tokens.listed(memory))
    if not local and not live:
        raise Denied(
            f"host={host} is reachable from other machines, and {memory.path} has no live token; "
            f"make one first: loci token new {memory.path} NAME"
        )


@token.command("new")
def token_new(
    file: File,
    name: Annotated[str, typer.Argument(help="Whose it is.", show_default=False)],
    *,
    scope: Annotated[str, typer.Option(help="It sees what is at or under this; / is everything.")] = "/",
    rights: Annotated[str, typer.Option(help="Of read, write, forget, admin.")] = "read,write",
    days: Annotated[float | None, typer.Option(help="How long it holds; without, until revoked.")] = None,
    as_json: Json = False,
) -> None:
    """Make a token. It is shown this once; the memory keeps only its hash."""
    wanted = [part.strip() for part in rights.split(",") if part.strip()]
    with opened(_held(file), new=True) as memory:
        secret, made = tokens.create(
            memory, name, scope=scope, rights=wanted, lasts=None if days is None else days * _DAY
        )
    out({"token": secret, **_shown(made)}, secret, as_json=as_json)


@token.command("list")
def token_list(file: File, *, as_json: Json = False) -> None:
    """The tokens of a memory: never the secrets."""
    with opened(_held(file)) as memory:
        now, found = memory.now(), tokens.listed(memory)
    lines = [
        f"{one.id}  {one.name}  {one.scope}  {','.join(one.rights)}  {'live' if one.live(now) else 'ended'}"
        for one in found
    ]
    out([_shown(one) for one in found], "\n".join(lines) or "no tokens", as_json=as_json)


@token.command("revoke")
def token_revoke(
    file: File,
    name: Annotated[str, typer.Argument(help="A name or id from loci token list.", show_default=False)],
    *,
    as_json: Json = False,
) -> None:
    """End a token, at once, wherever the memory is served."""
    with opened(_held(file)) as memory:
        ended = tokens.revoke(memory, name)
    out([_shown(one) for one in ended], f"revoked {', '.join(one.id for one in ended)}", as_json=as_json)


def _held(file: str) -> str:
    """A memory itself: what is served already can neither be served again nor be given tokens from afar."""
    if file.startswith(("http://", "https://")):
        raise ValueError(f"{file} is a server; give the file or database that it serves")
    return file


def _shown(one: tokens.Token) -> dict[str, Any]:
    def when(seconds: float | None) -> str | None:
        return None if seconds is None else iso(seconds)

    return {
        "id": one.id, "name": one.name, "scope": one.scope, "rights": list(one.rights), "created": when(one.created),
        "expires": when(one.expires), "revoked": when(one.revoked),
    }  # fmt: skip

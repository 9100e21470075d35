"""Streamable HTTP: this machine only, unless a token is asked for; foreign pages and other host names are refused."""

from __future__ import annotations

import hmac
import signal
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import uvicorn
from mcp.server import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/mcp"
_HERE = ("127.0.0.1", "localhost", "[::1]")


def check(host: str, port: int, token: str | None) -> None:
    """Refuse to be reachable from elsewhere by whoever comes."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"port={port} is no port; give 1 to 65535, or 0 for a free one")
    if token is not None and not token.strip():
        raise ValueError("the token is empty; give a long random one with --token or LOCI_MCP_TOKEN, or none at all")
    if token is None and not _loopback(host):
        raise ValueError(
            f"host={host!r} is reachable from other machines and no token is asked for; give --token (or LOCI_MCP_TOKEN), "
            "or stay on 127.0.0.1 behind loci serve or a reverse proxy"
        )


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def app(server: Server[Any], *, host: str, token: str | None, names: Sequence[str] = ()) -> ASGIApp:
    """The ASGI application: stateless, so that clients outlive a restart."""
    known = [*_HERE, f"[{host}]" if ":" in host else host, *names]
    security = TransportSecuritySettings(
        allowed_hosts=[form for name in known for form in (name, f"{name}:*")],
        allowed_origins=[
            f"{kind}://{form}" for name in known for kind in ("http", "https") for form in (name, f"{name}:*")
        ],
    )
    inner = server.streamable_http_app(
        streamable_http_path=PATH, json_response=True, stateless_http=True, transport_security=security, host=host
    )
    return inner if token is None else Bearer(inner, token)


class Bearer:
    """Lets through only requests that bring the token; compares in constant time."""

    def __init__(self, inner: ASGIApp, token: str) -> None:
        self.inner = inner
        self.wanted = b"bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 unless the header is there, once and right."""
        if scope["type"] == "http":
            found = [value for name, value in scope["headers"] if name == b"authorization"]
            given = found[0] if len(found) == 1 else b""
            if not hmac.compare_digest(given[:7].lower() + given[7:], self.wanted):
                response = PlainTextResponse(
                    "this memory asks for a token; send it as: Authorization: Bearer TOKEN",
                    401, headers={"WWW-Authenticate": "Bearer"},
                )  # fmt: skip
                await response(scope, receive, send)
                return
        await self.inner(scope, receive, send)


def serve(server: Server[Any], *, host: str, port: int, token: str | None, names: Sequence[str] = ()) -> None:
    """Listen until told to stop; requests that were begun are finished first."""
    check(host, port, token)
    config = uvicorn.Config(
        app(server, host=host, token=token, names=names), log_level="warning", timeout_graceful_shutdown=10
    )
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(0)
    )  # uvicorn raises it again when it is done: then close the memory
    with _listening(host, port) as listener:
        at = listener.getsockname()
        shown = f"[{at[0]}]" if ":" in at[0] else at[0]
        print(f"loci mcp: listening on http://{shown}:{at[1]}{PATH}", file=sys.stderr, flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)  # from here on a client that comes waits, and is not refused
    except OSError as error:
        raise ValueError(
            f"cannot listen on host={host!r}, port={port} ({error}); give another with --host or --port"
        ) from error
    return listener

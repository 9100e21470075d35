"""The door to the network: a socket that listens, and the uvicorn server behind it."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from typing import Any

import uvicorn

from loci.core.card import load

QUIET: Any = {  # FastAPI's own instruments would hand texts and errors to whatever collector the process has
    "tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False,
}  # fmt: skip
_BACKLOG = 512
_HEAD_S = 10.0  # seconds in which a new connection must have said what it wants
_IDLE_S = 30  # seconds for which a connection is kept between two requests


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that its port is known, and listens, so that early callers wait instead of failing."""
    door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        door.close()
        raise ValueError(f"host={host} port={port} cannot be listened on ({error}); give another") from error
    return door


def server(app: Any, *, grace: int = 30, head_s: float = _HEAD_S) -> uvicorn.Server:
    """The uvicorn server of an app: it says little, tells nobody its name, and finishes what it began."""
    return uvicorn.Server(uvicorn.Config(
        app, http=_impatient(head_s), log_level="warning", access_log=False, lifespan="on", ws="none", server_header=False,
        proxy_headers=False, timeout_keep_alive=_IDLE_S, timeout_graceful_shutdown=grace, backlog=_BACKLOG,
    ))  # fmt: skip


def _impatient(seconds: float) -> type[asyncio.Protocol]:
    """Uvicorn's protocol, which by itself waits for ever for the head of a first request."""
    name = "httptools_impl:HttpToolsProtocol" if importlib.util.find_spec("httptools") else "h11_impl:H11Protocol"
    kind: Any = load(f"uvicorn.protocols.http.{name}")

    class Impatient(kind):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_later(seconds, self._look)

        def _look(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Impatient

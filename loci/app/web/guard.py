"""Who may talk to the viewer: this machine's browser, on pages of the viewer itself.

A server on 127.0.0.1 is still reached by every page of the web that the user has open. Two checks stop them: the Host
header must name this address (a name that was rebound to 127.0.0.1 does not), and a request that says which page it comes
from must come from the viewer (a foreign page can send forms and open sockets without asking).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HOSTS = ("127.0.0.1", "localhost")
_HEADERS = {
    # what the pages may load: themselves. Vue compiles templates, hence the unsafe words; nothing may come from elsewhere.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' ws: wss:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware: refuses other hosts and other pages, and keeps what is served to this origin."""

    def __init__(self, app: App, *, port: int) -> None:
        self._app = app
        self._hosts = {f"{host}:{port}" for host in HOSTS} | (set(HOSTS) if port == 80 else set())
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        problem = self._problem(scope)
        if problem is None:
            await self._app(scope, receive, _sealed(send) if scope["type"] == "http" else send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": problem})
        else:
            body = f"loci view: {problem}\n".encode()
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _problem(self, scope: Scope) -> str | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get("host", "").lower() not in self._hosts:
            return "the Host header names another address; open the address that loci view printed"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self._origins:
            return "the request comes from another page; open the address that loci view printed"
        return None


def _sealed(send: Send) -> Send:
    """Send with the headers that keep a page to itself; pages with memories in them are not kept by caches."""

    async def sealed(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            kinds = {name.lower(): value for name, value in given}
            if kinds.get(b"content-type", b"").startswith((b"text/html", b"application/json")):
                given = [(name, value) for name, value in given if name.lower() != b"cache-control"]
                given.append((b"cache-control", b"no-store"))
            given += [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": given}
        await send(message)

    return sealed

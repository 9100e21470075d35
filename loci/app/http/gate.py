"""The gate in front of every path: who asks, may they, is it too much. All of it before a body is read, let alone parsed.

A path that the gate does not know is not answered, so a route cannot be forgotten here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loci.app.http.auth import admit, same_site
from loci.app.http.desk import Desk, Session
from loci.app.http.errors import Refused, answer, answered
from loci.app.http.limits import too_large


@dataclass(frozen=True, slots=True)
class Rule:
    """What a path asks for: a right ("" for none: the path is public), the whole store, a stream of its own."""

    right: str
    whole: bool = False
    stream: bool = False


class Gate:
    """An ASGI middleware that admits requests by the rules of their paths."""

    def __init__(self, app: ASGIApp, *, desk: Desk, rules: Mapping[str, Rule]) -> None:
        self._app, self._desk, self._rules = app, desk, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit one request, count it, time it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self._rules else "other"
        metrics, start, status = self._desk.metrics, time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-content-type-options", b"nosniff"),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        metrics.running.inc()
        try:
            with self._span(scope["method"], route) as span:
                await self._admitted(scope, receive, counted)
                if span is not None:
                    span.set_attribute("http.response.status_code", status)
        finally:
            metrics.running.dec()
            metrics.requests.labels(route, status).inc()
            metrics.seconds.labels(route).observe(time.perf_counter() - start)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = self._rules.get(scope["path"])
        if rule is None:
            response = answer(404, "NotFound", "there is no such path; see /docs for those there are")
            await response(scope, receive, send)
            return
        begun = False

        async def begins(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            if not rule.right:
                await self._app(scope, receive, begins)
                return
            await self._check(scope, rule)
            if not rule.stream:
                receive = await self._whole(scope, receive)
            with self._desk.room.held(stream=rule.stream):
                await self._app(scope, receive, begins)
        except Exception as error:
            if begun:
                raise
            await answered(error)(scope, receive, send)

    async def _check(self, scope: Scope, rule: Rule) -> None:
        desk, headers = self._desk, Headers(scope=scope)
        same_site(headers, open_access=False)
        bearer = headers.get("authorization")
        if desk.memory.local:  # one look-up by key costs less than a change of threads
            access = admit(desk.memory, bearer, open_access=desk.open_access)
        else:
            access = await run_in_threadpool(admit, desk.memory, bearer, open_access=desk.open_access)
        same_site(headers, open_access=access.open)
        access.need(rule.right, whole=rule.whole)
        desk.buckets.take(access.caller)
        too_large(_length(headers), desk.limits.upload if rule.stream else desk.limits.body)
        scope.setdefault("state", {})["session"] = Session(desk, access)

    async def _whole(self, scope: Scope, receive: Receive) -> Receive:
        """The body, read within its limits, to be read again by the app."""
        body = await self._desk.room.body(receive, _length(Headers(scope=scope)))
        told = False

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    def _span(self, method: str, route: str) -> Any:
        if self._desk.tracer is None:
            return nullcontext()
        attributes = {"http.request.method": method, "http.route": route}
        return self._desk.tracer.start_as_current_span(f"{method} {route}", attributes=attributes)


def _length(headers: Headers) -> int | None:
    length = headers.get("content-length", "")
    if length and not (length.isascii() and length.isdigit()):
        raise Refused(400, "ValueError", "content-length is no number; give the bytes of the body")
    return int(length) if length else None

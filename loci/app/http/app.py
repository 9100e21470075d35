"""The app: a memory, its verbs as paths, and the gate in front of them. Async at the edge only; `Memory` runs in threads."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
from fastapi import FastAPI

import loci
from loci.app.http import bulk, errors, house, verbs
from loci.app.http.desk import Desk
from loci.app.http.door import QUIET
from loci.app.http.gate import Gate
from loci.app.http.limits import Limits
from loci.core.errors import StoreError
from loci.records import Memory

_LEAVE_S = 20.0  # seconds for which the end waits for a stream


def create(
    memory: Memory,
    *,
    limits: Limits | None = None,
    open_access: bool = False,
    open_metrics: bool = False,
    closes: bool = False,
    tracer: Any = None,
) -> FastAPI:
    """The ASGI app that serves a memory.

    open_access: while no token was ever made, every request from this machine may do everything; give it only to a server
    that listens on loopback. open_metrics: /metrics needs no token. closes: the memory ends with the app.
    tracer: an OpenTelemetry tracer that gets a span for each request.
    """
    desk = Desk(memory, limits or Limits(), open_access=open_access, open_metrics=open_metrics, tracer=tracer)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = desk.limits.threads
        yield
        await anyio.to_thread.run_sync(_end, desk, closes)

    app = FastAPI(
        title="loci", version=loci.__version__, lifespan=lifespan, docs_url=None, redoc_url=None, telemetry=QUIET,
        description="Long-term memory for agents: the verbs of Memory over HTTP.",
    )  # fmt: skip
    errors.install(app)
    said, rules = verbs.routes()
    for router in (said, bulk.router, house.routes(desk)):
        app.include_router(router)
    rules |= bulk.RULES | house.rules(desk)
    app.add_middleware(Gate, desk=desk, rules=rules)
    app.state.desk, app.state.rules = desk, rules
    _secured(app, {path for path, rule in rules.items() if rule.right})
    return app


def _end(desk: Desk, closes: bool) -> None:
    """Let streams end, put the log of questions on the disk, close."""
    for thread in list(desk.threads):
        thread.join(_LEAVE_S)
    with contextlib.suppress(StoreError):
        desk.memory.flush()
    if closes:
        desk.memory.close()


def _secured(app: FastAPI, paths: set[str]) -> None:
    """Say in the contract which paths need a token."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = plain()
            found.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, methods in found["paths"].items():
                for operation in methods.values():
                    operation["security"] = [{"token": []}] if path in paths else []
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

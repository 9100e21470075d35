"""Paths about the server itself: is it alive, is it ready, its figures, what it offers."""

from __future__ import annotations

import html
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, Response

import loci
from loci.app.http.desk import Desk, Here
from loci.app.http.errors import answered
from loci.app.http.gate import Rule
from loci.app.http.metrics import CONTENT
from loci.app.http.schemas import ERRORS, Alive, StoreAnswer
from loci.records.scope import ROOT

_STYLE = "body{font:16px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em}code{font-size:1.05em}dd{margin-bottom:1em}"


def rules(desk: Desk) -> dict[str, Rule]:
    """What the gate asks of these paths."""
    public = ("/health", "/ready", "/docs", "/openapi.json")
    return {path: Rule("") for path in public} | {
        "/metrics": Rule("" if desk.open_metrics else "admin", whole=True),
        "/v1/store": Rule("read"),
    }


def routes(desk: Desk) -> APIRouter:
    """The paths."""
    router = APIRouter(responses=ERRORS)

    @router.get("/health", operation_id="health", tags=["server"])
    async def health() -> Alive:
        """Whether the process answers."""
        return Alive(ok=True)

    @router.get("/ready", operation_id="ready", tags=["server"], response_model=Alive)
    def ready() -> Any:
        """Whether the store answers."""
        try:
            with desk.memory.reading() as db:
                db.execute("SELECT 1").fetchone()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server is not ready
            return answered(error)
        return Alive(ok=True)

    @router.get("/metrics", operation_id="metrics", tags=["server"], response_class=Response)
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(desk.metrics.text(), headers={"content-type": CONTENT})

    @router.get("/v1/store", operation_id="store", tags=["read"])
    def store(here: Here) -> StoreAnswer:
        """The store behind the server, and what this token may do there."""
        memory, access = desk.memory, here.access
        return StoreAnswer(
            name=memory.name, version=loci.__version__, scheme=memory.scheme.name, scope=access.default, sees=access.scope,
            rights=sorted(access.rights), nbytes=memory.nbytes if access.scope == ROOT else None,
        )  # fmt: skip

    @router.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(page(request.app))

    return router


def page(app: FastAPI) -> str:
    """What the server offers, as one page without scripts: nothing is fetched from anywhere."""
    rows = []
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            says = " ".join(html.escape(operation.get(part, "")) for part in ("summary", "description"))
            rows.append(f"<dt><code>{method.upper()} {html.escape(path)}</code></dt><dd>{says}</dd>")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>loci</title><style>{_STYLE}</style><h1>loci</h1>"
        "<p>Every verb of <code>Memory</code> is a POST whose body holds its arguments as one JSON object. "
        'The whole contract: <a href="openapi.json">openapi.json</a>.</p>'
        f"<dl>{''.join(rows)}</dl></html>"
    )

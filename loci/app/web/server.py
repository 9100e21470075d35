"""The viewer's server: one memory, one port of 127.0.0.1, until it is stopped."""

from __future__ import annotations

import contextlib
import signal
import threading
import webbrowser

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from loci.app.common import opened
from loci.app.http.door import QUIET, listening
from loci.app.web import budget, forgetting, frame, importing, item, search, timeline
from loci.app.web.desk import Desk
from loci.app.web.guard import Guard
from loci.app.web.local import Local
from loci.app.web.remote import Remote
from loci.records import Memory
from loci.records.scope import ROOT
from loci.records.scope import scope as checked

HOST = "127.0.0.1"  # never anything else: what is shown here is somebody's memory


def serve(
    file: str, *, scope: str | None, port: int, open_browser: bool, read_only: bool, scheme: str, embedder: str
) -> None:
    """Open the memory and serve its pages; returns when it is stopped, with the memory closed."""
    with _open(file, scheme=scheme, embedder=embedder, read_only=read_only) as memory, listening(HOST, port) as door:
        taken = door.getsockname()[1]
        address = f"http://{HOST}:{taken}/"
        service = _is_service(file)
        path = checked(scope) if scope is not None else memory.scope if service else ROOT
        reading = Remote(memory, path) if service else Local(memory)
        app = pages(Desk(memory, reading, read_only=read_only, scope=path), taken)
        print(
            f"loci view of {memory.path}{' (read only)' if read_only else ''}: {address}  Ctrl+C stops it", flush=True
        )
        if open_browser:
            threading.Timer(0.8, webbrowser.open, (address,)).start()
        config = uvicorn.Config(app, log_level="warning", ws="wsproto", timeout_graceful_shutdown=3)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill closes the memory as Ctrl+C does
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[door])


def pages(desk: Desk, port: int) -> FastAPI:
    """The pages of a desk as an ASGI application, guarded."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, telemetry=QUIET)
    for part in (search, timeline, item, forgetting, budget, importing):
        part.add(desk)
    ui.add_css(frame.STYLE, shared=True)
    ui.run_with(
        app, title="loci", dark=desk.dark, language="en-US", tailwind=False, show_welcome_message=False,
        binding_refresh_interval=None,
    )  # fmt: skip
    app.add_middleware(Guard, port=port)
    return app


def _is_service(file: str) -> bool:
    return file.startswith(("http://", "https://"))


def _open(file: str, *, scheme: str, embedder: str, read_only: bool) -> Memory:
    memory = opened(file, scheme=scheme, embedder=embedder)
    if not read_only or _is_service(file):
        return memory
    memory.close()
    return Memory(file, scheme=scheme, embedder=None if embedder == "none" else embedder, log_queries=False)

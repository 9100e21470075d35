"""The viewer's server: one memory, one port of 127.0.0.1, until it is stopped."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import webbrowser
from typing import Any

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from loci.app.common import opened
from loci.app.web import budget, forgetting, frame, importing, item, search, timeline
from loci.app.web.desk import Desk
from loci.app.web.guard import Guard
from loci.app.web.local import Local
from loci.app.web.remote import Remote
from loci.core.errors import StoreError
from loci.records import Memory
from loci.records.scope import scope as checked

HOST = "127.0.0.1"  # never anything else: what is shown here is somebody's memory


def serve(file: str, *, scope: str, port: int, open_browser: bool, read_only: bool, scheme: str, embedder: str) -> None:
    """Open the memory and serve its pages; returns when it is stopped, with the memory closed."""
    path = checked(scope)
    with _open(file, scheme=scheme, embedder=embedder, read_only=read_only) as memory, _listen(port) as door:
        taken = door.getsockname()[1]
        address = f"http://{HOST}:{taken}/"
        reading = Remote(memory, path) if _is_service(file) else Local(memory)
        app = pages(Desk(memory, reading, read_only=read_only, scope=path), taken)
        print(
            f"loci view of {memory.path}{' (read only)' if read_only else ''}: {address}  Ctrl+C stops it", flush=True
        )
        if open_browser:
            threading.Timer(0.8, webbrowser.open, (address,)).start()
        config = uvicorn.Config(app, log_level="warning", ws="wsproto", timeout_graceful_shutdown=3)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[door])


def pages(desk: Desk, port: int) -> FastAPI:
    """The pages of a desk as an ASGI application, guarded."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
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
    if _is_service(file):
        options: dict[str, Any] = {"token": os.environ.get("LOCI_TOKEN")}
        return Memory(file, **options)
    if not read_only:
        return opened(file, scheme=scheme, embedder=embedder)
    opened(file).close()  # says what is wrong with it
    return Memory(file, scheme=scheme, embedder=None if embedder == "none" else embedder, log_queries=False)


def _listen(port: int) -> socket.socket:
    """Bind before anything is printed, so that the address is ours when it is shown."""
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((HOST, port))
    except OSError as error:
        door.close()
        raise StoreError(
            f"port {port} of {HOST} is taken ({error.strerror}); give another one, --port 0 takes a free one"
        ) from error
    door.listen(128)
    return door

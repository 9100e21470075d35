"""Long answers and long bodies, piece by piece: nothing of an import or export ever stands in memory as a whole."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from loci.app.http.desk import Desk
from loci.app.http.errors import Refused, answered
from loci.app.http.limits import Limits, too_large
from loci.records import plain

LINES = "application/x-ndjson"
_PIECE = 1 << 16
_AHEAD = 8  # pieces that may wait for a reader
Put = Callable[[bytes], None]


class Gone(Exception):
    """The one who listens went, or is too slow."""


class Lines(StreamingResponse):
    """Lines that may be said while the body is still being heard, so nobody else may listen to it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all pieces."""
        await self.stream_response(send)


def line(**row: Any) -> bytes:
    """One JSON line."""
    return plain.dumps(row) + b"\n"


def failed(error: BaseException) -> bytes:
    """An error as the last line of an answer that has begun."""
    return bytes(answered(error).body) + b"\n"


async def heard(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The lines of a body, without their ends; Refused when they are too long, too many or too slow."""
    rest, size = b"", 0
    pieces = request.stream()
    while True:
        try:
            async with asyncio.timeout(limits.idle_s):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise Refused(
                408, "TooSlow", f"nothing came for {limits.idle_s:g} s; run the import again, it goes on"
            ) from None
        except ClientDisconnect:
            raise Refused(400, "Disconnected", "the caller went before its lines had come") from None
        if piece is None:
            break
        size += len(piece)
        too_large(size, limits.upload, "import")
        *lines, rest = (rest + piece).split(b"\n") if b"\n" in piece else (rest + piece,)
        too_large(len(rest), limits.line, "line")
        for one in lines:
            yield one
    if rest:
        yield rest


class Pace:
    """Says when progress is worth a line: rarely at first, and ever more rarely, since a sender may not listen yet."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._next = self._start

    @property
    def due(self) -> bool:
        """Whether it is time."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + max(0.25, (now - self._start) / 50)
        return True


class Outlet(io.TextIOBase):
    """A text file whose pieces go to whoever listens."""

    def __init__(self, put: Put) -> None:
        self._put, self._held, self._size = put, list[str](), 0

    def write(self, text: str, /) -> int:
        """Take text; a full piece goes out."""
        self._held.append(text)
        self._size += len(text)
        if self._size >= _PIECE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Let out what is held."""
        if self._held:
            self._put("".join(self._held).encode())
            self._held, self._size = [], 0


async def spoken(desk: Desk, work: Callable[[Put], None]) -> AsyncIterator[bytes]:
    """What a piece of work in a thread of its own says. It ends when nobody listens, or listens too slowly."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
    loop, gone = asyncio.get_running_loop(), threading.Event()

    def _put(piece: bytes) -> None:
        if gone.is_set():
            raise Gone
        waiting: Future[None] = asyncio.run_coroutine_threadsafe(queue.put(piece), loop)
        try:
            waiting.result(desk.limits.idle_s)
        except TimeoutError:
            waiting.cancel()
            raise Gone from None

    def _run() -> None:
        try:
            work(_put)
        except Gone:
            gone.set()
        except Exception as error:  # noqa: BLE001 - said as the last line
            asyncio.run_coroutine_threadsafe(queue.put(failed(error)), loop)
        finally:
            asyncio.run_coroutine_threadsafe(queue.put(None), loop)

    desk.threads = {thread for thread in desk.threads if thread.is_alive()}
    thread = threading.Thread(target=_run, name="loci-stream", daemon=True)
    desk.threads.add(thread)
    thread.start()
    try:
        while (piece := await queue.get()) is not None:
            yield piece
    finally:
        gone.set()
        while not queue.empty():  # lets the thread go on to its next piece, at which it sees that nobody listens
            queue.get_nowait()

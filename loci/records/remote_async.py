"""The client for programs that await: the verbs of `Memory` in front of a server, each a coroutine.

It makes, repeats and reads requests with the very parts of `loci.records.remote`; only the asking differs.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TextIO, TypeVar, cast

from loci.core.errors import ClosedError, StoreError, need
from loci.records import requests
from loci.records.calls import PREFIX, VERBS, Verb, body, encode
from loci.records.item import Item
from loci.records.memory import Memory

P = ParamSpec("P")
T = TypeVar("T")
Report = Callable[[int, int], None]


def verb(of: Callable[Concatenate[Memory, P], T]) -> Callable[Concatenate[AsyncMemory, P], Coroutine[Any, Any, T]]:
    """A verb of `Memory`, awaited from the server."""
    row, signature = VERBS[of.__name__], inspect.signature(of)

    @functools.wraps(of)
    async def call(self: AsyncMemory, /, *args: P.args, **given: P.kwargs) -> T:
        return cast("T", await self._call(row, signature, args, given))

    return call


class AsyncMemory:
    """A memory behind `loci serve`, for one event loop: `async with AsyncMemory(url, token=...) as memory`.

    The arguments are those of `RemoteMemory`; what is a property there (name, scope, nbytes) is in `await store()`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        scope: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = requests.base(url)
        self._scope, self._pause, self._closed = scope, pause, False
        self._patience = requests.Patience(self._url, retries)
        self._http = need("httpx2", extra="serve", who="AsyncMemory(url)")
        self._slow = self._http.Timeout(timeout, read=requests.SLOW_S, write=requests.SLOW_S)
        self._client = self._http.AsyncClient(**requests.options(self._url, token), timeout=timeout)

    add = verb(Memory.add)
    link = verb(Memory.link)
    learn = verb(Memory.learn)
    recall = verb(Memory.recall)
    get = verb(Memory.get)
    items = verb(Memory.items)
    links = verb(Memory.links)
    count = verb(Memory.count)
    contradictions = verb(Memory.contradictions)
    history = verb(Memory.history)
    diff = verb(Memory.diff)
    jobs = verb(Memory.jobs)
    forget = verb(Memory.forget)
    restore = verb(Memory.restore)
    quarantine = verb(Memory.quarantine)
    quarantined = verb(Memory.quarantined)
    release = verb(Memory.release)
    undo = verb(Memory.undo)
    verify_forgotten = verb(Memory.verify_forgotten)
    consolidate = verb(Memory.consolidate)
    work = verb(Memory.work)
    embed = verb(Memory.embed)
    erase = verb(Memory.erase)
    flush = verb(Memory.flush)
    wipe = verb(Memory.wipe)

    @property
    def path(self) -> str:
        """The server's address."""
        return self._url

    async def store(self) -> dict[str, Any]:
        """What the server says of its store and of this token: name, scope, sees, rights, scheme, nbytes, version."""
        return cast("dict[str, Any]", await self._ask("GET", PREFIX + "store", None, again=True))

    async def export(self, out: TextIO, *, scope: str = "/", progress: Report | None = None) -> int:
        """Write everything at or under a scope as JSON lines, as it comes; the number of lines."""
        lines = total = 0
        async with self._stream("GET", "export", {"scope": scope}, None) as answer:
            async for text in answer.aiter_lines():
                row = json.loads(text)
                if "error" in row:
                    raise self._patience.error(500, row)
                total = row.get("items", total) if "loci" in row else total
                print(text, file=out)
                lines += 1
                if progress is not None and lines % 1000 == 0:
                    progress(min(lines, total), total)
        return lines

    async def load(
        self, source: Path | Iterable[str | Item], *, scope: str | None = None, progress: Report | None = None
    ) -> int:
        """Import a file of JSON lines (items, or an export), or items one by one; may be run again after a break."""

        async def content() -> AsyncIterator[bytes]:
            for piece in requests.lines(source):
                yield piece

        said = requests.Progress(self._patience, progress)
        asked = {} if scope is None and self._scope is None else {"scope": scope or self._scope}
        async with self._stream("POST", "import", asked, content()) as answer:
            async for text in answer.aiter_lines():
                said.hear(text)
        return said.end()

    async def close(self) -> None:
        """Let the connections go; closing twice is fine."""
        self._closed = True
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncMemory({self._url!r})"

    async def _call(
        self, row: Verb, signature: inspect.Signature, args: Sequence[Any], given: Mapping[str, Any]
    ) -> Any:
        sent = body(row, signature, args, given, scope=self._scope)
        content = encode(sent, strict=row.name != "recall")
        return row.answer(await self._ask("POST", row.path, content, again=row.again, slow=row.slow))

    async def _ask(self, method: str, path: str, content: bytes | None, *, again: bool, slow: bool = False) -> Any:
        self._check_open()
        more: dict[str, Any] = {"timeout": self._slow} if slow else {}
        if content is not None:
            more |= {"content": content, "headers": {"content-type": "application/json"}}
        for turn in count():
            try:
                answer = await self._client.request(method, path, **more)
            except self._http.TransportError as error:
                unsent = isinstance(error, self._http.ConnectError | self._http.ConnectTimeout | self._http.PoolTimeout)
                await self._pause(self._patience.after_break(error, turn, again=again or unsent))
                continue
            wait = self._patience.after_answer(answer.status_code, answer.headers.get("retry-after"), turn, again=again)
            if wait is None:
                return self._patience.read(answer.status_code, answer.content)
            await self._pause(wait)
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def _stream(self, method: str, what: str, asked: Mapping[str, Any], content: Any) -> AsyncIterator[Any]:
        self._check_open()
        sent = {"content-type": requests.LINES} if content is not None else {}
        try:
            async with self._client.stream(
                method, PREFIX + what, params=dict(asked), content=content, headers=sent, timeout=self._slow
            ) as answer:
                if not answer.is_success:
                    self._patience.read(answer.status_code, await answer.aread())
                yield answer
        except self._http.TransportError as error:
            raise StoreError(f"{self._url} broke off ({type(error).__name__}: {error}); call again") from None

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"this memory was closed; open it again with AsyncMemory({self._url!r}, token=...)")

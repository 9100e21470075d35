"""`Memory("http://...")`: the same face in front of a server. Every verb, its signature and its words are those of `Memory`."""

from __future__ import annotations

import functools
import inspect
import json
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TextIO, TypeVar, cast

from loci.core.errors import ClosedError, Denied, StoreError, need
from loci.records import requests
from loci.records.calls import PREFIX, VERBS, Verb, body, encode
from loci.records.item import Item
from loci.records.memory import Memory

P = ParamSpec("P")
T = TypeVar("T")
Report = Callable[[int, int], None]


def verb(of: Callable[Concatenate[Memory, P], T]) -> Callable[Concatenate[RemoteMemory, P], T]:
    """A verb of `Memory`, asked of the server."""
    row, signature = VERBS[of.__name__], inspect.signature(of)

    @functools.wraps(of)
    def call(self: RemoteMemory, /, *args: P.args, **given: P.kwargs) -> T:
        return cast("T", self._call(row, signature, args, given))

    return call


def connect(url: str, **given: Any) -> RemoteMemory:
    """What `Memory(url, ...)` gives; ValueError for what a caller cannot choose, such as the scheme."""
    if theirs := sorted(given.keys() - {"token", "scope", "timeout", "retries", "pause"}):
        raise ValueError(
            f"{', '.join(theirs)} is for the server to choose; give it to loci serve, and leave it out here"
        )
    return RemoteMemory(url, **given)


class RemoteMemory:
    """A memory behind `loci serve`, safe to share between threads. Made by `Memory("http://...", token=...)`.

    scope: the scope of calls that name none; unless given, the token's. timeout: seconds to wait for an answer.
    retries: how often a call is made again after a broken connection or while the server is busy, where repeating it
    cannot do it twice: reads, and `add`, which carries a key. Raises what `Memory` raises, and Denied.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        scope: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = requests.base(url)
        self._scope, self._pause, self._closed = scope, pause, False
        self._patience = requests.Patience(self._url, retries)
        self._http = need("httpx2", extra="serve", who="Memory(url)")
        self._slow = self._http.Timeout(timeout, read=requests.SLOW_S, write=requests.SLOW_S)
        self._client = self._http.Client(**requests.options(self._url, token), timeout=timeout)
        weakref.finalize(self, self._client.close)

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

    # --- the store behind the server ------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The server's address."""
        return self._url

    @property
    def store(self) -> dict[str, Any]:
        """What the server says of its store and of this token."""
        return cast("dict[str, Any]", self._ask("GET", PREFIX + "store", None, again=True))

    @property
    def scope(self) -> str:
        """The scope of calls that name none."""
        return str(self.store["scope"]) if self._scope is None else self._scope

    @property
    def name(self) -> str:
        """The store's own name, given at its creation."""
        return str(self.store["name"])

    @property
    def nbytes(self) -> int:
        """Bytes that the store holds, indexes included; Denied to a token that sees only a part of it."""
        held = self.store["nbytes"]
        if held is None:
            raise Denied("nbytes is of the whole store; use a token whose scope is '/'")
        return int(held)

    def export(self, out: TextIO, *, scope: str = "/", progress: Report | None = None) -> int:
        """Write everything at or under a scope as JSON lines, as it comes; the number of lines."""
        lines = total = 0
        with self._stream("GET", "export", {"scope": scope}, None) as answer:
            for text in answer.iter_lines():
                row = json.loads(text)
                if "error" in row:
                    raise self._patience.error(500, row)
                total = row.get("items", total) if "loci" in row else total
                print(text, file=out)
                lines += 1
                if progress is not None and lines % 1000 == 0:
                    progress(min(lines, total), total)
        return lines

    def load(
        self, source: Path | Iterable[str | Item], *, scope: str | None = None, progress: Report | None = None
    ) -> int:
        """Import a file of JSON lines (items, or an export), or items one by one; may be run again after a break."""
        said = requests.Progress(self._patience, progress)
        asked = {} if scope is None and self._scope is None else {"scope": scope or self._scope}
        with self._stream("POST", "import", asked, requests.lines(source)) as answer:
            for text in answer.iter_lines():
                said.hear(text)
        return said.end()

    def close(self) -> None:
        """Let the connections go; closing twice is fine."""
        self._closed = True
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Memory({self._url!r})"

    # --- asking ---------------------------------------------------------------------------------------------------

    def _call(self, row: Verb, signature: inspect.Signature, args: Sequence[Any], given: Mapping[str, Any]) -> Any:
        sent = body(row, signature, args, given, scope=self._scope)
        content = encode(sent, strict=row.name != "recall")
        return row.answer(self._ask("POST", row.path, content, again=row.again, slow=row.slow))

    def _ask(self, method: str, path: str, content: bytes | None, *, again: bool, slow: bool = False) -> Any:
        self._check_open()
        more: dict[str, Any] = {"timeout": self._slow} if slow else {}
        if content is not None:
            more |= {"content": content, "headers": {"content-type": "application/json"}}
        for turn in count():
            try:
                answer = self._client.request(method, path, **more)
            except self._http.TransportError as error:
                unsent = isinstance(error, self._http.ConnectError | self._http.ConnectTimeout | self._http.PoolTimeout)
                self._pause(self._patience.after_break(error, turn, again=again or unsent))
                continue
            wait = self._patience.after_answer(answer.status_code, answer.headers.get("retry-after"), turn, again=again)
            if wait is None:
                return self._patience.read(answer.status_code, answer.content)
            self._pause(wait)
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def _stream(self, method: str, what: str, asked: Mapping[str, Any], content: Any) -> Iterator[Any]:
        self._check_open()
        sent = {"content-type": requests.LINES} if content is not None else {}
        try:
            with self._client.stream(
                method, PREFIX + what, params=dict(asked), content=content, headers=sent, timeout=self._slow
            ) as answer:
                if not answer.is_success:
                    self._patience.read(answer.status_code, answer.read())
                yield answer
        except self._http.TransportError as error:
            raise StoreError(f"{self._url} broke off ({type(error).__name__}: {error}); call again") from None

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"this memory was closed; open it again with Memory({self._url!r}, token=...)")

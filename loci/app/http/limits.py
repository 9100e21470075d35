"""What one caller may ask of the server: bytes, items, requests a second, requests at once, seconds to say it in."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from starlette.types import Receive

from loci.app.http.errors import Refused

_KEYS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server; what is over one is refused before it costs anything."""

    body: int = 32_000_000  # bytes of one call
    line: int = 8_000_000  # bytes of one line of an import
    upload: int = 16_000_000_000  # bytes of one import, which never stand in memory
    buffered: int = 256_000_000  # bytes of all bodies that are being read
    k: int = 1000  # hits of one recall
    items: int = 10_000  # items of one add, ids of one call
    rate: float = 1000.0  # requests a second of one token
    burst: float = 2.0  # seconds of that rate which may come at once
    concurrent: int = 64  # requests that are answered at once
    streams: int = 4  # imports and exports at once
    threads: int = 8  # calls of the memory at once
    body_s: float = 30.0  # seconds in which a body must have come
    idle_s: float = 30.0  # seconds for which an import may say, or an export hear, nothing

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is not positive; give a limit above 0")


class Buckets:
    """A token bucket for every caller: `rate` a second, and `burst` seconds' worth at once."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = rate, max(rate * burst, 1.0), clock
        self._held: dict[str, tuple[float, float]] = {}  # caller -> (what is left, when)

    def take(self, caller: str) -> None:
        """Count one request; Refused (429, with the seconds to wait) when there are too many."""
        now = self._clock()
        left, when = self._held.pop(caller, (self._most, now))
        left = min(self._most, left + (now - when) * self._rate)
        self._held[caller] = (left - 1 if left >= 1 else left, now)  # the last to ask stands last
        if len(self._held) > _KEYS:
            self._held.pop(next(iter(self._held)))
        if left < 1:
            wait = math.ceil((1 - left) / self._rate)
            raise Refused(
                429, "TooManyRequests", f"more than {self._rate:g} requests a second were made; wait {wait} s",
                headers={"retry-after": str(wait)},
            )  # fmt: skip


class Room:
    """How much is going on: requests, streams, bytes being read. Used on the event loop only."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = self.streams = self.bytes = 0

    @contextlib.contextmanager
    def held(self, *, stream: bool) -> Iterator[None]:
        """Take the place of one request or stream, or be refused (503)."""
        name, most = ("streams", self._limits.streams) if stream else ("requests", self._limits.concurrent)
        if getattr(self, name) >= most:
            raise full()
        setattr(self, name, getattr(self, name) + 1)
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) - 1)

    async def body(self, receive: Receive, announced: int | None) -> bytes:
        """Read a body within its bytes and seconds; a slow sender holds nothing but its own connection."""
        too_large(announced, self._limits.body)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "Disconnected", "the caller went before its body had come")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    self.bytes += len(parts[-1])
                    too_large(size, self._limits.body)
                    if self.bytes > self._limits.buffered:
                        raise full()
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(
                408, "TooSlow", f"the body did not come within {self._limits.body_s:g} s; send it faster, or less",
                headers={"connection": "close"},
            ) from None  # fmt: skip
        finally:
            self.bytes -= size


def too_large(size: int | None, limit: int, what: str = "body") -> None:
    """Refuse (413) what is over a limit."""
    if size is not None and size > limit:
        raise Refused(413, "TooLarge", f"the {what} is over {limit} bytes; send less at once, or use /v1/import")


def full() -> Refused:
    """More is going on than the server takes at once."""
    return Refused(
        503, "Busy", "the server has as much to do as it takes at once; call again", headers={"retry-after": "1"}
    )

"""How a client asks a server, apart from the asking itself: addresses, errors, when to try again. Shared by both clients."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loci.core import errors
from loci.core.errors import BudgetExceeded, Busy, LociError, StoreError
from loci.records.calls import encode, new
from loci.records.item import Item

SLOW_S = 3600.0  # seconds that a slow verb or a stream may take
LINES = "application/x-ndjson"
_FIRST_S, _LONGEST_S = 0.1, 10.0
_PIECE = 1 << 18
_KINDS: Mapping[str, type[Exception]] = {
    "ValueError": ValueError, "TypeError": TypeError, "TooLarge": ValueError, "TooManyRequests": Busy, "TooSlow": Busy,
    **{name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, LociError)},
}  # fmt: skip


def base(url: str) -> str:
    """The address of a server, checked: ValueError for one that is none, or that holds a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url={url!r} is not the address of a server; give one such as 'http://127.0.0.1:8787'")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("the url has more than an address; give the token as token=, and nothing else in the url")
    return parts._replace(path=parts.path.rstrip("/")).geturl()


def options(url: str, token: str | None) -> dict[str, Any]:
    """How a client connects. What goes to this machine takes no proxy; what is not encrypted needs no certificates, which are slow to load."""
    return {
        "base_url": url, "headers": _headers(token), "verify": url.startswith("https:"), "trust_env": not _local(url),
    }  # fmt: skip


def _local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _headers(token: str | None) -> dict[str, str]:
    """The token goes here and into no message."""
    if token is None:
        return {}
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("token has a character no header can carry; give it as `loci token new` printed it")
    return {"authorization": f"Bearer {token}"}


@dataclass(frozen=True, slots=True)
class Patience:
    """When a request is made again: at most `retries` times, later and later."""

    url: str
    retries: int

    def after_break(self, error: Exception, turn: int, *, again: bool) -> float:
        """Seconds to wait after a connection broke; StoreError when the request must not or need not be repeated."""
        if not again or turn >= self.retries:
            hint = "" if again else " It may have been done; look before you repeat it."
            raise StoreError(
                f"{self.url} did not answer ({type(error).__name__}: {error}); check that `loci serve` runs there.{hint}"
            ) from None
        return _pause(turn)

    def after_answer(self, status: int, after: str | None, turn: int, *, again: bool) -> float | None:
        """Seconds to wait after the server said that it is busy; None when the answer is the answer."""
        busy = status == 429 or (status == 503 and again)  # at 429 nothing was done, whatever the verb
        if not busy or turn >= self.retries:
            return None
        asked = float(after) if after is not None and after.isascii() and after.isdigit() else 0.0
        return min(max(asked, _pause(turn)), _LONGEST_S)

    def read(self, status: int, content: bytes) -> Any:
        """The answer as JSON values, or the error that it tells of, as the memory itself would raise it."""
        try:
            row = json.loads(content)
        except ValueError:
            row = None
        if 200 <= status < 300 and isinstance(row, dict):
            return row
        raise self.error(status, row)

    def error(self, status: int, row: Any) -> Exception:
        """What an answer that is no success tells of."""
        told = row.get("error") if isinstance(row, dict) else None
        if not isinstance(told, dict) or not isinstance(told.get("message"), str):
            return StoreError(f"{self.url} answered {status} and is no loci server; give the address of `loci serve`")
        kind, message = _KINDS.get(str(told.get("type")), StoreError), told["message"]
        if kind is BudgetExceeded:
            return BudgetExceeded(message, needed=int(told.get("needed", 0)), limit=int(told.get("limit", 0)))
        return kind(message)


def _pause(turn: int) -> float:
    """Later and later, and not all at once: jitter keeps clients from coming back together."""
    return float(min(_FIRST_S * 2**turn, _LONGEST_S)) * (0.5 + random.random() / 2)  # noqa: S311 - no secret


def lines(source: Path | Iterable[str | Item]) -> Iterator[bytes]:
    """A file of JSON lines in pieces, or items as JSON lines."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
        return
    for one in source:
        yield encode({"text": one} if isinstance(one, str) else new(one)) + b"\n"


class Progress:
    """The lines with which a server answers an import."""

    def __init__(self, patience: Patience, report: Any) -> None:
        self._patience, self._report, self.items = patience, report, None

    def hear(self, text: str) -> None:
        """Take one line; the error that it tells of is raised."""
        row = json.loads(text)
        if "error" in row:
            raise self._patience.error(422, row)
        if row.get("done"):
            self.items = row["items"]
        elif self._report is not None and "lines" in row:
            self._report(row["lines"], row.get("of", row["lines"]))

    def end(self) -> int:
        """How many items there are from the import; StoreError when the server never said that it is done."""
        if self.items is None:
            raise StoreError(f"{self._patience.url} ended before the import was done; run it again, it goes on")
        return int(self.items)

"""One JSON request to an OpenAI-style server: retries, clear errors, and the key in none of them."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from loci.core.errors import LLMError, need

Pause = Callable[[float], None]

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_ADVICE = {
    400: "change what the server refuses",
    401: "check the key",
    403: "check the key's rights",
    404: "check the url and the model",
    413: "send less at once",
    422: "change what the server refuses",
    429: "call more slowly",
}
_SHOWN = 200  # characters of a server's answer in an error
_LONGEST = 60.0  # seconds between two tries


class Wire:
    """A connection to one base url, such as "http://127.0.0.1:8080/v1"; what `who` says opens every error.

    `retries` more tries follow a broken connection or a busy server, after 0.5, 1, 2, ... seconds or as many as the
    server asks for (at most 60); `pause` waits. Safe to share between threads; closed with its owner.
    """

    def __init__(
        self,
        url: str,
        *,
        who: str,
        key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        pause: Pause = time.sleep,
    ) -> None:
        self._parts = _base(url)
        if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
            raise ValueError("key has a character no header can carry; give it without spaces and line breaks")
        if not timeout > 0:
            raise ValueError(f"timeout={timeout} is not positive; give seconds")
        if retries < 0:
            raise ValueError(f"retries={retries} is negative; give a number of at least 0")
        self._who, self._key, self._retries, self._pause = who, key, retries, pause
        self._http = need("httpx2", extra="llm", who=who)
        self._json = need("msgspec.json", extra="llm", who=who)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = self._http.Client(timeout=timeout, headers=headers)
        weakref.finalize(self, self._client.close)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send `body` to a path under the base url and return the decoded object; LLMError when that fails."""
        wait = 0.5
        for left in range(self._retries, -1, -1):
            try:
                answer = self._client.post(self._address(path), json=body)
            except self._http.TransportError as error:
                if not left:
                    said = f"failed ({type(error).__name__}: {error})"
                    raise self._failed(path, said, "check that the server runs") from None
                self._pause(wait)
            else:
                if answer.status_code not in _AGAIN or not left:
                    return self._read(path, answer)
                self._pause(_asked(answer.headers.get("retry-after"), wait))
            wait = min(2 * wait, _LONGEST)
        raise AssertionError("the last try returns or raises")

    def decode(self, text: str | bytes) -> Any:
        """Decode JSON strictly; ValueError when it is not."""
        return self._json.decode(text)

    def _read(self, path: str, answer: Any) -> dict[str, Any]:
        if not answer.is_success:
            said = f"answered {answer.status_code} ({answer.text})"
            raise self._failed(path, said, _ADVICE.get(answer.status_code, "try again later or change the server"))
        try:
            found = self.decode(answer.content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            said = f"answered no JSON object ({answer.text})"
            raise self._failed(path, said, "give the base url, which often ends in /v1")
        return found

    def _failed(self, path: str, said: str, advice: str) -> LLMError:
        host = self._parts.netloc.rpartition("@")[2]  # a password or token in the url is not shown
        at = f"{self._parts.scheme}://{host}{self._parts.path}{path}"
        clean = " ".join((said.replace(self._key, "[key]") if self._key else said).split())
        short = clean if len(clean) <= _SHOWN else f"{clean[:_SHOWN]}...)"
        return LLMError(f"{self._who}: {at} {short}; {advice}")

    def _address(self, path: str) -> str:
        return urlunsplit(self._parts._replace(path=self._parts.path + path))


def _base(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url={url!r} is not a web address; give the base, such as 'http://127.0.0.1:8080/v1'")
    return parts._replace(path=parts.path.rstrip("/"), fragment="")


def _asked(header: str | None, otherwise: float) -> float:
    """Seconds that a server asks to wait, at most a minute; a date or nonsense counts as nothing."""
    try:
        seconds = float(header or "")
    except ValueError:
        return otherwise
    return min(seconds, _LONGEST) if seconds >= 0 else otherwise

"""Scopes: slash paths that say whose memory it is. A scope sees what is at or under it, never beside it."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

ROOT = "/"
DEFAULT = "default"
_LONGEST = 1024


def scope(path: str) -> str:
    """Check a scope and bring it into its one written form (NFC, no slash at the ends).

    >>> scope("acme/ana"), scope("/acme/ana/"), scope("/")
    ('acme/ana', 'acme/ana', '/')
    """
    if not isinstance(path, str):
        raise TypeError(f"scope is a {type(path).__name__}; give a slash path such as 'acme/ana'")
    return _checked(path)


@lru_cache(maxsize=4096)
def _checked(path: str) -> str:
    text = unicodedata.normalize("NFC", path)
    if text == ROOT:
        return ROOT
    text = text.removeprefix("/").removesuffix("/")
    parts = text.split("/")
    if len(text.encode("utf-8", "surrogatepass")) > _LONGEST or any(not _segment(part) for part in parts):
        shown = path if len(path) <= 60 else path[:57] + "..."
        raise ValueError(
            f"scope={shown!r} is not a slash path; give segments such as 'acme/ana' that are not empty, '.' or '..', "
            f"without control characters, at most {_LONGEST} bytes in all"
        )
    return text


def _segment(part: str) -> bool:
    return part.strip() not in {"", ".", ".."} and not any(unicodedata.category(c) in {"Cc", "Cs"} for c in part)


def covers(outer: str, inner: str) -> bool:
    """Whether what is kept under `inner` is seen from `outer`.

    >>> covers("acme", "acme/ana"), covers("acme", "acme2"), covers("acme/ana", "acme")
    (True, False, False)
    """
    return outer in (ROOT, inner) or inner.startswith(outer + "/")

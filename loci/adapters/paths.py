"""Names of other systems as segments of a scope: any text in, one valid segment out, and back."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from urllib.parse import quote, unquote

from loci.records.scope import ROOT, covers
from loci.records.scope import scope as checked


def segment(name: str) -> str:
    """A name as a segment: letters, digits, `_`, `-` and `~` stay, the rest is percent-encoded. No two names share one.

    >>> segment("Ana"), segment("a/b"), segment(".."), segment("user 1@x.org")
    ('Ana', 'a%2Fb', '%2E%2E', 'user%201%40x%2Eorg')
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{name!r} cannot name a scope; give text that is not empty")
    try:
        light = "".join(char if char.isalnum() or char in "_-~" else _code(char) for char in name)
        stable = unicodedata.normalize("NFC", light) == light  # a scope is normalised; a name must come back as it was
        return light if stable else "".join(char if char.isascii() and char.isalnum() else _code(char) for char in name)
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} cannot name a scope; give text without lone surrogates") from error


def _code(char: str) -> str:
    return "%2E" if char == "." else quote(char, safe="").replace("~", "%7E")


def path(base: str, names: Iterable[str]) -> str:
    """The scope of names below a base."""
    base = checked(base)
    below = "/".join(segment(name) for name in names)
    return checked("/".join(part for part in (base.removeprefix(ROOT), below) if part) or ROOT)


def names(base: str, scope: str) -> tuple[str, ...]:
    """The names that made a scope below a base.

    >>> names("acme", path("acme", ("users", "a/b")))
    ('users', 'a/b')
    """
    base = checked(base)
    if not covers(base, scope):
        raise ValueError(f"scope={scope!r} lies outside {base!r}; give one that was made by path")
    below = scope[len(base) :] if base != ROOT else scope
    return tuple(unquote(part) for part in below.split("/") if part)

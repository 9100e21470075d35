"""Tokens: who may do what with a store over a network. Only the sha256 of a token is kept, so a copy of the store opens nothing.

A token is bound to a scope (it sees what is at or under it) and to rights. It is looked up in the store at every call,
so revoking it in one process takes effect in all others at once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from loci.records.database import Database
from loci.records.handle import Handle
from loci.records.scope import ROOT
from loci.records.scope import scope as checked

RIGHTS = ("read", "write", "forget", "admin")
PREFIX = "loci_"
_COLUMNS = "hash, name, scope, rights, created, expires, revoked"
_SHOWN = 12  # characters of the hash by which a token is named


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token: never the token itself."""

    hash: str
    name: str
    scope: str
    rights: tuple[str, ...]
    created: float
    expires: float | None
    revoked: float | None

    @property
    def id(self) -> str:
        """The short name under which it is listed and revoked."""
        return self.hash[:_SHOWN]

    def live(self, now: float) -> bool:
        """Whether it opens anything now."""
        return self.revoked is None and (self.expires is None or now < self.expires)


def create(
    handle: Handle,
    name: str,
    *,
    scope: str = ROOT,
    rights: Iterable[str] = ("read", "write"),
    lasts: float | None = None,
) -> tuple[str, Token]:
    """Make a token: (the secret, shown this once, and what is kept of it). `lasts` is in seconds; None is for good.

    ValueError for a name in use, an unknown right, no right at all, or a time that is not positive.
    """
    given = tuple(right for right in RIGHTS if right in set(rights))
    if unknown := sorted(set(rights) - set(RIGHTS)):
        raise ValueError(f"rights has {unknown}; choose from {', '.join(RIGHTS)}")
    if not given:
        raise ValueError(f"rights is empty; choose from {', '.join(RIGHTS)}")
    if not name.strip() or not name.isprintable():
        raise ValueError(f"name={name!r} names nobody; give a word by which to list and revoke the token")
    if lasts is not None and not lasts > 0:
        raise ValueError(f"lasts={lasts} is not positive; give seconds, or None for a token without an end")
    secret, now = PREFIX + secrets.token_urlsafe(32), handle.now()
    token = Token(_hash(secret), name, checked(scope), given, now, None if lasts is None else now + lasts, None)
    with handle.writing() as db:
        if any(held.name == name and held.live(now) for held in _read(db, "WHERE name = ?", (name,))):
            raise ValueError(f"name={name!r} is taken by a live token; revoke it first, or give another name")
        db.execute(
            f"INSERT INTO token ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO NOTHING",
            (token.hash, name, token.scope, ",".join(given), now, token.expires, None),
        )
    return secret, token


def find(handle: Handle, secret: str) -> Token | None:
    """The live token with this secret; None for one that is unknown, expired or revoked."""
    hashed = _hash(secret)
    with handle.reading() as db:
        found = _read(db, "WHERE hash = ?", (hashed,))
    token = next((token for token in found if hmac.compare_digest(token.hash, hashed)), None)
    return token if token is not None and token.live(handle.now()) else None


def listed(handle: Handle) -> list[Token]:
    """Every token that was ever made, oldest first."""
    with handle.reading() as db:
        return _read(db, "ORDER BY created, hash", ())


def any_made(handle: Handle) -> bool:
    """Whether a token was ever made: from then on every request needs one, also after the last was revoked."""
    with handle.reading() as db:
        return db.execute("SELECT 1 FROM token LIMIT 1").fetchone() is not None


def revoke(handle: Handle, name: str) -> list[Token]:
    """End the live tokens of a name, or the one with this id; ValueError when there is none."""
    now = handle.now()
    with handle.writing() as db:
        ended = [
            token for token in _read(db, "WHERE revoked IS NULL ORDER BY created", ()) if name in (token.name, token.id)
        ]
        for token in ended:
            db.execute("UPDATE token SET revoked = ? WHERE hash = ?", (now, token.hash))
    if not ended:
        raise ValueError(f"name={name!r} is no token that could be revoked; see: loci token list")
    return ended


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _read(db: Database, rest: str, values: tuple[str, ...]) -> list[Token]:
    return [
        Token(hashed, name, scope, tuple(rights.split(",")), created, expires, revoked)
        for hashed, name, scope, rights, created, expires, revoked in db.execute(
            f"SELECT {_COLUMNS} FROM token {rest}", values
        )
    ]

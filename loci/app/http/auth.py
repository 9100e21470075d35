"""Who asks, and what they may: tokens, scopes, and browsers that were sent by another site."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from loci.app.http.errors import Refused
from loci.records import Memory, tokens
from loci.records.scope import ROOT, covers
from loci.records.scope import scope as checked

_CHALLENGE = {"www-authenticate": 'Bearer realm="loci"'}


@dataclass(frozen=True, slots=True)
class Access:
    """What a request may do: the scope it sees, the one it means when it names none, and its rights."""

    caller: str
    scope: str
    default: str
    rights: frozenset[str]
    open: bool = False

    def at(self, scope: str | None) -> str:
        """The scope that a call means; Refused (403) outside the token's, whether or not there is such a scope."""
        path = self.default if scope is None else checked(scope)
        if not covers(self.scope, path):
            raise Refused(
                403, "Denied", f"this token sees what is at or under {self.scope!r}; leave scope out, or give one there"
            )
        return path

    def need(self, right: str, *, whole: bool = False) -> None:
        """Refuse (403) what this request may not do."""
        if right not in self.rights:
            raise Refused(403, "Denied", f"this token has no right to {right}; use one that has")
        if whole and self.scope != ROOT:
            raise Refused(403, "Denied", "this is about the whole store; use a token whose scope is '/'")


def admit(memory: Memory, header: str | None, *, open_access: bool) -> Access:
    """The access of a request, looked up in the store; Refused (401) without a token that is live."""
    if header is None:
        if open_access and not tokens.any_made(memory):
            return Access("open", ROOT, memory.scope, frozenset(tokens.RIGHTS), open=True)
        raise Refused(
            401, "Denied", "no token was given; send the header Authorization: Bearer TOKEN", headers=_CHALLENGE
        )
    kind, _, secret = header.partition(" ")
    token = tokens.find(memory, secret.strip()) if kind.lower() == "bearer" else None
    if token is None:
        raise Refused(401, "Denied", "the token is unknown, expired or revoked; ask for a new one", headers=_CHALLENGE)
    return Access(token.hash, token.scope, token.scope, frozenset(token.rights))


def same_site(headers: Headers, *, open_access: bool) -> None:
    """Refuse (403) what another site made a browser send, and names that a rebound DNS gave this machine."""
    host = headers.get("host", "")
    origin = headers.get("origin")
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") or (
        origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    ):
        raise Refused(403, "Denied", "a page of another site may not call this server; call it from a program")
    if open_access and not loopback(_name(host)):
        raise Refused(403, "Denied", "an open server answers only to localhost; call it so, or make a token")


def loopback(host: str) -> bool:
    """Whether a name or address is this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

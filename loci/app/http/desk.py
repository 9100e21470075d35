"""What all requests of a server share, and what one request stands on."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from loci.app.http.auth import Access
from loci.app.http.limits import Buckets, Limits, Room
from loci.app.http.metrics import Metrics
from loci.records import Memory
from loci.records.scope import ROOT, covers

_ERASED = 100_000


@dataclass(slots=True)
class Desk:
    """One server: its memory, limits, figures, and the threads that stream."""

    memory: Memory
    limits: Limits
    open_access: bool = False
    open_metrics: bool = False
    tracer: Any = None  # an OpenTelemetry tracer, when the user asked for one
    metrics: Metrics = field(default_factory=Metrics)
    room: Room = field(init=False)
    buckets: Buckets = field(init=False)
    threads: set[threading.Thread] = field(default_factory=set)
    erased: dict[int, str] = field(default_factory=dict)  # id -> scope, of what was erased through this server

    def __post_init__(self) -> None:
        self.room = Room(self.limits)
        self.buckets = Buckets(self.limits.rate, self.limits.burst)

    def note_erased(self, ids: list[int], scope: str) -> None:
        """Keep whose the erased ids were, so that their owner alone can have them verified."""
        self.erased |= dict.fromkeys(ids, scope)
        while len(self.erased) > _ERASED:
            self.erased.pop(next(iter(self.erased)), None)

    def may_verify(self, access: Access, id_: int, text: str | None) -> None:
        """Refuse to search for what a scope does not own: the answer would tell it what others hold."""
        if access.scope == ROOT:
            return
        if text is not None:
            access.need("admin", whole=True)
        if not covers(access.scope, self.erased.get(id_, "")):
            self.memory.history(id_, scope=access.scope)  # UnknownItem, unless it is still an item of the scope


@dataclass(frozen=True, slots=True)
class Session:
    """One admitted request."""

    desk: Desk
    access: Access


async def _session(request: Request) -> Session:
    found: Session = request.state.session
    return found


Here = Annotated[Session, Depends(_session)]

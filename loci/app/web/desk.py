"""The desk: one open memory, what its viewer may do with it, and work that runs beside the event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from loci.app.web.local import Local
from loci.app.web.reading import Reading
from loci.core.errors import LociError, ReadOnly
from loci.records import Hits, Ids, Memory, Receipt
from loci.records.scope import ROOT

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Work:
    """How far something slow is: what it does now, and the share done (None: not known). Read from the event loop."""

    what: str = ""
    share: float | None = None

    def begin(self, what: str) -> None:
        """Go on to the next thing."""
        self.what, self.share = what, None

    def report(self, done: int, total: int) -> None:
        """What importers and exports call, from their thread."""
        self.share = min(done / total, 1.0) if total else None


@dataclass(slots=True)
class Desk:
    """The memory that is looked at. Everything slow goes through `run`, in a thread."""

    memory: Memory
    reading: Reading
    read_only: bool = False
    scope: str = ROOT  # the scope of pages that name none
    dark: bool | None = None  # None: as the system has it

    @property
    def at_hand(self) -> bool:
        """Whether the store itself is open here; a service shows only what it serves."""
        return isinstance(self.reading, Local)

    @property
    def name(self) -> str:
        """What the pages call it: the file's name, or the service's address."""
        path = str(self.memory.path)
        return path if "://" in path else path.replace("\\", "/").rsplit("/", 1)[-1]

    @property
    def scheme(self) -> str:
        """How the memory recalls; a service does not say, so its copies are tried with the default."""
        return self.memory.scheme.name if self.at_hand else "loci"

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do something slow in a thread, so that no page waits for another."""
        return await asyncio.to_thread(work, *args, **kwargs)

    def may_write(self) -> None:
        """Refuse a change when the viewer only shows."""
        if self.read_only:
            raise ReadOnly(
                "this viewer was started with --read-only and changes nothing; start loci view without it to change"
            )

    def learn(self, hits: Hits, id_: int, reward: float) -> None:
        """Keep that one hit was useful, or was not."""
        self.may_write()
        self.memory.learn(hits.only([id_]), reward)

    def forget(self, ids: Sequence[int], scope: str, *, erase: bool) -> tuple[Ids, list[Receipt]]:
        """Forget, and with `erase` prove it."""
        self.may_write()
        went = self.memory.forget(list(ids), scope=scope, erase=erase)
        return went, [self.memory.verify_forgotten(id_) for id_ in went] if erase else []

    def restore(self, id_: int, scope: str) -> Ids:
        """Bring back a forgotten item, with what went with it."""
        self.may_write()
        return self.memory.restore(id_, scope=scope)

    def erase(self, id_: int) -> list[Receipt]:
        """Erase one forgotten item now, and prove it."""
        self.may_write()
        self.memory.erase(ids=[id_])
        return [self.memory.verify_forgotten(id_)]


def sentence(error: BaseException) -> str:
    """An error as the one sentence that a page shows; what is not ours is named and its trace goes to the terminal."""
    if isinstance(error, LociError | ValueError | TypeError | FileNotFoundError):
        return str(error)
    print(f"loci view: {type(error).__name__}: {error}", file=sys.stderr)
    return f"{type(error).__name__}: {error}; nothing was changed, see the terminal"

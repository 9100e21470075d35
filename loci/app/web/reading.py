"""What the pages read beyond the verbs of `Memory`: timelines with what has ended, forgotten items, who rests on whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from loci.records import Item
from loci.records.exchange import Progress
from loci.records.importers import Result

HOLDS, ENDED, LATER, FORGOTTEN = "holds", "ended", "not yet", "forgotten"


@dataclass(frozen=True, slots=True)
class Row:
    """An item on the timeline and how it stood at the time asked for."""

    item: Item
    state: str


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of a timeline: some rows, how many there are in all, and how many of them hold."""

    rows: list[Row]
    total: int
    holding: int


@dataclass(frozen=True, slots=True)
class Stock:
    """What a scope holds: items by kind, and by scope, most first."""

    kinds: Mapping[str, int]
    scopes: Mapping[str, int]

    @property
    def items(self) -> int:
        """All of them."""
        return sum(self.kinds.values())


class Reading(Protocol):
    """Where the pages read from: a store at hand, or a service."""

    def scopes(self) -> list[str]:
        """Paths that hold something."""

    def span(self, scope: str) -> tuple[float, float] | None:
        """When the first and the last item became known; None when there is none."""

    def line(
        self, scope: str, when: float | None, *, forgotten: bool = False, start: int = 0, count: int = 100
    ) -> Line:
        """Items newest first, as they stood at a time (None: now), or those that were forgotten."""

    def items(self, ids: Iterable[int], scope: str) -> dict[int, Item]:
        """Items by id, ended ones too, and forgotten ones where they can be seen."""

    def rests(self, ids: Sequence[int], scope: str) -> dict[int, list[int]]:
        """For each item, the live items that were derived from it."""

    def stock(self, scope: str) -> Stock:
        """Live items by kind and scope."""

    def now(self) -> float:
        """The time by the memory's clock."""

    def held(self) -> int | None:
        """Bytes of the whole store; None to whom they are not told."""

    def export(self, out: TextIO, progress: Progress) -> None:
        """Write everything that is seen as JSON lines."""

    def bring(self, source: Path, scope: str | None, progress: Progress) -> Result:
        """Import a file of any format that the house reads, under a scope when one is given."""


def cascade(reading: Reading, ids: Sequence[int], scope: str) -> list[Item]:
    """What would go with items that are forgotten: everything known only through them, in the order it falls."""
    gone = set(ids)
    found: list[Item] = []
    frontier = list(ids)
    while frontier:
        rests = {id_ for some in reading.rests(frontier, scope).values() for id_ in some} - gone
        derived = reading.items(sorted(rests), scope)
        vouching = reading.items({s for item in derived.values() for s in item.sources} - gone, scope)
        living = {id_ for id_, item in vouching.items() if item.gone is None}
        fall = [item for item in derived.values() if item.gone is None and not living & set(item.sources)]
        found += fall
        frontier = [item.id for item in fall]
        gone.update(frontier)
    return found

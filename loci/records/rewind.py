"""Point in time: a new store that holds what an old one held at a moment of the past, by its change log.

The log is cut before its first line that is later than the moment. What its lines up to there put in is taken, as it was
believed then (table `past` for items, `link_past` for links); `known`, which may be back-dated, decides nothing. Ids are kept,
and ids that were given since are not given again.

What the log cannot tell is said in the report: items erased since are gone for good; what schemes learned in a scope is kept
only if it has not changed since, and dropped otherwise. Sources that consolidation added to a derived item since, and
rewards given since to questions asked before, stay. Tokens are not taken: who may use the new store is decided anew.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from loci.core.clock import When, iso, moment
from loci.records import dump, move, opening, rows
from loci.records.database import Database
from loci.records.dump import Extent, Line, Part
from loci.records.move import Moved, Origin, Progress

_INSERTS_NOT = frozenset({"erase", "close", "forget", "restore", "link", "wipe", "repair"})


@dataclass(frozen=True, slots=True)
class Rewound:
    """What a point-in-time restore did, and what it could not bring back."""

    moved: Moved
    when: float
    erased: int  # items erased since, of those that may have been there
    unlearned: int  # items and scopes whose learned numbers changed since and were dropped
    wiped: bool  # the whole store was wiped since

    def __str__(self) -> str:
        lines = [str(self.moved), f"as it was at {iso(self.when)}"]
        if self.wiped:
            lines.append("the store was wiped since: nothing from before is left")
        if self.erased:
            lines.append(f"{self.erased} items were erased since: those that were there then are gone for good")
        if self.unlearned:
            lines.append(f"what was learned changed since in {self.unlearned} places: it was dropped there")
        return "\n".join([*lines, "tokens are not restored: make new ones with loci token new"])


def rewind(
    source: str | os.PathLike[str], target: str | os.PathLike[str], when: When, *, progress: Progress | None = None
) -> Rewound:
    """Make a new store as an old one was at a moment; the old one is only read. Killed, run it again: it goes on.

    ValueError for a moment before the first line of the log, or a target that holds anything.
    """
    for path in (source, target):
        move.check(path)
    then = moment(when, name="as_of")
    with closing(move.existing(source)) as old, closing(opening.store(target)) as new, old.read() as db:
        past = Past(db, then)
        origin = Origin(
            f"store:{old.id}@{then!r}", str(old.path), lambda: past.lines(), dump.count(Part(db), Extent.MOVE), dump.used(db)
        )
        moved = move.pour(origin, new, extent=Extent.MOVE, progress=progress)
        return Rewound(moved, then, past.log.erased, len(past.unlearned), past.log.wiped)


@dataclass(slots=True)
class Log:
    """What the change log says of a moment: where it is cut, which ids were put in by then, what changed since."""

    cut: int  # number of the last line that is taken
    top: int = 0  # highest item id by then
    links: int = 0  # highest link id by then
    since: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # scope -> id ranges put in since
    learned: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # scope -> id ranges whose numbers changed since
    states: set[int] = field(default_factory=set)  # scopes whose learned state changed since
    erased: int = 0
    wiped: bool = False

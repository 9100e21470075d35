"""What memory is measured by: a dict replayed from events, a byte scan, a tiny embedder. None of them knows a store."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loci.core.ports import F32
from loci.records import analysis
from loci.records.item import Item
from loci.records.scope import covers


class Words:
    """A tiny embedder for checks: a bag of hashed stems, deterministic and without any model."""

    name, dim, version = "checks-words", 48, "1"

    def embed(self, texts: Sequence[str]) -> F32:
        """Unit rows; zeros for a text without terms."""
        rows = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for token in analysis.tokens(text):
                row[zlib.crc32(token.encode()) % self.dim] += 1
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        out: F32 = rows / np.maximum(norms, 1e-12)
        return out


@dataclass(slots=True)
class Fate:
    """What the oracle knows of an item at one moment."""

    item: Item
    since: float
    until: float
    gone: float | None = None


@dataclass(slots=True)
class Replay:
    """The dict that memory is measured by: a list of events, replayed from the start for every question."""

    events: list[tuple[str, float, object]] = field(default_factory=list)

    def note(self, what: str, when: float, detail: object) -> None:
        """Write an event down: add Item, close {id: until}, forget ids, restore ids, erase ids."""
        self.events.append((what, when, detail))

    def fates(self, when: float = math.inf) -> dict[int, Fate]:
        """Every item that is not erased, as it stood at `when`. Items come whenever added: `known` decides."""
        fates: dict[int, Fate] = {}
        for what, time, detail in self.events:
            if what == "add":
                item: Item = detail  # type: ignore[assignment]
                since = -math.inf if item.since is None else item.since
                fates[item.id] = Fate(item, since, math.inf if item.until is None else item.until)
            elif what == "erase":
                for id_ in detail:  # type: ignore[attr-defined]
                    fates.pop(id_, None)
            elif time > when:
                continue
            elif what == "close":
                for id_, until in detail.items():  # type: ignore[attr-defined]
                    if id_ in fates:
                        fates[id_].until = max(min(until, fates[id_].until), fates[id_].since)
            elif what == "forget":
                _forget(fates, detail, time)  # type: ignore[arg-type]
            elif what == "restore":
                _restore(fates, detail)  # type: ignore[arg-type]
        return fates

    def sees(self, path: str, when: float) -> list[int]:
        """Ids that a scope sees as of a time: known, live and holding then."""
        return sorted(
            id_
            for id_, fate in self.fates(when).items()
            if (fate.item.known or 0.0) <= when and fate.gone is None and fate.since <= when < fate.until
            and covers(path, fate.item.scope)
        )  # fmt: skip

    def closure(self, ids: Iterable[int]) -> set[int]:
        """What goes when ids are forgotten now."""
        fates = self.fates()
        before = {id_ for id_, fate in fates.items() if fate.gone is None}
        _forget(fates, ids, 0.0)
        return before - {id_ for id_, fate in fates.items() if fate.gone is None}


def _forget(fates: dict[int, Fate], ids: Iterable[int], time: float) -> None:
    for id_ in ids:
        if id_ in fates:
            fates[id_].gone = time
    while orphans := [
        fate
        for fate in fates.values()
        if fate.gone is None and fate.item.sources
        and all(source not in fates or fates[source].gone is not None for source in fate.item.sources)
    ]:  # fmt: skip
        for fate in orphans:
            fate.gone = time


def _restore(fates: dict[int, Fate], ids: Iterable[int]) -> None:
    waiting = [(id_, fates[id_].gone) for id_ in ids if id_ in fates]
    while waiting:
        id_, gone = waiting.pop()
        fates[id_].gone = None
        waiting += [
            (of, fate.gone) for of, fate in fates.items() if id_ in fate.item.sources and fate.gone == gone is not None
        ]


def bytes_left(files: Iterable[Path], words: Iterable[str]) -> dict[str, str]:
    """Which words still stand in which file, in any case of letters: a scan that knows nothing of the store."""
    found: dict[str, str] = {}
    for path in files:
        data = path.read_bytes().lower()
        found |= {word: path.name for word in words if word.lower().encode() in data}
    return found


def store_files(path: Path) -> list[Path]:
    """Every file in the store's folder that begins with its name."""
    return sorted(path.parent.glob(path.name + "*"))

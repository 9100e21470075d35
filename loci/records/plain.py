"""What `Memory` gives back as plain JSON values, and back again: exact for ids, floats, times and every part of a score."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from loci.records.consolidate import Report, Step
from loci.records.contradict import Proposal, Slot
from loci.records.forget import Receipt
from loci.records.history import Diff, Event
from loci.records.item import Hit, Hits, Ids, Item, Link
from loci.records.jobs import Job
from loci.records.undo import Undone

Plain = dict[str, Any]
_ITEM = tuple(field.name for field in dataclasses.fields(Item))
T = TypeVar("T")


def dumps(value: Any) -> bytes:
    """JSON in UTF-8. JSON has no nan: where a stored meta holds one, null stands."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def of(thing: Any) -> Any:
    """A dataclass of ours, or a list of them, as dicts and lists."""
    if isinstance(thing, Item):
        return _item(thing)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {field.name: of(getattr(thing, field.name)) for field in dataclasses.fields(thing)}
    if isinstance(thing, Mapping):
        return dict(thing)
    return [of(part) for part in thing] if isinstance(thing, list | tuple) else thing


def _item(thing: Item) -> Plain:
    """The same for the one that comes by thousands."""
    row = {name: getattr(thing, name) for name in _ITEM}
    row["sources"], row["meta"] = list(thing.sources), dict(thing.meta)
    return row


def of_hits(hits: Hits) -> Plain:
    """Hits with all that `learn` needs of them."""
    return {
        "query": hits.query, "scope": hits.scope, "known": float(hits.known), "threshold": float(hits.threshold),
        "error": float(hits.error), "abstain": bool(hits.abstain),
        "hits": [{"item": _item(hit.item), "score": float(hit.score), "why": {k: float(v) for k, v in hit.why.items()}}
                 for hit in hits],
    }  # fmt: skip


def item(row: Mapping[str, Any]) -> Item:
    """An item again."""
    return Item(**{**row, "sources": tuple(row.get("sources", ()))})


def link(row: Mapping[str, Any]) -> Link:
    """A link again."""
    return Link(**{**row, "sources": tuple(row.get("sources", ()))})


def ids(row: Mapping[str, Any]) -> Ids:
    """Ids with their scope again."""
    return Ids(row["ids"], scope=row["scope"])


def hits(row: Mapping[str, Any]) -> Hits:
    """Hits again: equal in every part to those that were sent."""
    found = (Hit(item(hit["item"]), hit["score"], hit["why"]) for hit in row["hits"])
    return Hits(
        found,
        query=row["query"],
        scope=row["scope"],
        known=row["known"],
        threshold=row["threshold"],
        error=row["error"],
    )


def report(row: Mapping[str, Any]) -> Report:
    """What sleep did, again."""
    return Report(**{**row, "steps": [Step(**step) for step in row["steps"]]})


def receipt(row: Mapping[str, Any]) -> Receipt:
    """A receipt again."""
    return Receipt(**{**row, "tables": tuple(row["tables"]), "files": tuple(row["files"])})


def undone(row: Mapping[str, Any]) -> Undone:
    """What undoing a source did, again."""
    return Undone(**row)


def event(row: Mapping[str, Any]) -> Event:
    """A line of the audit again."""
    return Event(**row)


def job(row: Mapping[str, Any]) -> Job:
    """A job again."""
    return Job(**row)


def diff(row: Mapping[str, Any]) -> Diff:
    """A comparison of two times again."""
    return Diff(row["before"], row["after"], each(item)(row["added"]), each(item)(row["removed"]))


def proposal(row: Mapping[str, Any]) -> Proposal:
    """A proposal again."""
    return Proposal(**{**row, "slot": Slot(**row["slot"])})


def each(one: Callable[[Mapping[str, Any]], T]) -> Callable[[Sequence[Mapping[str, Any]]], list[T]]:
    """The same for a list."""
    return lambda rows: [one(row) for row in rows]

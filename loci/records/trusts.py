"""Trust: how far what is kept may be believed. Levels, what is derived, and what the less trusted may not end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from loci.core.errors import ConflictError
from loci.records import rows
from loci.records.database import Database
from loci.records.item import LEVELS, Item


def level(given: int | str) -> int:
    """A level of trust by name or number.

    >>> level("untrusted"), level(2)
    (0, 2)
    """
    if isinstance(given, str) and given in LEVELS:
        return LEVELS.index(given)
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(LEVELS):
        return given
    raise ValueError(f"trust={given!r} is not a level; choose {', '.join(LEVELS)}")


def inherited(db: Database, new: Sequence[Item]) -> list[Item]:
    """Items as they will be kept: what is derived has at most the least trust of its sources.

    Who derived it stays its principal; where nobody is named, it is the one that all sources share.
    """
    sources = {source for item in new for source in item.sources}
    if not sources:
        return list(new)
    said = _said(db, sources)
    return [_from(item, [said[source] for source in item.sources if source in said]) for item in new]


def _from(item: Item, sources: Sequence[tuple[int, str | None]]) -> Item:
    if not sources:
        return item
    least, principals = min(trust for trust, _ in sources), {principal for _, principal in sources}
    principal = principals.pop() if item.principal is None and len(principals) == 1 else item.principal
    return replace(item, trust=min(least, item.trust), principal=principal)


def _said(db: Database, ids: Iterable[int]) -> dict[int, tuple[int, str | None]]:
    """Trust and principal of items."""
    found: dict[int, tuple[int, str | None]] = {}
    for some in rows.batches(sorted(ids)):
        sql = f"SELECT id, trust, principal FROM item WHERE id IN ({rows.marks(some)})"
        found |= {id_: (trust, principal) for id_, trust, principal in db.execute(sql, some)}
    return found


def beyond(db: Database, ids: Collection[int], by: Iterable[int]) -> list[int]:
    """Those of the items that are trusted more than the least of `by`: they cannot be ended on its word."""
    causes = _said(db, by)
    if not ids or not causes:
        return []
    least = min(trust for trust, _ in causes.values())
    return [id_ for id_, (trust, _) in _said(db, ids).items() if trust > least]


def may_end(db: Database, ends: Mapping[int, float], by: Sequence[int]) -> None:
    """Refuse to supersede what is trusted more than what supersedes it."""
    if higher := beyond(db, ends.keys(), by):
        raise ConflictError(
            f"items {higher[:5]} are trusted more than what would supersede them, so nothing was written; "
            "let someone whom you trust as much say so"
        )

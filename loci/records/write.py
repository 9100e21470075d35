"""Writing, inside one transaction: new items, and the changes that a scheme proposed."""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace

from loci.core.errors import ConflictError, UnknownItem
from loci.records import analysis, forget, postings, rows, trusts
from loci.records.database import Database
from loci.records.item import ORDINARY, OWNER, Item, Link
from loci.records.scheme import Changes

_INSERT = """INSERT INTO item (id, scope, kind, text, at, since, until, known, changed, session, source, value, uses,
             pinned, meta, version, principal, trust, held, speaker, cues, head)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def insert(
    db: Database, scope: int, new: Sequence[Item], tokens: Sequence[Sequence[str]], now: float, *, op: str
) -> list[int]:
    """Add items of one scope, already tokenised; their ids, rising and never used before. What is derived inherits trust."""
    new = trusts.inherited(db, new)
    first = db.reserve("item", len(new))
    ids = list(range(first, first + len(new)))
    version = rows.event(db, op, now, scope=scope, first=first, last=ids[-1])
    db.executemany(
        _INSERT,
        (
            (
                id_, scope, item.kind, item.text, item.at, item.since, item.until,
                now if item.known is None else item.known, now if item.known is None else item.known,
                item.session, item.source, item.value, item.uses, int(item.pinned),
                json.dumps(dict(item.meta), ensure_ascii=False, sort_keys=True) if item.meta else "{}", version, item.principal, item.trust, int(item.held),
                *analysis.said(item), analysis.head(item),
            )
            for id_, item in zip(ids, new, strict=True)
        ),
    )  # fmt: skip
    db.executemany(
        "INSERT INTO provenance VALUES (?, ?) ON CONFLICT DO NOTHING",
        ((id_, source) for id_, item in zip(ids, new, strict=True) for source in item.sources),
    )
    postings.add(db, scope, ids, tokens)
    return ids


def close(
    db: Database, scopes: Container[int], ends: Mapping[int, float], now: float, *, by: Sequence[int] = ()
) -> None:
    """End the validity of items: what was believed before stays readable with `as_of`.

    The log keeps what undoing needs: who ended it (`by`), an earlier end (`was`), and the end asked for where that differs.
    """
    for id_, until in ends.items():
        row = db.execute("SELECT since, until, changed, gone, scope FROM item WHERE id = ?", (id_,)).fetchone()
        if row is None or row[4] not in scopes or row[3] is not None:
            raise UnknownItem(f"item {id_} is not live in this scope, so nothing can supersede it; recall it first")
        keep_past(db, id_, now)
        asked, until = until, closed(row[0], row[1], until)
        detail: dict[str, object] = {"until": until, "by": list(by)}
        detail |= {"was": row[1]} if row[1] is not None else {}
        detail |= {"asked": asked} if asked != until else {}
        version = rows.event(db, "close", now, scope=row[4], first=id_, detail=detail)
        db.execute("UPDATE item SET until = ?, changed = ?, version = ? WHERE id = ?", (until, now, version, id_))


def closed(since: float | None, until: float | None, asked: float) -> float:
    """Where an interval ends when it is asked to: one that has ended is not opened again, none ends before it begins."""
    end = asked if until is None else min(asked, until)
    return end if since is None else max(end, since)


def keep_past(db: Database, id_: int, now: float) -> None:
    """Write down what is believed of an item until now, before that changes."""
    db.execute(
        "INSERT INTO past SELECT id, since, until, gone, changed, ? FROM item WHERE id = ? AND changed < ?",
        (now, id_, now),
    )


def link(db: Database, scope: int, new: Sequence[Link], now: float) -> list[int]:
    """Add links between live items of one scope."""
    ids = []
    for one in new:
        known = now if one.known is None else one.known
        ids.append(
            int(
                db.execute(
                    """INSERT INTO link (src, rel, dst, weight, since, until, known) VALUES (?, ?, ?, ?, ?, ?, ?)
                       RETURNING id""",
                    (one.src, one.rel, one.dst, one.weight, one.since, one.until, known),
                ).fetchone()[0]
            )
        )
        db.executemany(
            "INSERT INTO link_source VALUES (?, ?) ON CONFLICT DO NOTHING", ((ids[-1], s) for s in one.sources)
        )
    if ids:
        rows.event(db, "link", now, scope=scope, detail={"links": [ids[0], ids[-1]]})
    return ids


def apply(
    db: Database,
    scheme: str,
    scope: int,
    changes: Changes,
    read_at: int,
    now: float,
    *,
    op: str,
    inside: Collection[int],
    by: Sequence[int] = (),
) -> list[int]:
    """Apply a scheme's changes to one scope, or refuse them whole when rows moved since event `read_at`.

    `inside` are the scopes that the scheme saw: what it derives may rest on items of any of them. `by` are the items that
    it was run on: what is trusted more than they, or than what it derives, it can neither end nor forget; the log says so.
    """
    if bare := [new.item.text for new in changes.put if not new.item.sources]:
        raise ValueError(f"derived item {bare[0][:40]!r} names no sources; give the ids that it was derived from")
    touched = {source for new in changes.put for source in new.item.sources}
    touched |= {end for one in changes.link for end in (one.src, one.dst, *one.sources) if end > 0}
    touched |= {id_ for of, sources in changes.vouch.items() for id_ in (of, *sources)}
    _still(db, inside, touched, read_at)
    _still(db, {scope}, {*changes.close, *changes.forget, *changes.value}, read_at)
    _unpinned(db, {*changes.close, *changes.forget})
    ids: list[int] = []
    if changes.put:
        new = [replace(one.item, id=0, trust=_claimed(one.item)) for one in changes.put]
        ids = insert(db, scope, new, [analysis.tokens_of(item) for item in new], now, op=op)
    db.executemany(
        "INSERT INTO provenance VALUES (?, ?) ON CONFLICT DO NOTHING",
        ((of, source) for of, sources in changes.vouch.items() for source in sources if source != of),
    )
    if changes.vouch:
        rows.event(db, op, now, scope=scope, detail={"vouched": len(changes.vouch)})
    alias = {one.alias: id_ for one, id_ in zip(changes.put, ids, strict=True)}
    if unknown := {end for one in changes.link for end in (one.src, one.dst) if end <= 0 and end not in alias}:
        raise ValueError(f"links name aliases {sorted(unknown)} that no put item has; put them in the same Changes")
    link(db, scope, [replace(x, src=alias.get(x.src, x.src), dst=alias.get(x.dst, x.dst)) for x in changes.link], now)
    _end(db, scope, changes, now, op=op, by=[*ids, *by])
    if changes.value:
        valued = sorted(changes.value)
        detail: dict[str, object] = {"values": len(valued)}
        version = rows.event(db, op, now, scope=scope, first=valued[0], last=valued[-1], detail=detail)
        db.executemany(
            "UPDATE item SET value = ?, uses = ?, version = ? WHERE id = ?",
            ((value, uses, version, id_) for id_, (value, uses) in changes.value.items()),
        )
    save(db, scheme, scope, changes.state)
    if changes.state and not changes.value:  # the log tells when what was learned changed last
        rows.event(db, op, now, scope=scope, detail={"state": len(changes.state)})
    return ids


def _end(db: Database, scope: int, changes: Changes, now: float, *, op: str, by: Sequence[int]) -> None:
    """Close and forget what a scheme wants ended, but nothing that is trusted more than what it was run on."""
    spared = trusts.beyond(db, {*changes.close, *changes.forget}, by)
    for id_ in spared:
        rows.event(db, "spare", now, scope=scope, first=id_, detail={"by": list(by)})
    close(db, (scope,), {id_: end for id_, end in changes.close.items() if id_ not in spared}, now, by=by)
    if going := [id_ for id_ in changes.forget if id_ not in spared]:
        forget.tombstone(db, {scope}, going, now, op=op)


def _claimed(item: Item) -> int:
    """The trust that a derived item asks for: all that its sources have, unless it says otherwise."""
    return OWNER if item.trust == ORDINARY else item.trust


def save(db: Database, scheme: str, scope: int, state: Mapping[str, bytes | None]) -> None:
    """Keep or drop parts of a scheme's state."""
    for name, data in state.items():
        if data is None:
            db.execute("DELETE FROM state WHERE scheme = ? AND name = ? AND scope = ?", (scheme, name, scope))
        else:
            db.execute(
                """INSERT INTO state VALUES (?, ?, ?, ?) ON CONFLICT (scheme, name, scope)
                   DO UPDATE SET data = excluded.data""",
                (scheme, name, scope, data),
            )


def _unpinned(db: Database, ids: set[int]) -> None:
    for some in rows.batches(sorted(ids)):
        row = db.execute(f"SELECT id FROM item WHERE pinned = 1 AND id IN ({rows.marks(some)})", some).fetchone()
        if row is not None:
            raise ConflictError(f"item {row[0]} is pinned, so a scheme cannot end or forget it; only the user can")


def _still(db: Database, scopes: Collection[int], ids: set[int], read_at: int) -> None:
    left = set(ids)
    for some in rows.batches(sorted(ids)):
        for id_, of, gone, version in db.execute(
            f"SELECT id, scope, gone, version FROM item WHERE id IN ({rows.marks(some)})", some
        ):
            if of in scopes and gone is None and version <= read_at:
                left.discard(id_)
    if left:
        raise ConflictError(
            f"items {sorted(left)[:5]} moved, went or lie outside the scope since event {read_at}; read again, then write"
        )

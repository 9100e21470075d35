"""Sleep: merge what repeats, apply what the scheme proposes, forget down to a byte budget. Nothing that hurts.

Each step is a proposal. It is replayed against the scope's own past questions on a view in which the step has already
happened, and committed only if the recall of what those questions needed does not fall. Pinned items are never
dropped. What is dropped for the budget is erased, since a tombstone frees no bytes; merges can be restored.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from loci.core.errors import ConflictError
from loci.records import calibrate, forget, keep, merge, rows
from loci.records.database import Database
from loci.records.item import Item
from loci.records.scheme import Changes, Query
from loci.records.view import View

if TYPE_CHECKING:
    from loci.records.handle import Handle

QUESTIONS = 200  # the newest questions of the log that the gate replays
K = 10
_ROUNDS = 20
_ENOUGH = 20  # past questions from which the calibration is fitted anew
_BESIDE = 3  # items on each side that are kept with one that a question needed


@dataclass(frozen=True, slots=True)
class Step:
    """One proposal and what became of it: recall of past questions before and after, and whether it was committed."""

    what: str  # "merge", "derive", "forget"
    items: int
    before: float
    after: float
    committed: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What sleep did. `met` tells whether the store now fits the budget (True without one)."""

    bytes_before: int
    bytes_after: int
    budget: int | None
    met: bool
    questions: int  # past questions that the gate replayed
    merged: int = 0
    derived: int = 0
    forgotten: int = 0
    erased: int = 0  # whose restore window had passed
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asked:
    """A past question, where it was asked, and the items it needed: those that were rewarded, else the best hit."""

    text: str
    scope: str
    needed: frozenset[int]


@dataclass(frozen=True, slots=True)
class Gate:
    """Past questions, replayed each in its own scope as if a step had already happened."""

    asked: tuple[Asked, ...]

    def shares(
        self, handle: Handle, db: Database, gone: Collection[int] = (), into: Mapping[int, int] | None = None
    ) -> list[float]:
        """For each question the share of what it needed among its first K hits; `into` follows merges."""
        into = into or {}
        views: dict[str, View] = {}
        found = []
        for past in self.asked:
            if past.scope not in views:
                views[past.scope] = _without(handle.view(db, past.scope), gone)
            view = views[past.scope]
            hits = {hit.item.id for hit in handle.scheme.recall(Query(text=past.text, k=K, now=view.when), view)}
            found.append(sum(into.get(id_, id_) in hits for id_ in past.needed) / len(past.needed))
        return found


def _mean(shares: list[float]) -> float:
    return float(np.mean(shares)) if shares else 1.0


def consolidate(handle: Handle, path: str, budget: int | None) -> Report:
    """Run the steps in order: erase what is due, merge, the scheme's own, forget; report every one."""
    handle.flush()
    before = handle.nbytes
    erased = handle.erase()
    gate = _gate(handle, path)
    _calibrate(handle, path, gate)
    steps = [_merge(handle, path, gate), _derive(handle, path, gate, budget)]
    if budget is not None:
        steps += _fit(handle, path, gate, budget)
    if any(step.committed for step in steps):
        handle.flush()
    after = handle.nbytes

    def done(what: str) -> int:
        return sum(step.items for step in steps if step.what == what and step.committed)

    return Report(
        bytes_before=before, bytes_after=after, budget=budget, met=budget is None or after <= budget,
        questions=len(gate.asked), merged=done("merge"), derived=done("derive"), forgotten=done("forget"),
        erased=erased, steps=[step for step in steps if step.items],
    )  # fmt: skip


def _calibrate(handle: Handle, path: str, gate: Gate) -> None:
    """Fit, from the scope's own past questions and without labels, how often a question names the wrong speaker."""
    with handle.reading() as db:
        view = handle.view(db, path)
        found = [calibrate.features(past.text, view) for past in gate.asked if past.scope == path]
        diffs = [of.diff for of in found if of.named == 1]
    if len(diffs) >= _ENOUGH:
        fitted = json.dumps({"pi": calibrate.fit(diffs)}).encode()
        with contextlib.suppress(ConflictError):
            handle.apply(path, Changes(state={calibrate.STATE: fitted}), view.version, op="calibrate")


def _gate(handle: Handle, path: str) -> Gate:
    with handle.reading() as db:
        view = handle.view(db, path)
        asked = []
        for query, hits, reward, scope in _log(db, view, QUESTIONS):
            live = [id_ for id_ in json.loads(hits) if _lives(view, id_)]
            needed = live if reward is not None and reward > 0 else live[:1]
            if needed and (reward is None or reward > 0):
                asked.append(Asked(query, view.ledger.scopes[scope], frozenset(needed)))
    return Gate(tuple(asked))


def _log(db: Database, view: View, most: int) -> list[tuple[str, str, float | None, int]]:
    found = []
    for some in rows.batches(view.ledger.scopes):
        sql = f"SELECT id, query, hits, reward, scope FROM asked WHERE scope IN ({rows.marks(some)}) ORDER BY id DESC LIMIT ?"
        found += db.execute(sql, (*some, most)).fetchall()
    return [row[1:] for row in sorted(found, reverse=True)[:most]]


def _lives(view: View, id_: int) -> bool:
    place = int(view.ledger.places(np.array([id_], np.int64))[0])
    return place >= 0 and bool(view.live[place])


def _without(view: View, ids: Iterable[int]) -> View:
    places = view.ledger.places(np.fromiter(ids, np.int64))
    view.live = view.live.copy()
    view.live[places[places >= 0]] = False
    return view


def _merge(handle: Handle, path: str, gate: Gate) -> Step:
    """Let the oldest of near duplicates stand for all."""
    with handle.reading() as db:
        view = handle.view(db, path)
        into = merge.duplicates(view.every())
        if not into:
            return Step("merge", 0, 1.0, 1.0, committed=False)
        before, after = _mean(gate.shares(handle, db)), _mean(gate.shares(handle, db, into, into))
    if after < before:
        return Step("merge", len(into), before, after, committed=False)
    try:
        with handle.writing() as db:
            for gone, kept in into.items():  # what was derived from the repetition now rests on the original
                db.execute(
                    """INSERT INTO provenance SELECT item, ? FROM provenance WHERE source = ? AND item <> ?
                       ON CONFLICT DO NOTHING""",
                    (kept, gone, kept),
                )
                db.execute(
                    """INSERT INTO link_source SELECT link, ? FROM link_source WHERE source = ? ON CONFLICT DO NOTHING""",
                    (kept, gone),
                )
            forget.tombstone(db, rows.scopes_under(db, path), list(into), handle.now(), op="merge", into=into)
    except (ConflictError, LookupError):  # someone else was faster: there is another night
        return Step("merge", len(into), before, after, committed=False)
    return Step("merge", len(into), before, after, committed=True)


def _derive(handle: Handle, path: str, gate: Gate, budget: int | None) -> Step:
    """What the scheme itself proposes."""
    with handle.reading() as db:
        view = handle.view(db, path)
        changes = handle.scheme.consolidate(view, budget)
        count = len(changes.put) + len(changes.link) + len(changes.close) + len(changes.forget)
        if not changes:
            return Step("derive", 0, 1.0, 1.0, committed=False)
        ended = {*changes.forget, *changes.close}
        before, after = _mean(gate.shares(handle, db)), _mean(gate.shares(handle, db, ended))
    if after < before:
        return Step("derive", count, before, after, committed=False)
    try:
        handle.apply(path, changes, view.version, op="consolidate")
    except ConflictError:
        return Step("derive", count, before, after, committed=False)
    return Step("derive", count, before, after, committed=True)


def _fit(handle: Handle, path: str, gate: Gate, budget: int) -> list[Step]:
    """Erase the items that are worth least a byte until the store fits, as long as no past question loses.

    Where one would lose, what it needed is kept with its surroundings, and a new choice is made. A budget that
    could not be met even so (the empty store, pins and what was needed take more) erases nothing.
    """
    steps: list[Step] = []
    keeping = {id_ for past in gate.asked for id_ in past.needed}
    rate = 1.0  # bytes that came free for a byte of estimate in the round before
    for _ in range(_ROUNDS):
        handle.flush()
        size = handle.nbytes
        if size <= budget:
            break
        with handle.reading() as db:
            view = handle.view(db, path)
            drop, enough = _least(view, gate, keeping, int((size - budget) / rate) + 1)
            if not enough:
                break
            before, after = gate.shares(handle, db), gate.shares(handle, db, drop)
            lost = [past for past, was, now in zip(gate.asked, before, after, strict=True) if now < was]
            if lost:
                keeping |= _around(view, lost)
        step = Step("forget", len(drop), _mean(before), _mean(after), committed=not lost)
        if lost:
            steps.append(step)
            continue
        try:
            with handle.writing() as db:
                went = forget.tombstone(db, rows.scopes_under(db, path), drop, handle.now(), op="budget")
            handle.erase(ids=went)
        except LookupError:  # an item went meanwhile: look again
            continue
        steps.append(step)
        handle.flush()
        rate = min(max((size - handle.nbytes) / (size - budget), 0.2), 2.0) * rate
    return steps


def _around(view: View, lost: Sequence[Asked]) -> set[int]:
    """What questions needed, with the items beside it: their words counted for it."""
    needed = np.array(sorted({id_ for past in lost for id_ in past.needed}), np.int64)
    places = view.ledger.places(needed)
    near = (places[places >= 0][:, None] + np.arange(-_BESIDE, _BESIDE + 1)).ravel()
    near = near[(near >= 0) & (near < len(view.ledger))]
    return set(view.ledger.ids[near].tolist())


def _least(view: View, gate: Gate, keeping: Collection[int], excess: int) -> tuple[list[int], bool]:
    """Ids to drop, least worth first, and whether they free about `excess` bytes; what past questions needed stays."""
    items = view.every()
    uses: Counter[int] = Counter(id_ for past in gate.asked for id_ in past.needed)
    dim = 0 if view.embedder is None else view.embedder.dim
    costs = {item.id: keep.cost(item, dim) for item in items}
    drop: list[int] = []
    for item in reversed(keep.order(items, uses, dim=dim)):
        if excess <= 0:
            break
        if not item.pinned and item.id not in keeping and not _carries(item):
            drop.append(item.id)
            excess -= costs[item.id]
    return drop, excess <= 0


def _carries(item: Item) -> bool:
    """Whether an item holds what others need to be found: entities fall by themselves when their facts do."""
    return item.kind == "entity"

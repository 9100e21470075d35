"""Broken twins: each law of memory must catch, by name, the scheme or store that breaks it."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loci.core.checking import broken_by
from loci.records import checks, checks_store, forget, ledger, oracle, postings, rows
from loci.records.item import Hit, Hits, Ids, Item, Link
from loci.records.memory import Memory
from loci.records.scheme import Changes, New, Plain, Query
from loci.records.schemes.bm25 import BM25
from loci.records.view import View


class Leaks(BM25):
    """Adds an item of another scope, read by raw SQL."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        mine = ",".join(map(str, view.ledger.scopes)) or "0"
        row = view._db.execute(f"SELECT id FROM item WHERE scope NOT IN ({mine}) AND gone IS NULL").fetchone()
        hits = super().recall(query, view)
        if row is None or not hits:
            return hits
        paths = dict(view._db.execute("SELECT id, path FROM scope"))
        stranger = rows.items(view._db, [row[0]], paths)[row[0]]
        return [*hits[: query.k - 1], Hit(stranger, 0.0, {"leak": 0.0})]


class Remembers(BM25):
    """Ignores that items were forgotten, closed, or not yet known."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        view.live = view.live | True
        return super().recall(query, view)


class ForgetsSlowly(BM25):
    """Keeps answering from what it saw first."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str, int], list[Hit]] = {}

    def recall(self, query: Query, view: View) -> list[Hit]:
        return self.seen.setdefault((view.scope, query.text, query.k), super().recall(query, view))


class Repeats(BM25):
    """Gives the best hit twice."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        hits = super().recall(query, view)
        return (hits[:1] + hits)[: query.k]


class Rises(BM25):
    """Worst first."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        return super().recall(query, view)[::-1]


class IgnoresK(BM25):
    """Always asks for a hundred."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        return super().recall(replace(query, k=100), view)


class Stingy(BM25):
    """Finds less when more is asked for."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        hits = super().recall(query, view)
        return hits[:1] if query.k > 100 else hits


class Unexplained(BM25):
    """Scores that their parts do not sum to: smuggled past `Hit`, which refuses them."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        hits = super().recall(query, view)
        for hit in hits:
            object.__setattr__(hit, "score", hit.score + 1)
        return hits


class Infinite(BM25):
    """A score without bound."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        return [replace(hit, score=float("inf"), why={"faith": float("inf")}) for hit in super().recall(query, view)]


class Moody(BM25):
    """Every answer scores a little more than the last."""

    calls = itertools.count()

    def recall(self, query: Query, view: View) -> list[Hit]:
        mood = next(self.calls) / 1000
        return [
            replace(hit, score=hit.score + mood, why={**hit.why, "mood": mood}) for hit in super().recall(query, view)
        ]


class Deaf(BM25):
    """Hears only the last word."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        return super().recall(replace(query, text=query.text[-3:]), view)


class Fragile(BM25):
    """Puts the question into SQL."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        try:
            view._db.execute(f"SELECT 1 FROM item WHERE text = '{query.text[:200]}'").fetchall()
        except (sqlite3.Error, ValueError) as error:
            raise AssertionError(f"question {query.text[:40]!r} broke the statement: {error}") from error
        return super().recall(query, view)


class Chatty(BM25):
    """Answers an empty memory with an invention."""

    def recall(self, query: Query, view: View) -> list[Hit]:
        return super().recall(query, view) or [Hit(Item(text="I think so", id=1), 1.0, {"faith": 1.0})]


class Rootless(BM25):
    """Derives facts that name no sources."""

    sources = False

    def write(self, new: Sequence[Item], view: View) -> Changes:
        put = [
            New(
                -1 - n,
                Item(
                    text=f"fact of {item.text}",
                    kind="fact",
                    scope=item.scope,
                    sources=(item.id,) if self.sources else (),
                ),
            )
            for n, item in enumerate(new)
        ]
        return Changes(put=put)


class Doubles(Rootless):
    """Derives the same again when a write is replayed."""

    sources = True


class Ratchets(BM25):
    """Links everything to everything, each time."""

    def write(self, new: Sequence[Item], view: View) -> Changes:
        pairs = itertools.pairwise(item.id for item in new)
        return Changes(link=[Link(src=a, rel="next", dst=b) for a, b in pairs])


class Amnesic(BM25):
    """Answers from what this process has learned, which the file does not hold."""

    def __init__(self) -> None:
        self.praise: dict[int, float] = {}

    def learn(self, hits: Hits, reward: float, view: View) -> Changes:
        self.praise |= {hit.item.id: reward for hit in hits}
        return Changes()

    def recall(self, query: Query, view: View) -> list[Hit]:
        hits = [
            replace(hit, score=hit.score + praise, why={**hit.why, "praise": praise})
            for hit in super().recall(query, view)
            for praise in [self.praise.get(hit.item.id, 0.0)]
        ]
        return sorted(hits, key=lambda hit: -hit.score)


class Explodes(BM25):
    """Praise makes a score that is no number's neighbour."""

    def __init__(self) -> None:
        self.factor = 1.0

    def learn(self, hits: Hits, reward: float, view: View) -> Changes:
        self.factor *= 1e80
        return Changes()

    def recall(self, query: Query, view: View) -> list[Hit]:
        hits = [
            (hit, {name: part * self.factor for name, part in hit.why.items()}) for hit in super().recall(query, view)
        ]
        return [replace(hit, score=sum(why.values()), why=why) for hit, why in hits]


class Purges(BM25):
    """Forgets all in its sleep, pinned or not."""

    def consolidate(self, view: View, budget: int | None) -> Changes:
        return Changes(forget=[item.id for item in view.every()] if budget is not None else [])


TWINS = [
    (Leaks, checks.hits_are_live_in_scope_unique_sorted), (Remembers, checks.hits_are_live_in_scope_unique_sorted),
    (Repeats, checks.hits_are_live_in_scope_unique_sorted), (Rises, checks.hits_are_live_in_scope_unique_sorted),
    (IgnoresK, checks.k_is_respected), (Stingy, checks.k_is_respected), (Unexplained, checks.parts_sum_to_score),
    (Infinite, checks.parts_sum_to_score), (Deaf, checks.own_text_is_recalled), (Moody, checks.deterministic),
    (Remembers, checks.forgotten_is_not_recalled), (ForgetsSlowly, checks.forgotten_is_not_recalled),
    (ForgetsSlowly, checks.erased_is_not_recalled), (Remembers, checks.as_of_reads_the_past),
    (Chatty, checks.empty_memory_and_empty_query), (Fragile, checks.hostile_queries), (Amnesic, checks.reopen_equals_before),
    (Explodes, checks.feedback_keeps_the_laws), (Rootless, checks.changes_keep_provenance),
    (Doubles, checks.write_is_idempotent_under_replay), (Ratchets, checks.write_is_idempotent_under_replay),
    (Purges, checks.sleep_keeps_what_is_pinned),
]  # fmt: skip


@pytest.mark.parametrize(("twin", "law"), TWINS, ids=lambda part: part.__name__)
def test_the_law_catches_the_broken_scheme(twin: type[Plain], law: Any) -> None:
    assert broken_by(law, twin), f"{law.__name__} lets {twin.__name__} pass"


@pytest.mark.parametrize("law", checks.LAWS, ids=lambda law: law.__name__)
def test_the_sound_scheme_passes_and_each_law_has_a_twin(law: Any) -> None:
    assert not broken_by(law, BM25)
    assert law in [caught for _, caught in TWINS], f"{law.__name__} has no broken twin"


def test_hit_refuses_parts_that_do_not_sum() -> None:
    with pytest.raises(ValueError, match="is not the sum of its parts"):
        Hit(Item(text="x", id=1), 2.0, {"words": 1.0})


# --- stores -----------------------------------------------------------------------------------------------------------


@contextmanager
def swapped(module: Any, name: str, other: Any) -> Iterator[None]:
    held = getattr(module, name)
    setattr(module, name, other)
    try:
        yield
    finally:
        setattr(module, name, held)


class NoCascade(Memory):
    """Forgets what it is told and nothing more."""

    def forget(self, ids: int | Sequence[int], *, scope: str | None = None, erase: bool = False) -> Ids:
        with swapped(forget, "_orphans", lambda *_: []):
            return super().forget(ids, scope=scope, erase=erase)


class Overzealous(Memory):
    """Forgets whatever the item had a hand in, other sources or not."""

    def forget(self, ids: int | Sequence[int], *, scope: str | None = None, erase: bool = False) -> Ids:
        def every(db: sqlite3.Connection, gone: Sequence[int]) -> list[tuple[int, int]]:
            sql = f"SELECT item.id, scope FROM provenance AS p JOIN item ON item.id = p.item WHERE p.source IN ({rows.marks(gone)}) AND gone IS NULL"
            return db.execute(sql, list(gone)).fetchall()

        with swapped(forget, "_orphans", every):
            return super().forget(ids, scope=scope, erase=erase)


class HalfRestores(Memory):
    """Restores the item but not what went with it."""

    def restore(self, ids: int | Sequence[int], *, scope: str | None = None) -> Ids:
        with self._store.write() as db:
            db.execute("CREATE TEMP TABLE provenance (item INTEGER, source INTEGER)")  # hides the real one
        try:
            return super().restore(ids, scope=scope)
        finally:
            with self._store.write() as db:
                db.execute("DROP TABLE temp.provenance")


class Clairvoyant(Memory):
    """Its past ignores when things became known."""

    def items(self, *, scope: str | None = None, as_of: Any = None) -> list[Item]:
        load = ledger.load

        def knowing(db: sqlite3.Connection, path: str, when: float) -> ledger.Ledger:
            return load(db, path)

        with swapped(ledger, "as_of", knowing):
            return super().items(scope=scope, as_of=as_of)


class NoPast(Memory):
    """Changes items without writing down what was believed before."""

    def _without_past(self, verb: Any, *args: Any, **named: Any) -> Any:
        with self._store.write() as db:
            db.execute("CREATE TRIGGER IF NOT EXISTS no_past BEFORE INSERT ON past BEGIN SELECT RAISE(IGNORE); END")
        return verb(*args, **named)

    def forget(self, *args: Any, **named: Any) -> Ids:
        return self._without_past(super().forget, *args, **named)


class SkipsPostings(Memory):
    """Erases the text and leaves its words in the index."""

    def forget(self, ids: int | Sequence[int], *, scope: str | None = None, erase: bool = False) -> Ids:
        with swapped(postings, "remove", lambda *_: None):
            return super().forget(ids, scope=scope, erase=erase)


class KeepsQuestions(Memory):
    """Erases the item and keeps the questions that found it."""

    def forget(self, ids: int | Sequence[int], *, scope: str | None = None, erase: bool = False) -> Ids:
        with self._store.write() as db:
            db.execute("CREATE TRIGGER IF NOT EXISTS kept BEFORE DELETE ON asked BEGIN SELECT RAISE(IGNORE); END")
        return super().forget(ids, scope=scope, erase=erase)


class NoVacuum(Memory):
    """Leaves the log as it is: what was erased is still in it."""

    def forget(self, ids: int | Sequence[int], *, scope: str | None = None, erase: bool = False) -> Ids:
        with (
            swapped(type(self._store), "vacuum", lambda _: None),
            swapped(type(self._store), "checkpoint", lambda _: None),
        ):
            went = super().forget(ids, scope=scope, erase=erase)
        type(self).left = oracle.bytes_left(oracle.store_files(Path(self.path)), ["zorblatt7"])
        return went

    def flush(self) -> None:
        if not hasattr(type(self), "left"):
            super().flush()


class PrefixScopes(Memory):
    """Takes a scope for a prefix of text."""

    def items(self, *, scope: str | None = None, as_of: Any = None) -> list[Item]:
        def prefix(db: sqlite3.Connection, path: str) -> dict[int, str]:
            return {
                id_: of for id_, of in db.execute("SELECT id, path FROM scope") if path == "/" or of.startswith(path)
            }

        with swapped(rows, "scopes_under", prefix):
            return super().items(scope=scope, as_of=as_of)


STORE_TWINS = [
    (NoCascade, checks_store.forgetting_cascades), (Overzealous, checks_store.forgetting_cascades), (HalfRestores, checks_store.forgetting_cascades),
    (Clairvoyant, checks_store.the_past_is_as_it_was), (NoPast, checks_store.the_past_is_as_it_was),
    (SkipsPostings, checks_store.erasing_leaves_no_bytes), (KeepsQuestions, checks_store.erasing_leaves_no_bytes),
    (NoVacuum, checks_store.erasing_leaves_no_bytes), (NoCascade, checks_store.erasing_leaves_no_bytes),
    (PrefixScopes, checks_store.scopes_are_apart),
]  # fmt: skip


@pytest.mark.parametrize(("twin", "law"), STORE_TWINS, ids=lambda part: part.__name__)
def test_the_law_catches_the_broken_store(twin: type[Memory], law: Any, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        law(checks_store.opened(twin), tmp_path / "twin.db")


@pytest.mark.parametrize("law", checks_store.STORE_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("scheme", ["loci", "bm25"])
def test_the_sound_store_passes(law: Any, scheme: str, tmp_path: Path) -> None:
    law(checks_store.opened(Memory, scheme), tmp_path / "memory.db")
    assert law in [caught for _, caught in STORE_TWINS], f"{law.__name__} has no broken twin"

"""`Memory` against a dict: any order of calls keeps the laws of memory."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from loci.core.clock import FixedClock
from loci.core.errors import UnknownItem
from loci.records import Item, Memory
from loci.records.checks import START, Words, ask
from loci.records.oracle import Replay, bytes_left, store_files
from loci.records.scope import covers
from tests import stores

SCOPES = ("a", "a/b", "a/b/c", "ab", "z")
SEEN_FROM = (*SCOPES, "/", "a/x")
WORDS = ("kitten", "harbour", "violin", "Rome", "not", "tooth", "12", "telescope", "Ana:", "?")
SETTINGS = settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip


class Laws(RuleBasedStateMachine):
    """One file, two handles on it, and the oracle."""

    scheme = "loci"
    embedder: Words | None = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="loci-"))
        self.path = self.place("memory.db")
        self.clock = FixedClock(START)
        self.oracle = Replay()
        self.given: set[int] = set()
        self.words: dict[int, str] = {}  # id -> a word that only this item has
        self.calls: list[tuple[float, Callable[[Memory], Any]]] = []
        self.numbers = itertools.count()
        self.memory = self.open()
        self.second: Memory | None = None

    def open(self, path: Any = None, clock: FixedClock | None = None) -> Memory:
        return Memory(
            path or self.path, scheme=self.scheme, embedder=self.embedder, clock=clock or self.clock, restore_window=1e9
        )

    def place(self, name: str) -> Any:
        """Where a memory of this run is kept."""
        return self.folder / name

    def files(self) -> Any:
        """What an outsider finds there."""
        return store_files(self.path)

    def call(self, verb: Callable[[Memory], Any]) -> Any:
        """A write: done, and kept for the replay at the end."""
        self.calls.append((self.clock(), verb))
        return verb(self.memory)

    def live(self, path: str = "/") -> list[int]:
        return sorted(
            i for i, fate in self.oracle.fates().items() if fate.gone is None and covers(path, fate.item.scope)
        )

    def gone(self) -> list[int]:
        return sorted(i for i, fate in self.oracle.fates().items() if fate.gone is not None)

    def scope_of(self, id_: int) -> str:
        return self.oracle.fates()[id_].item.scope

    def text(self, words: list[str]) -> tuple[str, str]:
        word = f"zq{next(self.numbers):05d}x7"
        return f"{' '.join(words)} {word}", word

    def put(self, items: list[Item], path: str, supersedes: list[int] | None = None) -> list[int]:
        ids = self.call(lambda memory: memory.add(items, scope=path, session="s", supersedes=supersedes or ()))
        assert len(ids) == len(items)
        assert ids == sorted(ids), f"{len(items)} items got ids {ids}"
        assert self.given.isdisjoint(ids), f"ids {self.given & set(ids)} were used again"
        self.given |= set(ids)
        for id_, item in zip(ids, items, strict=True):
            known = self.clock() if item.known is None else item.known
            kept = Item(
                text=item.text,
                scope=item.scope,
                id=id_,
                since=item.since,
                until=item.until,
                sources=item.sources,
                known=known,
            )
            self.oracle.note("add", self.clock(), kept)
            self.words[id_] = item.text.split()[-1]
        assert [item.text for item in self.memory.get(ids, scope=path)] == [item.text for item in items]
        return list(ids)

    # --- rules --------------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.put([Item(text=self.text(["kitten"])[0], scope=scope) for scope in SCOPES], "/")

    @rule(
        scope=st.sampled_from(SCOPES),
        texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), min_size=1, max_size=4),
        times=st.tuples(*(st.none() | st.integers(-40, 60) for _ in range(4))),
    )
    def add(self, scope: str, texts: list[list[str]], times: tuple[int | None, ...]) -> None:
        since, until, known, at = (None if t is None else START + t for t in times)
        if since is not None and until is not None and since > until:
            since, until = until, since
        known = None if known is None else min(known, self.clock())
        items = [
            Item(text=self.text(words)[0], scope=scope, since=since, until=until, known=known, at=at) for words in texts
        ]
        self.put(items, scope)

    @rule(data=st.data(), scope=st.sampled_from(SCOPES))
    def derive(self, data: st.DataObject, scope: str) -> None:
        if live := self.live(scope):
            sources = tuple(sorted(data.draw(st.sets(st.sampled_from(live), min_size=1, max_size=3))))
            self.put([Item(text=self.text(["fact"])[0], scope=scope, kind="fact", sources=sources)], scope)

    @rule(data=st.data(), scope=st.sampled_from(SCOPES))
    def derive_from_what_is_not_there(self, data: st.DataObject, scope: str) -> None:
        seen = set(self.live(scope))
        if others := [id_ for id_ in [*self.given, 10**9] if id_ not in seen]:
            source = data.draw(st.sampled_from(others))
            with pytest.raises(UnknownItem):
                self.memory.add(Item(text="rootless", scope=scope, kind="fact", sources=(source,)), scope=scope)

    @rule(data=st.data(), since=st.none() | st.integers(-40, 60))
    def supersede(self, data: st.DataObject, since: int | None) -> None:
        if live := self.live():
            old = data.draw(st.sampled_from(live))
            scope = self.scope_of(old)
            begin = None if since is None else START + since
            self.put([Item(text=self.text(["instead"])[0], scope=scope, since=begin)], scope, [old])
            self.oracle.note("close", self.clock(), {old: self.clock() if begin is None else begin})

    @rule(data=st.data(), outer=st.booleans())
    def forget(self, data: st.DataObject, outer: bool) -> None:
        if live := self.live():
            first = data.draw(st.sampled_from(live))
            scope = "/" if outer else self.scope_of(first)
            ids = [first, *data.draw(st.sets(st.sampled_from(self.live(scope)), max_size=2))]
            wanted = self.oracle.closure(ids)
            went = self.call(lambda memory: memory.forget(ids, scope=scope))
            assert sorted(went) == sorted(wanted), f"forget({ids}) took {list(went)}, not {wanted}"
            self.oracle.note("forget", self.clock(), ids)

    @rule(data=st.data(), scope=st.sampled_from(SCOPES))
    def forget_beside(self, data: st.DataObject, scope: str) -> None:
        if beside := [id_ for id_ in self.given if id_ not in self.live(scope)]:
            id_ = data.draw(st.sampled_from(sorted(beside)))
            for verb in (self.memory.forget, self.memory.get):
                with pytest.raises(UnknownItem):
                    verb([id_], scope=scope)

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        if gone := self.gone():
            id_ = data.draw(st.sampled_from(gone))
            scope = self.scope_of(id_)
            fates = self.oracle.fates()
            sources = fates[id_].item.sources
            if sources and all(source not in fates or fates[source].gone is not None for source in sources):
                with pytest.raises(UnknownItem, match="derived only from"):
                    self.memory.restore(id_, scope=scope)
                return
            before = set(self.live())
            came = self.call(lambda memory: memory.restore(id_, scope=scope))
            self.oracle.note("restore", self.clock(), [id_])
            assert set(came) == set(self.live()) - before, f"restore({id_}) brought {list(came)}"

    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        if live := self.live():
            id_ = data.draw(st.sampled_from(live))
            self.memory.recall(self.words[id_], scope="/")  # the question is logged with the item it found
            wanted = self.oracle.closure([id_])
            scope = self.scope_of(id_)
            went = self.call(lambda memory: memory.forget(id_, scope=scope, erase=True))
            assert set(went) == wanted, f"erasing {id_} took {list(went)}, not {wanted}"
            self.oracle.note("forget", self.clock(), [id_])
            self.note_erased(wanted)

    @rule()
    def erase_all_that_is_due(self) -> None:
        gone = set(self.gone())
        assert self.call(lambda memory: memory.erase(window=0)) == len(gone)
        self.note_erased(gone)

    def note_erased(self, ids: set[int]) -> None:
        """Erased with them: whatever forgotten item has no source left that is not erased."""
        fates = self.oracle.fates()
        while more := {
            i for i, fate in fates.items()
            if i not in ids and fate.gone is not None and fate.item.sources
            and all(source in ids or source not in fates for source in fate.item.sources)
        }:  # fmt: skip
            ids = ids | more
        self.oracle.note("erase", self.clock(), ids)
        words = {self.words[id_] for id_ in ids}
        assert not (left := bytes_left(self.files(), words)), f"bytes of erased items are left: {left}"

    @rule(k=st.integers(0, 6), scope=st.sampled_from(SEEN_FROM), words=st.lists(st.sampled_from(WORDS), max_size=3))
    def recall(self, k: int, scope: str, words: list[str]) -> None:
        seen = set(self.oracle.sees(scope, self.clock()))
        text = " ".join(words)
        hits = self.memory.recall(text, k, scope=scope)
        assert {hit.item.id for hit in hits} <= seen
        assert len(hits) <= k
        assert 0 <= hits.known <= 1
        raw = ask(self.memory, text, 50, scope)
        assert {hit.item.id for hit in raw} <= seen
        stated = {hit.item.id: hit.item.text for hit in hits}
        fates = self.oracle.fates()
        assert all(fates[id_].item.text == kept for id_, kept in stated.items())

    @rule(data=st.data(), scope=st.sampled_from(SEEN_FROM), reward=st.sampled_from((-1.0, 0.0, 1.0)))
    def learn(self, data: st.DataObject, scope: str, reward: float) -> None:
        text = data.draw(st.sampled_from(WORDS))
        self.call(lambda memory: memory.learn(memory.recall(text, 2, scope=scope), reward))

    @rule(scope=st.sampled_from(SEEN_FROM), seconds=st.integers(-60, 200))
    def read_the_past(self, scope: str, seconds: int) -> None:
        when = min(START + seconds, self.clock())
        seen = self.oracle.sees(scope, when)
        assert [item.id for item in self.memory.items(scope=scope, as_of=when)] == seen, (
            f"as of {seconds} from {scope!r}"
        )
        hits = self.memory.recall("kitten fact instead harbour", 50, scope=scope, as_of=when)
        assert {hit.item.id for hit in hits} <= set(seen)

    @rule(scope=st.sampled_from(SEEN_FROM), times=st.tuples(st.integers(-60, 200), st.integers(-60, 200)))
    def diff(self, scope: str, times: tuple[int, int]) -> None:
        before, after = (min(START + t, self.clock()) for t in times)
        old, new = (set(self.oracle.sees(scope, t)) for t in (before, after))
        found = self.memory.diff(before, after, scope=scope)
        assert {item.id for item in found.added} == new - old
        assert {item.id for item in found.removed} == old - new

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds: int) -> None:
        self.clock.tick(seconds)

    @rule()
    def reopen(self) -> None:
        before = self.picture(self.memory)
        self.memory.close()
        self.memory = self.open()
        assert self.picture(self.memory) == before, "reopening changed what is remembered"

    @precondition(lambda self: self.second is None)
    @rule()
    def open_a_second_handle(self) -> None:
        self.second = self.open()

    @precondition(lambda self: self.second is not None)
    @rule()
    def both_handles_agree(self) -> None:
        assert self.second is not None
        assert self.picture(self.second) == self.picture(self.memory), "two handles on one file disagree"

    def picture(self, memory: Memory) -> list[Any]:
        """What a memory answers, to the last digit."""
        answers: list[Any] = [memory.items(scope=scope) for scope in SEEN_FROM]
        for text in ("kitten", "Ana: telescope 12?", "fact instead"):
            hits = memory.recall(text, 6, scope="/")
            answers.append([hits.known, *((hit.item.id, hit.score, dict(hit.why)) for hit in hits)])
        return answers

    # --- always -------------------------------------------------------------------------------------------------------

    @invariant()
    def every_scope_sees_what_the_oracle_sees(self) -> None:
        self.clock.tick(1)
        for scope in SEEN_FROM:
            seen = self.oracle.sees(scope, self.clock())
            assert [item.id for item in self.memory.items(scope=scope)] == seen, f"scope {scope!r}"
            assert self.memory.count(scope=scope) == len(seen)

    def teardown(self) -> None:
        try:
            self.same_calls_give_the_same_answers()
            self.bytes_are_as_stated()
        finally:
            for memory in (self.memory, self.second):
                if memory is not None:
                    memory.close()
            shutil.rmtree(self.folder)

    def same_calls_give_the_same_answers(self) -> None:
        clock = FixedClock(START)
        with self.open(self.place("again.db"), clock) as again:
            for when, verb in self.calls:
                clock.now = when
                verb(again)
            clock.now = self.clock()
            assert self.picture(again) == self.picture(self.memory), "the same calls gave other answers"

    def bytes_are_as_stated(self) -> None:
        if self.second is not None:
            self.second.close()
        self.memory.flush()
        self.memory._store.vacuum()
        stated = self.memory.nbytes
        self.memory.close()
        held = sum(file.stat().st_size for file in store_files(self.path))
        assert abs(stated - held) <= 0.01 * held, f"nbytes says {stated}, the disk {held}"


class DenseLaws(Laws):
    """The same with vectors: caches of rows must follow what is erased and added."""

    scheme = "dense"
    embedder = Words()


class PlainLaws(Laws):
    """The same with the scheme that derives nothing and ranks by words alone."""

    scheme = "bm25"


class PostgresLaws(Laws):
    """The same on a server, beside the tenants of the other runs."""

    embedder = Words()

    def place(self, name: str) -> str:
        return stores.tenant(f"{self.folder.name}-{name}")

    def files(self) -> Any:
        return stores.tables(like=f"{self.folder.name}-memory.db")

    def bytes_are_as_stated(self) -> None:
        """The tenants of all runs share the server's pages: test_postgres.py compares the bytes of one alone."""
        assert self.memory.nbytes > 0


TestLoci = Laws.TestCase
TestDense = DenseLaws.TestCase
TestBM25 = PlainLaws.TestCase
TestPostgres = PostgresLaws.TestCase
TestLoci.settings = SETTINGS
TestPostgres.settings = settings(SETTINGS, max_examples=10)
TestDense.settings = settings(SETTINGS, max_examples=20)
TestBM25.settings = settings(SETTINGS, max_examples=20)

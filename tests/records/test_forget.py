"""Forgetting: the cascade, the window in which it can be undone, and the erase that leaves no bytes."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from loci.core.clock import FixedClock
from loci.core.errors import UnknownItem
from loci.records import Hits, Item, Link, Memory, write
from loci.records.checks import START, Words
from loci.records.oracle import bytes_left, store_files


def fact(text: str, *sources: int, scope: str = "default") -> Item:
    return Item(text=text, kind="fact", sources=sources, scope=scope)


def live(memory: Memory, scope: str = "/") -> set[int]:
    return {item.id for item in memory.items(scope=scope)}


@pytest.mark.parametrize("seed", range(10))
def test_the_cascade_of_a_random_graph_is_the_least_fixed_point(seed: int) -> None:
    """Brute force: an item lives when it is verbatim and not forgotten, or derived and some source lives."""
    rng = random.Random(seed)
    with Memory(":memory:", scheme="bm25") as memory:
        sources: dict[int, tuple[int, ...]] = {}
        for n in range(60):
            some = tuple(sorted(rng.sample(sorted(sources), rng.randint(1, 3)))) if n > 8 and rng.random() < 0.8 else ()
            sources[memory.add(fact(f"fact {n}", *some) if some else f"text {n}")[0]] = some
        chosen = rng.sample(sorted(sources), 6)
        alive = set(sources) - set(chosen)
        for id_ in sorted(sources):  # sources are older than what they gave
            if id_ in alive and sources[id_] and not alive & set(sources[id_]):
                alive.discard(id_)
        went = memory.forget(chosen)
        assert live(memory) == alive
        assert set(went) == set(sources) - alive
        memory.restore(chosen_roots := [id_ for id_ in chosen if not sources[id_] or set(sources[id_]) & alive])
        if set(chosen_roots) == set(chosen):
            assert live(memory) == set(sources)


def test_restoring_what_was_derived_from_forgotten_items_alone_is_refused() -> None:
    with Memory(":memory:") as memory:
        a = memory.add("a secret")[0]
        b = memory.add(fact("from the secret", a))[0]
        memory.forget(a)
        with pytest.raises(UnknownItem, match=f"restore item {a} instead"):
            memory.restore(b)
        assert live(memory) == set()
        assert set(memory.restore(a)) == {a, b}


def test_restore_leaves_what_was_forgotten_on_its_own() -> None:
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock) as memory:
        a = memory.add("a source")[0]
        b, c = memory.add([fact("one", a), fact("two", a)])
        memory.forget(b)
        clock.tick()
        memory.forget(a)
        clock.tick()
        assert set(memory.restore(a)) == {a, c}


def test_sources_must_be_live_and_seen() -> None:
    with Memory(":memory:") as memory:
        gone, beside = memory.add("gone")[0], memory.add("beside", scope="other")[0]
        memory.forget(gone)
        for source in (gone, beside, 999, -1, 0):
            with pytest.raises(UnknownItem, match="not live in this scope"):
                memory.add(["verbatim", fact("derived", source)])
        assert not live(memory, "default"), "a refused call kept half of its items"
        inner = memory.add("inner", scope="a/b")[0]
        assert memory.add(fact("outer", inner, scope="a"), scope="a")


def test_forgetting_below_takes_what_was_derived_above() -> None:
    with Memory(":memory:") as memory:
        inner = memory.add("inner", scope="a/b")[0]
        outer = memory.add(fact("outer", inner, scope="a"), scope="a")[0]
        kept = memory.add("kept", scope="a")[0]
        assert set(memory.forget(inner, scope="a/b")) == {inner, outer}
        assert live(memory) == {kept}


def test_nothing_is_forgotten_when_one_id_is_unknown() -> None:
    with Memory(":memory:") as memory:
        ids = memory.add(["one", "two"])
        other = memory.add("three", scope="other")[0]
        for wrong in (999, other, 0, -5):
            with pytest.raises(UnknownItem, match="nothing was forgotten"):
                memory.forget([*ids, wrong])
        assert live(memory) == {*ids, other}
        with pytest.raises(TypeError, match="give ids as ints"):
            memory.forget(["1"])  # type: ignore[list-item]
        with pytest.raises(TypeError):
            memory.forget(True)
        memory.forget(ids[0])
        with pytest.raises(UnknownItem):
            memory.forget(ids[0])
        assert memory.forget([]) == []


def test_hits_and_ids_know_their_scope() -> None:
    with Memory(":memory:") as memory:
        ids = memory.add(["a kitten", "a harbour"], scope="acme/ana")
        hits = memory.recall("kitten", scope="acme")
        assert isinstance(hits, Hits)
        assert hits.ids.scope == "acme"
        assert memory.forget(hits) == ids[:1]
        assert memory.forget(ids[1:], scope="acme/ana") == ids[1:]


# --- links ------------------------------------------------------------------------------------------------------------


def linked(memory: Memory, *links: Link) -> None:
    with memory.writing() as db:
        write.link(db, 1, links, memory.now())


def names(memory: Memory, ids: list[int]) -> set[str]:
    return {link.rel for link in memory.links(ids)}


def test_links_fall_with_their_ends_and_with_those_who_vouch_and_come_back_with_them() -> None:
    with Memory(":memory:") as memory:
        x, y, s, t = memory.add(["x", "y", "s", "t"])
        linked(
            memory, Link(src=x, rel="free", dst=y), Link(src=x, rel="by s", dst=y, sources=(s,)),
            Link(src=x, rel="by both", dst=y, sources=(s, t)), Link(src=s, rel="at s", dst=x),
        )  # fmt: skip
        everything = {"free", "by s", "by both", "at s"}
        assert names(memory, [x]) == everything
        memory.forget(s)
        assert names(memory, [x]) == {"free", "by both"}
        memory.forget(x)
        assert names(memory, [y]) == set()
        memory.restore(x)
        assert names(memory, [x]) == {"free", "by both"}, "a link came back that nobody living vouches for"
        memory.restore(s)
        assert names(memory, [x]) == everything, "restoring who vouched did not bring the link back"


def test_a_link_known_only_through_an_erased_item_is_erased(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with Memory(path) as memory:
        x, y, s = memory.add(["x", "y", "s"])
        linked(memory, Link(src=x, rel="married7q9", dst=y, sources=(s,)), Link(src=x, rel="plain7q9", dst=y))
        assert set(bytes_left(store_files(path), ["married7q9"])) == {"married7q9"}
        memory.forget(s, erase=True)
        assert names(memory, [x]) == {"plain7q9"}
        assert not bytes_left(store_files(path), ["married7q9"])
        memory.forget(x)
        memory.restore(x)
        assert names(memory, [x]) == {"plain7q9"}


# --- erase ------------------------------------------------------------------------------------------------------------


def test_what_was_forgotten_before_its_only_source_is_erased_with_it(tmp_path: Path) -> None:
    path, clock = tmp_path / "memory.db", FixedClock(START)
    with Memory(path, clock=clock) as memory:
        a, other = memory.add(["the first source", "another"])
        b, c = memory.add([fact("derived7q1", a), fact("shared7q2", a, other)])
        memory.forget([b, c])
        clock.tick()
        memory.forget(a, erase=True)
        assert not bytes_left(store_files(path), ["derived7q1"]), "what only the erased item vouched for is still there"
        assert set(bytes_left(store_files(path), ["shared7q2"])) == {"shared7q2"}
        with pytest.raises(UnknownItem):
            memory.restore(b)
        assert memory.restore(c) == [c]


def test_the_window_is_kept_to_the_second() -> None:
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock, restore_window=100.0) as memory:
        first, second = memory.add(["one", "two"])
        memory.forget(first)
        clock.tick(60)
        memory.forget(second)
        clock.tick(39)
        assert memory.erase() == 0
        clock.tick(1)
        assert memory.erase() == 1
        with pytest.raises(UnknownItem, match="until it is erased"):
            memory.restore(first)
        assert memory.restore(second) == [second]


@pytest.mark.parametrize("size", [1, 40, 5_000, 300_000])
@pytest.mark.parametrize("scheme", ["loci", "dense"])
def test_no_page_of_any_file_holds_what_was_erased(size: int, scheme: str, tmp_path: Path) -> None:
    """Texts of one page and of many, among others that stay; with vectors; the scan is this test's own."""
    path = tmp_path / "memory.db"
    with Memory(path, scheme=scheme, embedder=Words()) as memory:
        stay = memory.add([f"kept{n}x7 walrus" for n in range(30)])
        words = [f"secret{n}x7" for n in range(min(size, 2000))]
        text = " ".join(words * (size // len(words)))
        id_ = memory.add(text, source="origin77x", session="session77x", meta={"note77x": "value77x"})[0]
        memory.recall("secret0x7 walrus", 50)
        memory.flush()
        words += ["origin77x", "session77x", "note77x", "value77x"]
        assert set(bytes_left(store_files(path), words)) == set(words)
        assert not memory.verify_forgotten(id_).clean
        memory.forget(id_)
        assert set(bytes_left(store_files(path), words)) == set(words), "a tombstone keeps the bytes for its window"
        memory.erase(window=0)
        assert not (left := bytes_left(store_files(path), words)), f"left: {sorted(left)[:5]}"
        receipt = memory.verify_forgotten(id_)
        assert receipt.clean, str(receipt)
        assert receipt.scanned > 0
        assert live(memory) == set(stay)
        vectors = sqlite3.connect(path).execute("SELECT count(*) FROM vector").fetchone()[0]
        assert vectors == len(stay)
    assert not bytes_left(store_files(path), words)


def test_a_question_still_in_a_handle_is_not_written_after_the_erase(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with Memory(path) as one, Memory(path) as two:
        id_ = one.add("gloobf77 is a word")[0]
        assert two.recall("what is gloobf77?")
        one.forget(id_, erase=True)
        two.add("something else")  # writes its buffered questions
    assert not bytes_left(store_files(path), ["gloobf77"])


def test_verify_says_where_it_still_is(tmp_path: Path) -> None:
    with Memory(tmp_path / "memory.db") as memory:
        id_ = memory.add("a very particular kitten")[0]
        there = memory.verify_forgotten(id_, text="a very particular kitten")
        assert not there.clean
        assert "item" in there.tables
        assert there.scanned > 0
        memory.forget(id_, erase=True)
        assert memory.verify_forgotten(id_).clean
        assert "nowhere" in str(memory.verify_forgotten(id_))
    with Memory(tmp_path / "memory.db") as memory:
        assert not memory.verify_forgotten(id_).text_known


def test_what_another_item_says_too_is_no_leak(tmp_path: Path) -> None:
    with Memory(tmp_path / "memory.db") as memory:
        one, two = memory.add(["a very particular kitten", "a very particular kitten"])
        memory.forget(one, erase=True)
        assert memory.verify_forgotten(one).clean
        assert live(memory) == {two}


def test_wipe_needs_the_name_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with Memory(path) as memory, Memory(path) as other:
        ids = memory.add(["whisper77x in a", "whisper77x in b"], scope="a")
        memory.add("whisper77x elsewhere", scope="b")
        assert len(other.recall("whisper77x", scope="a"))
        assert other.items(scope="/")
        with pytest.raises(ValueError, match="not the name of this store"):
            memory.wipe("memory.db")
        assert len(live(memory)) == 3
        memory.wipe(memory.name)
        assert live(memory) == set()
        assert not memory.recall("whisper77x", scope="/")
        assert not other.recall("whisper77x", scope="a"), "another handle still sees the past"
        assert not other.items(scope="/"), "another handle still sees the past"
        assert not bytes_left(store_files(path), ["whisper77x"])
        new = memory.add("a fresh start", scope="b")
        assert not set(new) & set(ids), "an id was used again"
        assert [hit.item.text for hit in other.recall("fresh start", scope="b")] == ["a fresh start"]
        assert not other.recall("fresh start", scope="a")


def test_erasing_in_one_handle_moves_the_vectors_of_another(tmp_path: Path) -> None:
    """One out, one in: as many rows as before, and still every row has its own vector."""
    path = tmp_path / "memory.db"
    with Memory(path, scheme="dense", embedder=Words()) as one, Memory(path, scheme="dense", embedder=Words()) as two:
        ids = one.add(["a grey kitten", "a blue harbour", "a loud violin"])
        assert two.recall("violin", 1).ids == ids[2:]
        one.forget(ids[0], erase=True)
        new = one.add("a quiet walrus")[0]
        for memory in (one, two):
            assert memory.recall("quiet walrus", 1).ids == [new]
            assert memory.recall("harbour", 1).ids == [ids[1]]


def test_a_speaker_who_was_erased_is_forgotten_by_open_handles(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with Memory(path, log_queries=False) as memory:
        memory.add(["Ana: the tea is green", "Ana: I like Rome"], session="s")
        bo = memory.add("Bo: I never drink tea", session="s")[0]
        memory.recall("does Ana tell Bo of tea?")
        memory.forget(bo, erase=True)
        before = memory.recall("does Ana tell Bo of tea?")
    with Memory(path, log_queries=False) as memory:
        after = memory.recall("does Ana tell Bo of tea?")
        assert after == before
        assert after.known == before.known

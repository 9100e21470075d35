"""Undoing a source leaves what would be there had it never written: measured by replaying the history without its calls."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from loci.core.clock import FixedClock
from loci.core.errors import UnknownItem
from loci.records import Item, Link, Memory, merge, write
from loci.records.checks import START
from loci.records.oracle import bytes_left, store_files

A, B = "user:ana", "web:example.org"


@dataclass(frozen=True)
class Call:
    """One call of a history; items are named by the number of the call that added them."""

    what: str  # add, link, learn, forget
    who: str
    text: str = ""
    at: float = START
    sources: tuple[int, ...] = ()
    supersedes: tuple[int, ...] = ()
    ends: tuple[int, int] = (0, 0)
    tick: float = 0.0


def histories(seed: int, length: int = 45) -> list[Call]:
    rng = random.Random(seed)
    calls: list[Call] = []
    for n in range(length):
        who = rng.choice((A, A, B))
        added = [at for at, call in enumerate(calls) if call.what == "add"]
        what = rng.choice(("add",) * 6 + ("link", "learn", "forget")) if len(added) > 4 else "add"
        some = rng.sample(added, min(len(added), rng.randint(1, 2)))
        tick = rng.choice((0.0, 0.0, 10.0))
        if what == "add":
            how = rng.choice(("plain", "derive", "supersede", "supersede"))
            calls.append(Call("add", who, f"{rng.choice(('kitten', 'harbour', 'violin'))} number{n}", START + rng.randint(-50, 50),
                              tuple(some) if how == "derive" else (), tuple(some) if how == "supersede" else (), tick=tick))  # fmt: skip
        elif what == "link":
            calls.append(Call("link", who, ends=(rng.choice(added), rng.choice(added)), tick=tick))
        else:
            calls.append(Call(what, who, sources=(rng.choice(added),), tick=tick))
    return calls


def play(
    memory: Memory, clock: FixedClock, calls: list[Call], without: str | None = None, praised: set[int] | None = None
) -> set[int]:
    """Make the calls, all but those of one principal and what cannot be without them; which calls praised an item.

    praised: only these do so, since what was not recalled when it was asked for could not be praised.
    """
    ids: dict[int, int] = {}
    found: set[int] = set()

    def live(numbers: tuple[int, ...]) -> list[int]:
        with memory.reading() as db:
            there = {id_ for (id_,) in db.execute("SELECT id FROM item WHERE gone IS NULL")}
        return [ids[n] for n in numbers if n in ids and ids[n] in there]

    for n, call in enumerate(calls):
        clock.tick(call.tick)
        if call.who == without:
            continue
        if call.what == "add":
            sources, old = live(call.sources), live(call.supersedes)
            if call.sources and not sources:
                continue
            item = Item(
                text=call.text,
                kind="fact" if sources else "episode",
                sources=tuple(sources),
                at=call.at,
                principal=call.who,
            )
            ids[n] = memory.add(item, supersedes=old)[0]
        elif call.what == "link":
            ends = live(call.ends)
            if len(ends) == 2:
                memory.link(ends[0], f"rel{n}", ends[1])
        elif target := live(call.sources):
            if call.what == "forget":
                memory.forget(target)
            else:
                hits = memory.recall("kitten harbour violin", 60).only(target)
                if hits and (praised is None or n in praised):
                    found.add(n)
                    memory.learn(hits, 1.0)
    return found


def seen(memory: Memory, clock: FixedClock) -> tuple[object, ...]:
    """Items with their intervals, now and at any time, and links, by text: ids differ between a memory and its replay."""
    with memory.reading() as db:
        items = {
            id_: (text, since, until)
            for id_, text, since, until in db.execute("SELECT id, text, since, until FROM item WHERE gone IS NULL")
        }
        derived = {
            (items[i][0], items[s][0])
            for i, s in db.execute("SELECT item, source FROM provenance")
            if i in items and s in items
        }
        rows = db.execute("SELECT src, rel, dst FROM link WHERE gone IS NULL").fetchall()
        links = {(items[src][0], rel, items[dst][0]) for src, rel, dst in rows if src in items and dst in items}
    return sorted(map(str, items.values())), derived, links, sorted(item.text for item in memory.items())


def remembers(memory: Memory) -> dict[str, object]:
    """What feedback left with the items that live."""
    with memory.reading() as db:
        rows = db.execute(
            """SELECT item.text, value, uses, data FROM item LEFT JOIN state ON state.name = 'item:' || item.id
               WHERE gone IS NULL AND (uses > 0 OR data IS NOT NULL)"""
        )
        return {text: (value, uses, None if data is None else bytes(data)) for text, value, uses, data in rows}


@pytest.mark.parametrize("seed", range(25))
def test_undoing_a_principal_is_a_history_without_its_calls(seed: int) -> None:
    calls = [call for call in histories(seed) if not (call.what in ("learn", "forget", "link") and call.who == B)]
    mine, other = FixedClock(START), FixedClock(START)
    with Memory(":memory:", clock=mine) as memory, Memory(":memory:", clock=other) as replay:
        praised = play(memory, mine, calls)
        play(replay, other, calls, without=B, praised=praised)
        before = mine()
        as_it_was = [item.text for item in memory.items()]
        mine.tick(10)
        other.tick(10)
        memory.undo(principal=B)
        assert seen(memory, mine) == seen(replay, other)
        assert remembers(memory) == remembers(replay)
        assert [item.text for item in memory.items(as_of=before)] == as_it_was, "the past is not as it was believed"
        again = memory.undo(principal=B)
        assert (again.forgotten, again.reopened, again.restored) == ([], [], [])


def test_the_histories_contain_what_undoing_is_about() -> None:
    """Were no interval reopened, no link lost and nothing derived forgotten, the property above would say little."""
    found = []
    for seed in range(25):
        clock = FixedClock(START)
        with Memory(":memory:", clock=clock) as memory:
            play(memory, clock, histories(seed))
            done = memory.undo(principal=B)
            with memory.reading() as db:
                derived = {i for (i,) in db.execute("SELECT DISTINCT item FROM provenance")}
            found.append(
                (
                    len(done.reopened),
                    len(done.links),
                    len(derived & set(done.forgotten)),
                    len(done.shared),
                    len(done.states),
                )
            )
    assert all(sum(column) > 10 for column in zip(*found, strict=True)), found


def test_an_interval_is_opened_only_as_far_as_nobody_else_ended_it() -> None:
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock) as memory:
        old = memory.add("lives in Rome", since=START - 100, until=START + 90)
        memory.add("lives in Oslo", at=START + 10, principal=B, supersedes=old)
        clock.tick()
        memory.add("lives in Bern", at=START + 50, principal=A, supersedes=old)
        clock.tick()
        assert memory.get(old)[0].until == START + 10
        assert memory.undo(principal=B).reopened == old
        assert memory.get(old)[0].until == START + 50
        assert memory.undo(principal=A).reopened == old
        assert memory.get(old)[0].until == START + 90
        assert [event.op for event in memory.history(old[0])] == ["add", "close", "close", "reopen", "reopen"]


def test_an_interval_that_two_ended_together_opens_with_the_last_of_them() -> None:
    with Memory(":memory:") as memory:
        old = memory.add("lives in Rome")
        memory.add([Item(text="lives in Oslo", source="x"), Item(text="in Oslo, yes", source="y")], supersedes=old)
        assert memory.undo(source="x").reopened == []
        assert memory.undo(source="y").reopened == old


def test_only_what_was_written_since_is_undone() -> None:
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock) as memory:
        early = memory.add("early", principal=B)
        clock.tick(100)
        late = memory.add(["late", "backdated"], principal=B, known=START - 500)
        memory.forget(early)
        memory.restore(early)
        assert memory.undo(principal=B, since=START + 50).forgotten == late
        assert memory.undo(principal=B, scope="other").forgotten == []
        assert str(memory.undo(principal=B)) == f"forgot {early[0]}"
        assert str(memory.undo(principal=B)) == "nothing came from there"


def test_what_was_held_is_undone_and_what_was_undone_can_be_restored() -> None:
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock, restore_window=100) as memory:
        old = memory.add("lives in Rome")
        new = memory.add("lives in Oslo", principal=B, supersedes=old)
        fact = memory.add(Item(text="Oslo it is", kind="fact", sources=tuple(new)))
        clock.tick(10)
        memory.quarantine(principal=B)
        clock.tick(10)
        done = memory.undo(principal=B)
        assert (set(done.forgotten), done.reopened) == ({*new, *fact}, old)
        assert memory.quarantined() == []
        with pytest.raises(UnknownItem, match="not in quarantine"):
            memory.release(new)
        assert set(memory.restore(new)) == {*new, *fact}
        memory.undo(principal=B)
        clock.tick(101)
        assert memory.erase() == 2


def test_undoing_for_good_leaves_no_bytes(tmp_path) -> None:
    path = tmp_path / "memory.db"
    with Memory(path) as memory:
        kept = memory.add("kept kettle")
        new = memory.add("zorblatt7 lives in qwyx99 street", principal="glimpf3:vrumpf5", supersedes=kept)
        memory.add(Item(text="fact of fnord42", kind="fact", sources=tuple(new)))
        memory.learn(memory.recall("where does zorblatt7 live?"), 1.0)
        memory.flush()
        words = ["zorblatt7", "qwyx99", "fnord42", "glimpf3"]
        assert set(bytes_left(store_files(path), words)) == set(words), "the scan cannot see what is there"
        done = memory.undo(principal="glimpf3:vrumpf5", erase=True)
        assert (done.erased, done.reopened) == (2, kept)
        assert memory.verify_forgotten(new[0]).clean
        memory.flush()
        assert not (left := bytes_left(store_files(path), words)), f"bytes left: {left}"


def test_what_sleep_merged_into_a_source_comes_back() -> None:
    with Memory(":memory:") as memory:
        first = memory.add("Ana likes green tea a lot", source="page")
        again = memory.add(["Ana likes green tea a lot!", "Ana likes green tea a lot?"], source="chat")
        own = memory.add("Ana likes green tea, a lot", source="page")
        assert memory.consolidate().merged == 3
        assert memory.items()[0].id == first[0]
        assert memory.undo(source="page").restored == again
        assert {item.id for item in memory.items()} == {*again}
        assert own[0] not in again


def test_links_go_with_the_source_that_vouched() -> None:
    with Memory(":memory:") as memory:
        x, y = memory.add(["x", "y"])
        b = memory.add("b", principal=B)[0]
        with memory.writing() as db:
            ids = write.link(
                db, 1, [Link(src=x, rel="said", dst=y, sources=(b,)), Link(src=x, rel="free", dst=y)], memory.now()
            )
        assert memory.undo(principal=B).links == ids[:1]
        assert [link.rel for link in memory.links([x])] == ["free"]


def test_a_memory_of_the_first_schema_can_be_undone() -> None:
    """Its log says less: where an interval ended before stands in the table of the past."""
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock) as memory:
        old = memory.add("lives in Rome", until=START + 90)
        clock.tick()
        memory.add("lives in Oslo", at=START + 10, principal=B, supersedes=old)
        with memory.writing() as db:
            db.execute(
                "UPDATE event SET detail = ? WHERE op = 'close'", (f'{{"until": {START + 10}, "by": [{old[0] + 1}]}}',)
            )
        memory.undo(principal=B)
        assert memory.get(old)[0].until == START + 90


def test_merged_pairs_agree_with_the_slow_form_for_many_principals() -> None:
    rng = random.Random(5)
    items = [
        Item(
            id=n,
            text=rng.choice(("Ana likes tea", "Bo likes tea")),
            trust=rng.randint(0, 1),
            principal=rng.choice((A, B, None)),
        )
        for n in range(80)
    ]
    assert merge.duplicates(items) == merge.merge_slow(items)

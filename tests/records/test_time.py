"""Two times: when it held, and when it was known. The past can be read as it was."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loci.core.clock import FixedClock, moment
from loci.core.errors import UnknownItem
from loci.records import Item, Memory
from loci.records.checks import START
from loci.records.oracle import Replay


def texts(memory: Memory, as_of: float | str | None = None) -> list[str]:
    return [item.text for item in memory.items(as_of=as_of)]


def test_a_contradiction_closes_an_interval_and_deletes_nothing() -> None:
    clock = FixedClock(moment("2024-01-10"))
    with Memory(":memory:", clock=clock) as memory:
        rome = memory.add("Ana lives in Rome", since="2020")[0]
        clock.now = moment("2024-03-01")
        oslo = memory.add("Ana lives in Oslo", since="2024-02-01", supersedes=[rome])[0]
        assert texts(memory) == ["Ana lives in Oslo"]
        assert texts(memory, "2024-02-15") == ["Ana lives in Rome"], "on that day nobody knew of Oslo yet"
        assert texts(memory, "2024-03-02") == ["Ana lives in Oslo"]
        assert memory.get(rome)[0].until == moment("2024-02-01"), "the old fact is kept, with its end"
        assert [event.op for event in memory.history(rome)] == ["add", "close"]
        assert memory.history(rome)[1].detail == {"until": moment("2024-02-01"), "by": [oslo]}
        found = memory.diff("2024-02-15", "2024-03-02")
        assert ([item.id for item in found.added], [item.id for item in found.removed]) == ([oslo], [rome])
        assert str(found) == "+ Ana lives in Oslo\n- Ana lives in Rome"
        assert str(memory.diff("2024-03-02", "2024-03-03")) == "nothing changed"


def test_an_interval_that_has_ended_is_not_opened_again() -> None:
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock) as memory:
        old = memory.add("the lease", since=START - 100, until=START - 50)[0]
        memory.add("the new lease", since=START, supersedes=[old])
        assert memory.get(old)[0].until == START - 50, "superseding at a later time made it hold longer"
        assert "the lease" not in texts(memory, START + 1)


def test_an_end_before_the_beginning_is_the_beginning() -> None:
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock) as memory:
        old = memory.add("holds from tomorrow", since=START + 100)[0]
        memory.add("no, it does not", supersedes=[old])
        assert memory.get(old)[0].until == START + 100
        clock.tick(200)
        assert texts(memory) == ["no, it does not"]


def test_what_holds_later_appears_and_goes_by_itself() -> None:
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock) as memory:
        memory.add("the sale is on", since=START + 10, until=START + 20)
        seen = []
        for _ in range(5):
            seen.append(bool(memory.recall("sale")))
            clock.tick(5)
        assert seen == [False, False, True, True, False]


def test_bounds_are_from_inclusive_until_exclusive() -> None:
    clock = FixedClock(START + 100)
    with Memory(":memory:", clock=clock) as memory:
        memory.add("x", since=START, until=START + 10, known=START)
        for when, sees in ((START - 0.001, 0), (START, 1), (START + 9.999, 1), (START + 10, 0)):
            assert len(memory.items(as_of=when)) == sees, f"at {when - START}"


def test_what_is_learned_late_is_not_in_the_past_unless_it_was_known() -> None:
    clock = FixedClock(moment("2024-01-01"))
    with Memory(":memory:", clock=clock) as memory:
        memory.add("from the archive", at="1999-05-05", known="1999-05-06")
        memory.add("told today of 1999", at="1999-05-05")
        assert texts(memory, "1999-05-05") == []
        assert texts(memory, "2000") == ["from the archive"]
        assert texts(memory, "2024-01-01") == ["from the archive", "told today of 1999"]
        assert [hit.item.text for hit in memory.recall("archive 1999", as_of="2000")] == ["from the archive"]


def test_forgetting_and_restoring_are_in_the_past_as_they_were() -> None:
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock) as memory:
        a = memory.add("a source")[0]
        memory.add(Item(text="derived", kind="fact", sources=(a,)))
        for verb in (memory.forget, memory.restore, memory.forget, memory.restore):
            clock.tick(10)
            verb(a)
        counts = [len(memory.items(as_of=START + t)) for t in (-1, 0, 9, 10, 19, 20, 29, 30, 39, 40, 99)]
        assert counts == [0, 2, 2, 0, 0, 2, 2, 0, 0, 2, 2]


def test_an_erased_item_is_not_in_the_past_either() -> None:
    clock = FixedClock(START)
    with Memory(":memory:", clock=clock) as memory:
        memory.add(["kept", "erased"])
        clock.tick(10)
        memory.forget(2, erase=True)
        assert texts(memory, START + 5) == ["kept"]
        with pytest.raises(UnknownItem):
            memory.history(2)


def test_the_epoch_is_a_time() -> None:
    with Memory(":memory:") as memory:
        memory.add(Item(text="by the call"), at=0, since=0.0)
        memory.add(Item(text="by the item", at=0.0, since=0.0), at=5.0, since=5.0)
        assert [(item.at, item.since) for item in memory.items()] == [(0.0, 0.0), (0.0, 0.0)]


@pytest.mark.parametrize("field", ["at", "since", "until", "known"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e15, "soon", True, [2024]])
@pytest.mark.parametrize("as_item", [False, True])
def test_what_is_no_time_is_refused(field: str, wrong: object, as_item: bool) -> None:
    with Memory(":memory:") as memory:
        with pytest.raises((ValueError, TypeError), match=field):
            if as_item:
                memory.add(Item(text="x", **{field: wrong}))  # type: ignore[arg-type]
            else:
                memory.add("x", **{field: wrong})  # type: ignore[arg-type]
        assert memory.count() == 0


def test_an_interval_that_ends_before_it_begins_is_refused() -> None:
    with Memory(":memory:") as memory, pytest.raises(ValueError, match="begins before it ends"):
        memory.add("x", since="2024", until="2023")


def test_supersedes_must_be_live_in_the_scope() -> None:
    with Memory(":memory:") as memory:
        other = memory.add("beside", scope="other")[0]
        for wrong in (other, 99):
            with pytest.raises(UnknownItem, match="supersede"):
                memory.add("new", supersedes=[wrong])
        assert memory.count(scope="/") == 1, "the refused call kept its item"


def test_datetimes_with_and_without_zone(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.db") as memory:
        memory.add("naive", at=datetime(2024, 5, 1, 12))  # noqa: DTZ001 - naive means UTC
        memory.add("aware", at=datetime(2024, 5, 1, 12, tzinfo=UTC))
        one, two = memory.items()
        assert one.at == two.at == moment("2024-05-01T14:00+02:00")


events = st.lists(
    st.tuples(
        st.sampled_from(("add", "known", "close", "forget", "restore", "erase")),
        st.integers(0, 30),
        st.none() | st.integers(-20, 120),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(events=events)
def test_every_moment_of_a_random_history_is_read_as_it_was(events: list[tuple[str, int, int | None]]) -> None:
    clock, oracle = FixedClock(START), Replay()
    with Memory(":memory:", clock=clock, scheme="bm25") as memory:

        def note(id_: int, **times: float | None) -> None:
            oracle.note("add", clock(), Item(text="", scope="default", id=id_, **({"known": clock()} | times)))  # type: ignore[arg-type]

        for what, pick, offset in events:
            clock.tick(4)
            when = None if offset is None else START + offset
            fates = oracle.fates()
            ids = sorted(id_ for id_, fate in fates.items() if (fate.gone is None) != (what in ("restore", "erase")))
            if what == "add":
                note(memory.add("x", since=when)[0], since=when)
            elif what == "known":
                known = clock() if when is None else min(when, clock())
                note(memory.add("x", known=known, until=when)[0], known=known, until=when)
            elif ids:
                id_ = ids[pick % len(ids)]
                if what == "close":
                    note(memory.add("y", since=when, supersedes=[id_])[0], since=when)
                    oracle.note("close", clock(), {id_: clock() if when is None else when})
                elif what == "erase":
                    memory.erase(ids=[id_])
                    oracle.note("erase", clock(), {id_})
                else:
                    (memory.forget if what == "forget" else memory.restore)(id_)
                    oracle.note(what, clock(), [id_])
        for moment_ in range(int(START) - 25, int(clock()) + 1, 2):
            assert [item.id for item in memory.items(as_of=moment_)] == oracle.sees("default", moment_), moment_ - START
        assert [item.id for item in memory.items()] == oracle.sees("default", clock())


def test_an_item_of_a_scope_below_can_be_superseded() -> None:
    with Memory(":memory:") as memory:
        (old,) = memory.add("the office is in Rome", scope="team/ana")
        (new,) = memory.add("the office is in Oslo", scope="team", supersedes=[old])
        assert memory.recall("where is the office", scope="team").ids == [new]
        assert not memory.recall("where is the office", scope="team/ana"), "its interval has ended there too"
        with pytest.raises(UnknownItem):
            memory.add("the office is in Bern", scope="team/ana", supersedes=[new])

"""What the pages read, against `Memory` itself: timelines, cascades, stock; no browser."""

import pytest

from loci.app.web.desk import Desk, Work
from loci.app.web.dryrun import trial
from loci.app.web.local import Local
from loci.app.web.reading import ENDED, FORGOTTEN, HOLDS, LATER, cascade
from loci.app.web.remote import Remote
from loci.core.clock import moment
from loci.core.errors import ReadOnly
from loci.records import Item, Memory
from tests import stores
from tests.web.trip import fill


@pytest.fixture(params=["sqlite", "postgres"])
def memory(request, tmp_path):
    path = tmp_path / "trip.db" if request.param == "sqlite" else stores.tenant()
    with Memory(fill(path)) as opened:
        yield opened


def test_a_timeline_holds_what_items_holds(memory):
    for scope in ("/", "demo/mara", "demo/bo", "nowhere"):
        for when in (None, "2023-01-01", "2023-05-10", "2023-06-01", "2024-01-09", "2024-01-11"):
            line = Local(memory).line(scope, None if when is None else moment(when), count=1000)
            expected = memory.items(scope=scope, as_of=when)
            assert {row.item.id for row in line.rows if row.state == HOLDS} == {item.id for item in expected}
            assert line.holding == len(expected)
            assert line.total == len(line.rows)


def test_a_timeline_is_in_order_whatever_is_known_of_time(tmp_path):
    with Memory(tmp_path / "mixed.db") as memory:
        memory.add("told late, long ago", at="2001-01-01")
        memory.add("no time", known="2010-01-01")
        memory.add("yesterday's news", at="2015-01-01", known="2016-01-01")
        memory.add("will be", at="2014-01-01", since="2100-01-01")
        line = Local(memory).line("/", None)
        assert [row.item.text for row in line.rows] == ["yesterday's news", "will be", "no time", "told late, long ago"]
        assert [row.state for row in line.rows] == [HOLDS, LATER, HOLDS, HOLDS]
        pages = [Local(memory).line("/", None, start=at, count=1).rows[0] for at in range(4)]
        assert pages == line.rows


def test_forgotten_and_ended_items_are_told_apart(memory):
    reading = Local(memory)
    memory.forget(12, scope="/")
    assert {row.item.id for row in reading.line("/", None, forgotten=True).rows} == {12, 28, 29}
    assert {row.state for row in reading.line("/", None, forgotten=True).rows} == {FORGOTTEN}
    assert [row.item.id for row in reading.line("/", None).rows if row.state == ENDED] == [25]


@pytest.mark.parametrize("kind", [Local, lambda memory: Remote(memory, "/")], ids=["local", "remote"])
def test_the_cascade_that_is_shown_is_the_one_that_falls(memory, kind):
    for id_ in (1, 10, 12, 27, 28, 29):
        shown = [item.id for item in cascade(kind(memory), [id_], "/")]
        assert {id_, *shown} == set(memory.forget(id_, scope="/"))
        memory.restore(id_, scope="/")


def test_a_service_is_read_through_its_verbs(memory):
    local, remote = Local(memory), Remote(memory, "/")
    assert (
        remote.stock("/") == local.stock("/") or remote.stock("/").items == local.stock("/").items - 1
    )  # the ended one
    assert remote.span("demo/mara") == local.span("demo/mara")
    assert set(remote.scopes()) <= set(local.scopes())
    assert remote.rests([12], "/") == local.rests([12], "/") == {12: [27, 28]}
    assert remote.items([12, 999], "/").keys() == local.items([12, 999], "/").keys() == {12}
    then = 1685577600.0
    assert [row.item.id for row in remote.line("/", then).rows] == [row.item.id for row in local.line("/", then).rows]


def test_a_read_only_desk_refuses_every_change(memory):
    desk = Desk(memory, Local(memory), read_only=True)
    hits = memory.recall("kitten", scope="/")
    for change in (
        lambda: desk.learn(hits, hits[0].item.id, 1.0),
        lambda: desk.forget([1], "/", erase=False),
        lambda: desk.restore(1, "/"),
        lambda: desk.erase(1),
    ):
        with pytest.raises(ReadOnly, match="--read-only"):
            change()
    assert memory.count(scope="/") == 29


def test_a_dry_run_refuses_what_is_too_big_to_copy(memory, monkeypatch):
    monkeypatch.setattr("loci.app.web.dryrun.MOST", 1000)
    with pytest.raises(ValueError, match="copies at most 1 kB"):
        trial(Local(memory), "loci", "64MB", Work())


def test_a_dry_run_finds_what_consolidation_would_do(tmp_path):
    def build(path):
        memory = Memory(path)
        memory.add([Item(text=f"Ana: my locker number {n} is {n * 7919}", scope="a") for n in range(300)], scope="a")
        memory.add(["Ana: we met in Rome", "Ana: we met in Rome"], scope="a")
        memory.flush()
        return memory

    with build(tmp_path / "one.db") as one, build(tmp_path / "two.db") as two:
        seen = trial(Local(one), "loci", "10MB", Work())
        two.consolidate(budget="10MB", scope="/")
        gone = {item.id for item in one.items(scope="/")} - {item.id for item in two.items(scope="/")}
        assert {item.id for item in [*seen.merged, *seen.dropped]} == gone == {302}
        assert seen.report.met
        assert one.count(scope="/") == 302

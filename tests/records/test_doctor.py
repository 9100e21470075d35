"""The doctor on a file: counters that fell behind, and moves that were not finished."""

import sqlite3

import pytest

from loci import Memory
from loci.records import doctor, move


@pytest.fixture
def path(tmp_path):
    with Memory(tmp_path / "a.db", scope="s") as memory:
        a, b = memory.add(["Ana: I adopted a kitten", "Bo: I sail a boat"])
        memory.link(a, "near", b)
        memory.recall("kitten")
    assert doctor.examine(tmp_path / "a.db") == []
    return tmp_path / "a.db"


@pytest.mark.parametrize("table", ["item", "link", "event", "asked"])
def test_a_counter_that_fell_behind_is_found_before_it_gives_an_id_twice(table, path):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE sqlite_sequence SET seq = 0 WHERE name = ?", (table,))
    (finding,) = doctor.repair(path)
    assert (finding.where, finding.mendable) == ("counter", True)
    assert f"ids of {table} were given up to 0, and" in finding.what
    assert doctor.examine(path) == []
    with Memory(path, scope="s") as memory:
        assert memory.add("new") == [3]


def test_an_unfinished_move_is_said_with_what_to_do(path, tmp_path, monkeypatch):
    monkeypatch.setattr(move, "_BATCH", 2)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move.move(path, tmp_path / "b.db", progress=stop)
    (finding,) = doctor.examine(tmp_path / "b.db")
    assert str(finding) == "about: a move or restore stands at line 2 (run it again, it goes on)"
    move.move(path, tmp_path / "b.db")
    assert doctor.examine(tmp_path / "b.db") == []

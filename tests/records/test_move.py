"""Moving: file to server and back is lossless to the line; killed at any point and run again, it ends the same."""

import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loci import Item, Memory
from loci.core.clock import FixedClock
from loci.core.errors import ConflictError
from loci.records import doctor, dump, exchange, move, tokens, vectors
from loci.records.dump import Extent, Part
from tests import stores
from tests.records.test_exchange import filled


def rich(path, rows=0):
    """A store with everything in it: what export writes, and what only a move carries."""
    filled(path).close()
    clock = FixedClock(2000.0)
    with Memory(path, clock=clock, embedder="hash") as memory:
        memory.embed()
        memory.add(
            "NUL \x00 and \ufdd0 and \U0001f431", scope="t/odd", once="key-1", principal="web:x", trust="untrusted"
        )
        (gone,) = memory.add("erased, so its id is never given again", scope="t/odd")
        memory.forget(gone, scope="t/odd", erase=True)
        secret, _ = tokens.create(memory, "ci", scope="t", rights=("read",))
        src, dst = memory.add(["left", "right"], scope="t/odd")
        memory.link(src, "beside", dst, scope="t/odd")
        clock.tick()
        memory.forget(dst, scope="t/odd")
        clock.tick()
        memory.restore(dst, scope="t/odd")
        for start in range(0, rows, 500):
            memory.add([f"number {n} of many kittens" for n in range(start, start + 500)], scope=f"many/{start % 1500}")
        with memory.writing() as db:
            db.execute(
                "INSERT INTO job (kind, scope, detail, total, created) VALUES ('write', 1, '{\"first\": 1, \"last\": 1}', 1, 5.0)"
            )
        memory.flush()
    return secret


def exported(path):
    out = io.StringIO()
    with Memory(path) as memory:
        exchange.export(memory, out)
    return out.getvalue().split("\n")


def every(path):
    """All lines that a store has, read by `dump`; a test of its own holds dump itself against the raw tables."""
    with Memory(path) as memory, memory.reading() as db:
        return [*map(json.dumps, dump.lines(Part(db), Extent.MOVE))], dump.used(db)


def test_file_to_server_and_back_is_lossless(tmp_path):
    secret = rich(tmp_path / "a.db")
    before = (tmp_path / "a.db").read_bytes()
    url = stores.tenant()
    there = move.move(tmp_path / "a.db", url)
    back = move.move(url, tmp_path / "b.db")
    assert there.digest == back.digest
    assert (tmp_path / "a.db").read_bytes() == before, "the source was changed"
    assert exported(tmp_path / "a.db") == exported(url) == exported(tmp_path / "b.db")
    assert every(tmp_path / "a.db") == every(url) == every(tmp_path / "b.db")
    for place in (url, tmp_path / "b.db"):
        assert doctor.examine(place) == []
        with Memory(place, embedder="hash", scope="t/odd") as memory, Memory(tmp_path / "a.db", embedder="hash") as old:
            assert tokens.find(memory, secret).name == "ci"
            assert memory.add("NUL", once="key-1") == old.add("NUL", once="key-1", scope="t/odd")  # told, not added
            assert (
                memory.recall("left kitten", as_of=2001.0).ids
                == old.recall("left kitten", scope="t/odd", as_of=2001.0).ids
            )
            assert memory.embed() == 0, "vectors were not brought"
            assert len(memory.jobs(scope="/", waiting=True)) == 1
            assert memory.add("new")[0] == max(item.id for item in old.items(scope="/")) + 1


def test_the_tables_themselves_are_equal(tmp_path):
    """Raw SQL against raw SQL, so that what dump would leave out is seen."""
    rich(tmp_path / "a.db")
    url = stores.tenant()
    move.move(tmp_path / "a.db", url)
    move.move(url, tmp_path / "b.db")
    left, right = (sqlite3.connect(tmp_path / name) for name in ("a.db", "b.db"))
    try:
        tables = [name for (name,) in left.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in set(tables) - {"about", "sqlite_sequence"}:
            names = [row[1] for row in left.execute(f"PRAGMA table_info({table})")]
            names = [name for name in names if (table, name) not in {("vector", "id"), ("asked", "id")}]
            of = [sorted(map(repr, db.execute(f"SELECT {', '.join(names)} FROM {table}"))) for db in (left, right)]
            if table == "posting":  # entries of one list may stand in another order
                of = [[(t, s, c, sorted(np.frombuffer(e, "<u2").reshape(-1, 3).tolist())) for t, s, c, e in
                       db.execute("SELECT term, scope, chunk, entries FROM posting ORDER BY 1, 2, 3")] for db in (left, right)]  # fmt: skip
            assert of[0] == of[1], table
    finally:
        left.close()
        right.close()


CHILD = """
import sys
from loci.records import move
move._BATCH = 50
def said(done, total):
    print(done, total, flush=True)
    if sys.argv[4] == "waits" and done >= int(sys.argv[3]):
        sys.stdin.readline()  # held between two batches until it is killed
move.move(sys.argv[1], sys.argv[2], progress=said)
"""


@pytest.mark.parametrize("to", ["server", "file"])
def test_killed_in_the_middle_and_run_again(to, tmp_path):
    rich(tmp_path / "a.db", rows=1500)
    target = stores.tenant() if to == "server" else str(tmp_path / "b.db")
    last = 0
    for stop, how in ((150, "waits"), (400, "runs"), (900, "runs"), (1200, "waits")):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "a.db"), target, str(stop), how],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        seen = []
        for line in child.stdout:
            done, total = map(int, line.split())
            seen.append(done)
            assert done <= total
            if done >= stop:
                break
        child.kill()  # one that runs is killed wherever it is: in a transaction, or between two
        child.communicate()
        assert child.returncode == -9
        assert seen == sorted(seen)
        assert seen[0] > last, "it began anew"
        last = seen[-1]
        assert [finding.where for finding in doctor.examine(target)] == ["about"]
    done = move.move(tmp_path / "a.db", target)
    assert done.already >= 1200
    assert not done.again
    assert every(target) == every(tmp_path / "a.db")
    assert doctor.examine(target) == []
    assert move.move(tmp_path / "a.db", target).digest == done.digest  # again: nothing is written
    assert every(target) == every(tmp_path / "a.db")


@pytest.mark.parametrize("to", ["server", "file"])
def test_a_source_that_changed_meanwhile_is_moved_as_it_is_now(to, tmp_path, monkeypatch):
    rich(tmp_path / "a.db", rows=500)
    target = stores.tenant() if to == "server" else tmp_path / "b.db"
    monkeypatch.setattr(move, "_BATCH", 100)

    def stop(done, total):
        if done >= 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move.move(tmp_path / "a.db", target, progress=stop)
    with Memory(tmp_path / "a.db") as memory:
        memory.forget(1, scope="t/ana")  # before the place where the move stands
    done = move.move(tmp_path / "a.db", target)
    assert done.again
    assert "begun anew" in str(done)
    assert every(target) == every(tmp_path / "a.db")
    assert doctor.examine(target) == []


def test_writers_of_the_source_are_not_kept_waiting(tmp_path, monkeypatch):
    rich(tmp_path / "a.db", rows=500)
    monkeypatch.setattr(move, "_BATCH", 200)
    wanted = exported(tmp_path / "a.db")
    with Memory(tmp_path / "a.db") as writer:
        move.move(tmp_path / "a.db", tmp_path / "b.db", progress=lambda *_: writer.add("meanwhile", scope="w"))
        assert writer.count(scope="w") >= 3
    assert exported(tmp_path / "b.db") == wanted, "it is not one snapshot"


def test_what_is_refused_is_left_as_it_is(tmp_path):
    rich(tmp_path / "a.db")
    with Memory(tmp_path / "used.db") as memory:
        memory.add("mine")
    with pytest.raises(ValueError, match="holds 1 items and a history of its own, nothing was written"):
        move.move(tmp_path / "a.db", tmp_path / "used.db")
    assert len(exported(tmp_path / "used.db")) == 5
    for bad in ("http://127.0.0.1:8787", "https://x.example"):
        with pytest.raises(ValueError, match="is the address of a server; give the file or the postgresql:// URL"):
            move.move(bad, tmp_path / "b.db")
        with pytest.raises(ValueError, match="is the address of a server"):
            move.move(tmp_path / "a.db", bad)
    with pytest.raises(ValueError, match="goes when it is closed"):
        move.move(tmp_path / "a.db", ":memory:")
    with pytest.raises(ValueError, match="is the store itself"):
        move.move(tmp_path / "a.db", tmp_path / "a.db")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        move.move(tmp_path / "none.db", tmp_path / "b.db")
    with pytest.raises(ValueError, match="holds nothing"):
        move.move(stores.tenant(), tmp_path / "b.db")
    assert not (tmp_path / "none.db").exists()
    with Memory(tmp_path / "keyed.db") as memory:
        tokens.create(memory, "mine")
    with pytest.raises(ValueError, match="has tokens of its own"):
        move.move(tmp_path / "a.db", tmp_path / "keyed.db")


def test_another_move_s_target_and_a_finished_one_in_use(tmp_path, monkeypatch):
    rich(tmp_path / "a.db", rows=500)
    with Memory(tmp_path / "c.db") as memory:
        memory.add("another")
    monkeypatch.setattr(move, "_BATCH", 100)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move.move(tmp_path / "a.db", tmp_path / "b.db", progress=stop)
    with pytest.raises(ValueError, match="unfinished move of another store"):
        move.move(tmp_path / "c.db", tmp_path / "b.db")
    move.move(tmp_path / "a.db", tmp_path / "b.db")
    with Memory(tmp_path / "b.db") as memory:
        memory.add("in use")
    with pytest.raises(ValueError, match="finished move .* changed since, nothing was written"):
        move.move(tmp_path / "a.db", tmp_path / "b.db")
    with Memory(tmp_path / "b.db") as memory:
        assert memory.count() == 1


def test_two_runs_of_one_move_do_not_mix(tmp_path, monkeypatch):
    rich(tmp_path / "a.db", rows=500)
    monkeypatch.setattr(move, "_BATCH", 100)
    second = []

    def meanwhile(done, total):
        if not second:
            second.append(move.move(tmp_path / "a.db", tmp_path / "b.db"))

    with pytest.raises(ConflictError, match="another run of this move"):
        move.move(tmp_path / "a.db", tmp_path / "b.db", progress=meanwhile)
    assert every(tmp_path / "b.db") == every(tmp_path / "a.db")


def test_a_target_that_others_write_to_is_told(tmp_path):
    rich(tmp_path / "a.db")

    def meddle(done, total):
        with Memory(tmp_path / "b.db") as memory:
            memory.add("meddled", scope="m")

    with pytest.raises(ConflictError, match="written to meanwhile"):
        move.move(tmp_path / "a.db", tmp_path / "b.db", progress=meddle)


def test_one_tenant_moves_and_its_neighbours_do_not(tmp_path):
    mine, other = stores.tenant(), stores.tenant()
    with Memory(mine) as memory, Memory(other) as neighbour:
        memory.add("mine alone")
        neighbour.add("the neighbour's")
    move.move(mine, tmp_path / "b.db")
    assert "neighbour" not in "\n".join(exported(tmp_path / "b.db"))
    target = stores.tenant()
    move.move(mine, target)
    assert exported(target) == exported(mine)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_an_import_into_a_store_in_use_moves_ids_in_the_log_too(engine, tmp_path):
    clock = FixedClock(1000.0)
    with Memory(tmp_path / "a.db", clock=clock) as memory:
        job = memory.add("Ana: I work at the bakery", scope="s")
        clock.tick()
        memory.add("Ana: I work at the museum", scope="s", supersedes=job)
        memory.add("Ana likes it", scope="s")
        memory.link(3, "about", 2, scope="s")
        out = io.StringIO()
        exchange.export(memory, out)
    (tmp_path / "a.jsonl").write_text(out.getvalue())
    target = stores.tenant() if engine == "postgres" else tmp_path / "b.db"
    with Memory(target, clock=clock) as memory:
        memory.add([Item(text=f"mine {n}") for n in range(5)])
        assert exchange.load(memory, tmp_path / "a.jsonl", scope="in") == 3
        (closed,) = [event for event in memory.history(6, scope="in") if event.op == "close"]
        assert closed.detail["by"] == [7]
        (link,) = memory.links(7, scope="in")
        assert (link.src, link.dst) == (8, 7)
        with memory.reading() as db:
            details = [json.loads(detail) for (detail,) in db.execute("SELECT detail FROM event WHERE op = 'link'")]
        assert details == [{"links": [link.id, link.id]}]
    assert doctor.examine(target) == []


def test_an_export_of_an_older_loci_is_taken_in(tmp_path):
    rich(tmp_path / "a.db")
    rows = [json.loads(line) for line in exported(tmp_path / "a.db") if line]
    for row in rows:
        if "item" in row:
            for name in ("principal", "trust", "held"):
                del row["item"][name]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if "unlinked" not in row))
    for target in (tmp_path / "b.db", stores.tenant()):
        with Memory(target) as memory:
            assert exchange.load(memory, tmp_path / "old.jsonl") == rows[0]["items"]
            assert {(item.principal, item.trust, item.held) for item in memory.items(scope="/")} == {(None, 1, False)}
        assert doctor.examine(target) == []


def test_many_vectors_are_indexed_where_the_engine_can(tmp_path, monkeypatch):
    psycopg = pytest.importorskip("psycopg")
    rich(tmp_path / "a.db")
    monkeypatch.setattr(vectors, "EXACT", 3)
    url = stores.tenant()
    with psycopg.connect(stores.server(), autocommit=True) as login:
        login.execute("CREATE DATABASE indexed")
        url = stores.server().replace("/postgres?", "/indexed?") + "&tenant=a"
    move.move(tmp_path / "a.db", url)
    with psycopg.connect(url.replace("&tenant=a", "")) as login:
        found = login.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'vector' AND indexdef LIKE '%hnsw%'")
        assert len(found.fetchall()) == 1
    move.move(url, url.replace("tenant=a", "tenant=b"))  # on one server: it must not wait for itself
    with psycopg.connect(stores.server(), autocommit=True) as login:
        login.execute("DROP DATABASE indexed WITH (FORCE)")


def test_every_line_is_documented(tmp_path):
    rich(tmp_path / "a.db")
    text = (Path(__file__).resolve().parents[2] / "docs" / "schema.md").read_text("utf-8")
    with Memory(tmp_path / "a.db") as memory, memory.reading() as db:
        kinds = {next(iter(line)) for line in dump.lines(Part(db), Extent.MOVE)}
        assert dump.header(Part(db), Extent.BACKUP, "x").keys() == {"loci", "items", "store", "used"}
    assert len(kinds) >= 14
    assert {kind for kind in kinds if f'{{"{kind}":' not in text} == set()

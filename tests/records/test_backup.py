"""Backup and restore: taken while others write, whole or not there at all, and the same store when it comes back."""

import gzip
import json
import sqlite3
import subprocess
import sys

import pytest

from loci import Memory
from loci.core.errors import NotAStore, StoreError
from loci.records import backup as vault
from loci.records import doctor, dump, tokens
from loci.records.dump import Extent, Part
from tests import stores
from tests.records.test_move import every, exported, rich


def said(path, extent):
    with Memory(path) as memory, memory.reading() as db:
        return [*map(json.dumps, dump.lines(Part(db), extent))]


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if ".part" in path.name)


def test_a_copy_is_the_store(tmp_path):
    secret = rich(tmp_path / "a.db")
    done = vault.backup(tmp_path / "a.db", tmp_path / "b.db")
    assert (done.kind, done.bytes) == ("copy", (tmp_path / "b.db").stat().st_size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "b.db"]
    wanted = every(tmp_path / "a.db")
    before = (tmp_path / "b.db").read_bytes()
    again = vault.restore(tmp_path / "b.db", tmp_path / "c.db")
    assert again.items == done.items
    assert (tmp_path / "b.db").read_bytes() == before, "restoring changed the backup"
    assert every(tmp_path / "c.db") == wanted
    with Memory(tmp_path / "c.db", scope="t/odd") as memory, Memory(tmp_path / "a.db") as old:
        assert memory.name == old.name
        assert tokens.find(memory, secret) is not None
        with memory.reading() as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",), "readers would wait for writers"
        assert memory.recall("left", as_of=2001.0).ids == old.recall("left", scope="t/odd", as_of=2001.0).ids


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
@pytest.mark.parametrize("name", ["b.jsonl", "b.jsonl.gz"])
@pytest.mark.parametrize("into", ["sqlite", "postgres"])
def test_lines_are_the_store_without_tokens_and_vectors(engine, name, into, tmp_path):
    source = stores.tenant() if engine == "postgres" else tmp_path / "a.db"
    secret = rich(source)
    done = vault.backup(source, tmp_path / name)
    assert done.kind == "lines"
    raw = (tmp_path / name).read_bytes()
    text = gzip.decompress(raw) if name.endswith(".gz") else raw
    assert b'"token"' not in text
    assert b'"vector"' not in text
    with Memory(source) as memory, memory.reading() as db:
        (hashed,) = db.execute("SELECT hash FROM token").fetchone()
    assert hashed.encode() not in text
    target = stores.tenant() if into == "postgres" else tmp_path / "c.db"
    moved = vault.restore(tmp_path / name, target)
    assert moved.counts["item"] == done.items
    assert exported(target) == exported(source)
    assert said(target, Extent.BACKUP) == said(source, Extent.BACKUP)
    assert doctor.examine(target) == []
    with Memory(target, embedder="hash", scope="t/odd") as memory, Memory(source, embedder="hash") as old:
        assert tokens.find(memory, secret) is None
        assert memory.embed() > 0  # vectors are made again
        assert memory.add("NUL", once="key-1") == old.add("NUL", once="key-1", scope="t/odd")
        for when in (1000.0, 1001.5, 2001.0, None):
            assert [(i.id, i.text) for i in memory.items(scope="/", as_of=when)] == [
                (i.id, i.text) for i in old.items(scope="/", as_of=when)
            ]
        highest = max(item.id for item in old.items(scope="/"))
        assert memory.add("new")[0] == highest + 1


def test_the_same_store_gives_the_same_bytes(tmp_path):
    rich(tmp_path / "a.db")
    for name in ("1.jsonl.gz", "2.jsonl.gz"):
        vault.backup(tmp_path / "a.db", tmp_path / name)
    assert (tmp_path / "1.jsonl.gz").read_bytes() == (tmp_path / "2.jsonl.gz").read_bytes()


WRITER = """
import sys
from loci import Memory
with Memory(sys.argv[1], scope="w") as memory:
    turn = 0
    while True:
        memory.add([f"turn {turn} part {part}" for part in range(3)])
        turn += 1
        print(turn, flush=True)
"""


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_backup_while_another_process_writes_is_one_moment(engine, tmp_path):
    source = stores.tenant() if engine == "postgres" else str(tmp_path / "a.db")
    child = subprocess.Popen([sys.executable, "-c", WRITER, source], stdout=subprocess.PIPE, text=True)
    try:
        seen = []
        for turn in range(4):
            acknowledged = int(child.stdout.readline())
            name = tmp_path / (f"{turn}.db" if engine == "sqlite" and turn % 2 else f"{turn}.jsonl")
            vault.backup(source, name)
            target = tmp_path / f"{turn}.restored.db"
            vault.restore(name, target)
            with Memory(target, scope="w") as memory:
                texts = [item.text for item in memory.items()]
            assert len(texts) % 3 == 0, "half of a call was kept"
            assert texts == [f"turn {n} part {part}" for n in range(len(texts) // 3) for part in range(3)]
            assert len(texts) >= 3 * acknowledged, "what was acknowledged before the backup is not in it"
            seen.append(len(texts))
            assert doctor.examine(target) == []
        assert seen == sorted(seen)
        assert child.poll() is None, "the writer was stopped by a backup"
    finally:
        child.kill()
        child.communicate()


def test_a_target_that_cannot_be_is_refused_and_nothing_is_left(tmp_path):
    rich(tmp_path / "a.db")
    (tmp_path / "there.db").write_text("mine")
    for name, error, match in (
        ("there.db", ValueError, "exists; give a new name"),
        ("a.db", ValueError, "belongs to the store"),
        ("a.db-wal", ValueError, "belongs to the store"),
        ("a.db-shm", ValueError, "belongs to the store"),
        ("no/b.db", StoreError, "folder .* does not exist"),
    ):
        with pytest.raises(error, match=match):
            vault.backup(tmp_path / "a.db", tmp_path / name)
    with pytest.raises(ValueError, match="exists; give a new name"):
        vault.restore(tmp_path / "a.db", tmp_path / "there.db")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        vault.backup(tmp_path / "none.db", tmp_path / "b.db")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        vault.restore(tmp_path / "none.db", tmp_path / "b.db")
    with pytest.raises(ValueError, match="address of a server"):
        vault.backup("http://127.0.0.1:1", tmp_path / "b.db")
    assert (tmp_path / "there.db").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "there.db"]


FULL = """
import resource, sys
from pathlib import Path
from loci.core.errors import StorageFull
from loci.records import backup as vault
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    vault.backup(sys.argv[1], Path(sys.argv[2]))
except StorageFull as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["b.db", "b.jsonl"])
def test_a_full_disk_leaves_no_half_backup(name, tmp_path):
    """The system's own limit on a file's size stands for the end of the disk."""
    rich(tmp_path / "a.db", rows=1000)
    size = (tmp_path / "a.db").stat().st_size
    limit = size // 2 if name.endswith(".db") else 100_000
    code = [sys.executable, "-c", FULL, str(tmp_path / "a.db"), str(tmp_path / name), str(limit)]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.stderr == ""
    assert "nothing of this call was kept" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "a.db-wal" and path.name != "a.db-shm") == [
        "a.db"
    ]
    assert doctor.examine(tmp_path / "a.db") == []


SLOW = """
import sys
from pathlib import Path
from loci.records import backup as vault, dump
dump.PAGE = 20
def hold(done, total):
    print("at", done, flush=True)
    sys.stdin.readline()
vault.backup(sys.argv[1], Path(sys.argv[2]), as_lines=True, progress=hold)
"""


def test_a_backup_that_was_killed_has_no_name(tmp_path):
    rich(tmp_path / "a.db", rows=500)
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path / "a.db"), str(tmp_path / "b.jsonl")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout.readline().startswith("at ")
    child.kill()
    child.communicate()
    assert not (tmp_path / "b.jsonl").exists()
    assert len(leftovers(tmp_path)) == 1  # the run book says that it may be deleted
    vault.backup(tmp_path / "a.db", tmp_path / "b.jsonl")
    vault.restore(tmp_path / "b.jsonl", tmp_path / "c.db")
    assert exported(tmp_path / "c.db") == exported(tmp_path / "a.db")


RESTORES = """
import sys
from pathlib import Path
from loci.records import backup as vault, move
move._BATCH = 40
def hold(done, total):
    print(done, flush=True)
    if done >= 200:
        sys.stdin.readline()
vault.restore(Path(sys.argv[1]), sys.argv[2], progress=hold)
"""


@pytest.mark.parametrize("into", ["sqlite", "postgres"])
def test_a_restore_that_was_killed_goes_on(into, tmp_path):
    rich(tmp_path / "a.db", rows=500)
    vault.backup(tmp_path / "a.db", tmp_path / "b.jsonl.gz")
    target = stores.tenant() if into == "postgres" else str(tmp_path / "c.db")
    child = subprocess.Popen(
        [sys.executable, "-c", RESTORES, str(tmp_path / "b.jsonl.gz"), target],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while int(child.stdout.readline()) < 200:
        pass
    child.kill()
    child.communicate()
    assert "run it again" in str(doctor.examine(target)[0])
    done = vault.restore(tmp_path / "b.jsonl.gz", target)
    assert done.already == 200
    assert exported(target) == exported(tmp_path / "a.db")
    assert doctor.examine(target) == []


def test_never_over_what_holds_anything(tmp_path):
    rich(tmp_path / "a.db")
    vault.backup(tmp_path / "a.db", tmp_path / "b.jsonl")
    vault.backup(tmp_path / "a.db", tmp_path / "b.db")
    used = stores.tenant()
    for target in (used, tmp_path / "used.db"):
        with Memory(target) as memory:
            memory.add("mine")
    for source, target in (("b.jsonl", used), ("b.jsonl", tmp_path / "used.db"), ("b.db", used)):
        with pytest.raises(ValueError, match="holds 1 items and a history of its own, nothing was written"):
            vault.restore(tmp_path / source, target)
    for target in (used, tmp_path / "used.db"):
        with Memory(target) as memory:
            assert [item.text for item in memory.items(scope="/")] == ["mine"]


@pytest.mark.parametrize("name", ["cut.jsonl", "cut.jsonl.gz", "broken.jsonl", "note.txt", "cut.db"])
def test_a_broken_backup_makes_nothing(name, tmp_path):
    rich(tmp_path / "a.db", rows=200)
    kind = name.split(".", 1)[1] if name != "note.txt" else "jsonl"
    vault.backup(tmp_path / "a.db", tmp_path / f"b.{kind}")
    raw = (tmp_path / f"b.{kind}").read_bytes()
    if name == "broken.jsonl":
        lines = raw.split(b"\n")
        raw = b"\n".join([*lines[:9], b"{broken", *lines[9:]])
    (tmp_path / name).write_bytes(
        b"dear diary" if name == "note.txt" else raw if name == "broken.jsonl" else raw[: len(raw) // 3]
    )
    with pytest.raises((ValueError, NotAStore)):
        vault.restore(tmp_path / name, tmp_path / "c.db")
    assert not (tmp_path / "c.db").exists()
    assert leftovers(tmp_path) == []


def test_a_copy_restores_onto_a_server(tmp_path):
    secret = rich(tmp_path / "a.db")
    vault.backup(tmp_path / "a.db", tmp_path / "b.db")
    url = stores.tenant()
    done = vault.restore(tmp_path / "b.db", url)
    assert done.counts["vector"] > 0
    assert every(url) == every(tmp_path / "a.db")
    with Memory(url) as memory:
        assert tokens.find(memory, secret) is not None


def test_a_damaged_store_gives_no_backup(tmp_path):
    rich(tmp_path / "a.db")
    db = sqlite3.connect(tmp_path / "a.db")
    db.execute("DELETE FROM posting WHERE term = 'kitten' OR term LIKE 'mis%'")
    db.execute("UPDATE scope SET items = items + 1")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="not sound .* run loci doctor on the store"):
        vault.backup(tmp_path / "a.db", tmp_path / "b.db")
    assert leftovers(tmp_path) == []
    doctor.repair(tmp_path / "a.db")
    assert vault.backup(tmp_path / "a.db", tmp_path / "b.db").items > 5

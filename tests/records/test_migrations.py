"""Every released schema opens, and nothing in it is lost; the documented commands read it without loci."""

import hashlib
import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from loci import Memory
from loci.core.errors import NotAStore
from loci.records import doctor, schema

HERE = Path(__file__).parent / "fixtures"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "schema.md"


def test_there_is_a_file_of_every_schema():
    assert sorted(path.name for path in HERE.glob("schema*.db")) == [
        f"schema{n}.db" for n in range(1, schema.VERSION + 1)
    ]


@pytest.mark.parametrize("name", [path.name for path in sorted(HERE.glob("schema*.db"))])
def test_an_old_file_opens_and_loses_nothing(name, tmp_path):
    path = tmp_path / name
    shutil.copy(HERE / name, path)
    with Memory(path) as memory:
        assert [hit.item.text for hit in memory.recall("where does Ana work?", k=1, scope="acme/ana")] == [
            "Ana: I work at the museum"
        ]
        then = memory.recall("where does Ana work?", k=1, scope="acme/ana", as_of=1_700_000_030)
        assert then[0].item.text == "Ana: I work at the bakery"
        assert memory.count(scope="/") == 3
        assert memory.restore([5], scope="acme/bo") == [5]
        memory.forget([5], scope="acme/bo")
    assert doctor.examine(path) == []
    if name == f"schema{schema.VERSION}.db":
        shutil.copy(HERE / name, path)
        with sqlite3.connect(path) as db:
            for table, (count, digest) in json.loads((HERE / name).with_suffix(".json").read_text()).items():
                rows = [
                    [c.hex() if isinstance(c, bytes) else c for c in row]
                    for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
                ]
                assert (len(rows), hashlib.sha256(json.dumps(rows).encode()).hexdigest()) == (count, digest), table


def tables(path, columns=None):
    """Every table of a file: its columns and rows, as sqlite3 alone reads them; of the given columns where they are given."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {}
        for name in names:
            of = [row[1] for row in db.execute(f"PRAGMA table_info({name})")]
            wanted = of if columns is None else columns.get(name, [])
            assert set(wanted) <= set(of), f"{name} lost {set(wanted) - set(of)}"
            if wanted:
                found[name] = wanted, sorted(map(repr, db.execute(f"SELECT {', '.join(wanted)} FROM {name}")))
        return found
    finally:
        db.close()


@pytest.mark.parametrize("name", [path.name for path in sorted(HERE.glob("schema*.db"))])
def test_every_table_is_the_same_around_the_migration_and_the_copy_before_it_opens(name, tmp_path):
    path = tmp_path / name
    shutil.copy(HERE / name, path)
    before = tables(HERE / name)
    assert sum(len(rows) for _, rows in before.values()) > 40
    with Memory(path) as memory, memory.reading() as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        if name != f"schema{schema.VERSION}.db":
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    after = tables(path, {table: columns for table, (columns, _) in before.items()})
    assert {table: rows for table, (_, rows) in after.items()} == {table: rows for table, (_, rows) in before.items()}
    copy = tmp_path / f"{name}.{name.removesuffix('.db')}.bak"
    assert copy.exists() == (name != f"schema{schema.VERSION}.db")
    if copy.exists():
        assert tables(copy) == before
        shutil.copy(copy, tmp_path / "again.db")
        with Memory(tmp_path / "again.db") as memory, Memory(path) as migrated:
            assert memory.items(scope="/") == migrated.items(scope="/")
            hits = [one.recall("where does Ana work?", scope="acme/ana") for one in (memory, migrated)]
            assert [(h.item.id, h.score) for h in hits[0]] == [(h.item.id, h.score) for h in hits[1]]


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.db"
    with Memory(path) as memory:
        memory.add("kept")
    monkeypatch.setattr(schema, "LADDER", (*schema.LADDER, "CREATE TABLE item (id INTEGER);"))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(Exception, match="already exists"):
        Memory(path)
    monkeypatch.undo()
    assert (tmp_path / f"a.db.schema{schema.VERSION}.bak").exists()
    with Memory(path) as memory:
        assert [item.text for item in memory.items()] == ["kept"]


def test_a_ladder_is_climbed_rung_by_rung(tmp_path, monkeypatch):
    path = tmp_path / "a.db"
    with Memory(path) as memory:
        memory.add("kept")
    monkeypatch.setattr(
        schema,
        "LADDER",
        (*schema.LADDER, "ALTER TABLE item ADD COLUMN extra TEXT;", "CREATE TABLE more (id INTEGER) STRICT;"),
    )
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 2)
    with Memory(path) as memory:
        assert [item.text for item in memory.items()] == ["kept"]
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert db.execute("SELECT extra FROM item").fetchall() == [(None,)]


def test_a_newer_file_is_refused(tmp_path):
    path = tmp_path / "a.db"
    Memory(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(NotAStore, match="upgrade loci"):
        Memory(path)


def test_the_documented_commands_read_the_file_without_loci():
    commands = re.findall(r"```sql\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert len(commands) == 4
    with sqlite3.connect(f"file:{HERE / 'schema1.db'}?mode=ro&immutable=1", uri=True) as db:
        found = [db.execute(command).fetchall() for command in commands]
    assert [row[4] for row in found[0]] == [
        "Ana: I adopted a kitten",
        "Ana: I work at the bakery",
        "Ana has a kitten",
        "Ana: I work at the museum",
    ]
    assert ("Ana: I work at the bakery",) not in found[1]
    assert found[2] == [("Ana has a kitten", "Ana: I adopted a kitten")]
    assert [row[2] for row in found[3]][:3] == ["add", "add", "add"]

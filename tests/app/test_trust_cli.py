"""Containing a source from the command line, as its users run it."""

import json
import subprocess
import sys

import pytest

from loci import Memory

PAGE = ("--principal", "web:example.org")


def loci(*args):
    done = subprocess.run([sys.executable, "-m", "loci", *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def trip(tmp_path):
    path = tmp_path / "trip.db"
    with Memory(path) as memory:
        old = memory.add("Ana lives in Porto")
        memory.add("Ana lives in Lyon", principal="web:example.org", source="page", supersedes=old)
    return path


def test_quarantine_lists_holds_and_releases(trip):
    assert loci("quarantine", trip) == (0, "nothing is held\n", "")
    assert loci("quarantine", trip, *PAGE) == (0, "held 2\n", "")
    assert loci("quarantine", trip)[1] == "#2  Ana lives in Lyon\n"
    code, out, _ = loci("quarantine", trip, "--json")
    assert [item["id"] for item in json.loads(out)["held"]] == [2]
    assert loci("quarantine", trip, *PAGE) == (1, "nothing came from there\n", "")
    assert loci("quarantine", trip, "--release", 2) == (0, "released 2\n", "")
    code, out, error = loci("quarantine", trip, "--release", 2)
    assert (code, out) == (2, "")
    assert (
        error
        == "loci: items [2] are not in quarantine in this scope, nothing was released; give ids that quarantined() lists\n"
    )
    assert loci("quarantine", trip, "--release", 2, *PAGE)[0] == 2


def test_undo_opens_what_was_superseded(trip):
    assert loci("undo", trip, "--source", "pag") == (1, "nothing came from there\n", "")
    assert loci("undo", trip, "--source", "page", "--since", "2100-01-01")[0] == 1
    code, out, _ = loci("undo", trip, "--source", "page", "--erase", "--json")
    assert code == 0
    assert json.loads(out) == {
        "forgotten": [2],
        "reopened": [1],
        "restored": [],
        "shared": [],
        "links": [],
        "states": [],
        "erased": 1,
    }
    assert "Ana lives in Porto" in loci("recall", trip, "where does Ana live?")[1]
    code, out, error = loci("undo", trip)
    assert (code, out) == (2, "")
    assert error == "loci: neither principal nor source was given; say whose items are meant\n"


def test_what_is_added_says_who_said_it_and_how_far_it_is_trusted(trip):
    assert loci("add", trip, "Ana lives on a lighthouse", *PAGE, "--trust", "untrusted")[0] == 0
    with Memory(trip) as memory:
        found = memory.items()[-1]
        assert (found.principal, found.trust) == ("web:example.org", 0)
    code, _, error = loci("add", trip, "Ana", "--trust", "high")
    assert code == 2
    assert "is not a level; choose untrusted, ordinary, owner" in error


def test_they_make_no_file(tmp_path):
    for command in ("quarantine", "undo"):
        code, _, error = loci(command, tmp_path / "none.db", *PAGE)
        assert code == 2
        assert "does not exist" in error
    assert list(tmp_path.iterdir()) == []

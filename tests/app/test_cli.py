"""The command line as its users run it: exit codes, JSON, help that fits a screen, files that are not made by reading."""

import json
import sqlite3
import subprocess
import sys

import pytest


def loci(*args, cwd=None, stdin=None, env=None):
    done = subprocess.run(
        [sys.executable, "-m", "loci", *map(str, args)], capture_output=True, text=True, cwd=cwd, input=stdin, env=env
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def trip(tmp_path):
    path = tmp_path / "trip.db"
    code, out, _ = loci(
        "add", path, "Ana: I adopted a kitten", "Bo: I sail a boat", "--session", "1", "--at", "2023-05-03"
    )
    assert (code, out) == (0, "1 2\n")
    return path


def test_recall_says_why_and_how_sure(trip):
    code, out, _ = loci("recall", trip, "what did Ana adopt?", "--why", "-k", "1")
    assert code == 0
    assert "Ana: I adopted a kitten  (2023-05-03)" in out
    assert "words" in out
    assert "known" in out
    code, out, _ = loci("recall", trip, "what did Ana adopt?", "--json")
    found = json.loads(out)
    assert found["hits"][0]["id"] == 1
    assert sum(found["hits"][0]["why"].values()) == pytest.approx(found["hits"][0]["score"])


def test_nothing_found_is_exit_code_1(trip):
    assert loci("recall", trip, "zebra")[0] == 1


def test_reading_makes_no_file(tmp_path):
    for command in ("recall", "history", "stats", "export", "doctor", "consolidate", "diff"):
        args = {"recall": ["x"], "history": ["1"], "diff": ["2020", "2021"]}.get(command, [])
        code, out, error = loci(command, tmp_path / "none.db", *args)
        assert (code, out) == (2, ""), command
        assert error.startswith("loci: ")
        assert "does not exist" in error
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_forget_restore_erase_history_diff(trip):
    assert loci("forget", trip, "1")[1] == "forgot 1\n"
    assert loci("forget", trip, "1")[0] == 2
    assert loci("forget", trip, "1", "--restore")[1] == "restored 1\n"
    code, out, _ = loci("history", trip, "1", "--json")
    assert [event["op"] for event in json.loads(out)] == ["add", "forget", "restore"]
    code, out, _ = loci("diff", trip, "2020-01-01", "2999-01-01")
    assert "+ Ana: I adopted a kitten" in out
    code, out, _ = loci("forget", trip, "1", "--erase")
    assert code == 0
    assert "item 1: nowhere in the store" in out
    assert b"adopted a kitten" not in trip.read_bytes()


def test_export_import_stats(trip, tmp_path):
    assert loci("export", trip, tmp_path / "out.jsonl")[0] == 0
    code, out, _ = loci("import", tmp_path / "b.db", tmp_path / "out.jsonl", "--json")
    assert json.loads(out)["added"] == 2
    assert json.loads(loci("stats", tmp_path / "b.db", "--json")[1])["items"] == 2
    assert loci("export", trip, tmp_path / "out.jsonl")[0] == 2  # never over a file
    (tmp_path / "notes.md").write_text("# Pets\n\nMiso is a cat.\n")
    assert json.loads(loci("import", trip, tmp_path / "notes.md", "--json")[1]) == {
        "added": 1,
        "skipped": 0,
        "total": 1,
    }
    assert json.loads(loci("import", trip, tmp_path / "notes.md", "--json")[1])["skipped"] == 1


def test_consolidate_and_doctor(trip):
    code, out, _ = loci("consolidate", trip, "--json")
    assert code == 0
    assert json.loads(out)["met"] is True
    assert loci("consolidate", trip, "--budget", "1kB")[0] == 1
    assert loci("doctor", trip)[:2] == (0, "healthy\n")
    with sqlite3.connect(trip) as db:
        db.execute("DELETE FROM posting WHERE term = 'kitten'")
    code, out, _ = loci("doctor", trip, "--json")
    assert code == 1
    assert json.loads(out)["findings"][0]["where"] == "posting"
    assert loci("doctor", trip, "--repair")[0] == 0
    assert loci("recall", trip, "kitten")[0] == 0


def test_stdin_and_supersedes(tmp_path):
    path = tmp_path / "a.db"
    assert loci("add", path, "-", stdin="Bo: I live in Rome\nBo: I like tea é\n")[1] == "1 2\n"
    assert loci("add", path, "Bo: I live in Kiel", "--supersedes", "1")[0] == 0
    out = json.loads(loci("recall", path, "where does Bo live?", "--json")[1])
    assert "Bo: I live in Rome" not in [hit["text"] for hit in out["hits"]]


@pytest.mark.parametrize(
    "args",
    [
        ("add", "{0}", "x", "--scope", "a//b"),
        ("add", "{0}", "x", "--at", "yesterday"),
        ("recall", "{0}", "x", "-k", "-1"),
        ("consolidate", "{0}", "--budget", "lots"),
        ("forget", "{0}", "99"),
        ("show", "spoon"),
        ("claim", "spoon"),
        ("bench", "recall", "/nowhere"),
        ("bench", "recall", ".", "--k", "x"),
        ("recall", "{0}", "x", "--scheme", "spoon"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(trip, args):
    code, out, error = loci(*(arg.format(trip) for arg in args))
    assert (code, out) == (2, "")
    assert error.startswith("loci: ")
    assert error.count("\n") == 1


def test_a_foreign_file_is_refused_and_left(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("dear diary")
    code, _, error = loci("add", path, "x")
    assert code == 2
    assert "is not a loci store" in error
    assert path.read_text() == "dear diary"


def test_the_catalogue():
    rows = json.loads(loci("list", "--json")[1])
    assert {"loci", "bm25", "dense", "hipporag2"} <= {row["name"] for row in rows if row["kind"] == "scheme"}
    assert "hipporag2" in loci("list", "scheme")[1]
    assert "arXiv:2502.14802" in loci("show", "hipporag2")[1]
    assert loci("list", "spoon")[0] == 1


COMMANDS = (
    "", "add", "recall", "forget", "history", "diff", "consolidate", "import", "export", "stats", "doctor", "demo", "bench",
    "bench recall", "list", "show", "claim", "learn", "quarantine", "undo", "backup", "restore", "move", "serve", "token",
    "token new", "token list", "token revoke", "mcp", "view",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen(command):
    code, out, _ = loci(*command.split(), "--help")
    assert code == 0
    assert len(out.splitlines()) <= (40 if command == "" else 26)  # the list of all commands is one page
    assert max(map(len, out.splitlines())) <= 80


def test_the_demo_runs_on_its_own_conversation_and_leaves_one_file(tmp_path):
    import os

    env = os.environ | {"LOCI_DATA": str(tmp_path / "none")}
    code, out, error = loci("demo", cwd=tmp_path, env=env)
    assert (code, error) == (0, "")
    assert "Mara: I adopted a kitten" in out
    assert "nowhere in the store" in out
    assert [path.name for path in tmp_path.iterdir()] == ["demo.db"]
    assert loci("demo", cwd=tmp_path, env=env)[0] == 2  # it does not write over a file


def test_bench_recall_on_folders_of_both_shapes(tmp_path):
    talk = {
        "sample_id": "t", "conversation": {
            "speaker_a": "Ana", "speaker_b": "Bo", "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [{"speaker": "Ana", "dia_id": "D1:1", "text": "I adopted a kitten"}, {"speaker": "Bo", "dia_id": "D1:2", "text": "Nice boat"}],
        },
        "qa": [{"question": "What did Ana adopt?", "evidence": ["D:1:01"], "category": 4}, {"question": "What did Bo adopt?", "evidence": ["D1:1"], "category": 5}],
    }  # fmt: skip
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk" / "any.json").write_text(json.dumps([talk]))
    found = json.loads(loci("bench", "recall", tmp_path / "talk", "--json", "--k", "1,10")[1])
    assert (found["questions"], found["r@1"], found["known_auroc"]) == (1, 100.0, 1.0)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "corpus.jsonl").write_text(
        '{"id": 7, "title": "Miso", "text": "A cat."}\n{"id": 8, "title": "Bo", "text": "A man."}\n'
    )
    (tmp_path / "docs" / "queries.jsonl").write_text('{"question": "who is Miso?", "gold_ids": [7]}\n')
    for scheme in ("loci", "bm25", "hipporag2"):
        found = json.loads(loci("bench", "recall", tmp_path / "docs", "--json", "--scheme", scheme)[1])
        assert found["r@5"] == 100.0
        assert {
            "dataset",
            "scheme",
            "embedder",
            "questions",
            "r@5",
            "r@10",
            "by_category",
            "known_auroc",
            "ingest_per_s",
            "recall_p50_ms",
            "recall_p95_ms",
            "bytes",
        } <= set(found)

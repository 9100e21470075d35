"""Export and import: identity, offsets, resuming, refusals. The store is read by sqlite3 alone."""

import io
import json
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loci import Item, Memory
from loci.core.clock import FixedClock
from loci.records import doctor, exchange


def filled(path):
    clock = FixedClock(1000.0)
    memory = Memory(path, clock=clock)
    talk = memory.add(
        ["Ana: I adopted Miso \u2028 é 猫", "Bo: fine"],
        scope="t/ana",
        session="1",
        at="2023-01-01",
        meta={"k": [1, None]},
    )
    clock.tick()
    memory.add([Item(text="Ana has a cat", kind="fact", sources=(talk[0],), pinned=True)], scope="t/ana")
    memory.add("Bo: better", scope="t/ana", supersedes=[talk[1]])
    memory.link(1, "likes", 3, scope="t/ana")
    memory.learn(memory.recall("who adopted?", k=1, scope="t/ana"), 1.0)
    clock.tick()
    memory.forget(memory.add("a secret", scope="t/bo"))
    memory.flush()
    return memory


def exported(memory, scope="/"):
    out = io.StringIO()
    exchange.export(memory, out, scope=scope)
    return out.getvalue()


def test_export_then_import_is_identity(tmp_path):
    with filled(tmp_path / "a.db") as a, Memory(tmp_path / "b.db") as b:
        lines = exported(a)
        (tmp_path / "a.jsonl").write_text(lines, "utf-8")
        assert exchange.load(b, tmp_path / "a.jsonl") == 5
        assert exported(b) == lines
        for question in ("who adopted a cat?", "how is Bo?"):
            assert [(h.item.id, h.score) for h in b.recall(question, scope="t", as_of=1002.0)] == [
                (h.item.id, h.score) for h in a.recall(question, scope="t", as_of=1002.0)
            ]
        assert exchange.load(b, tmp_path / "a.jsonl") == 0  # again adds nothing
        new = b.add("later", scope="t")
        assert new[0] > 5  # ids are not used again
    for name in ("a.db", "b.db"):
        assert doctor.examine(tmp_path / name) == []
    tables = ("item", "past", "provenance", "link", "link_source", "state", "asked", "scope")
    for table in tables:
        rows = [
            sorted(map(repr, sqlite3.connect(tmp_path / name).execute(f"SELECT * FROM {table}")))
            for name in ("a.db", "b.db")
        ]
        if table != "item":
            assert rows[0] == rows[1] or table in ("scope",), table


def test_into_another_store_under_a_scope(tmp_path):
    with filled(tmp_path / "a.db") as a, Memory(tmp_path / "b.db") as b:
        (tmp_path / "a.jsonl").write_text(exported(a, "t/ana"), "utf-8")
        mine = b.add("mine")
        assert exchange.load(b, tmp_path / "a.jsonl", scope="in") == 4
        assert exchange.load(b, tmp_path / "a.jsonl", scope="in") == 0
        found = {item.text: item for item in b.items(scope="in")}
        assert found["Ana has a cat"].sources == (found["Ana: I adopted Miso \u2028 é 猫"].id,)
        assert found["Ana has a cat"].pinned
        assert {item.scope for item in found.values()} == {"in/t/ana"}
        assert "a secret" not in exported(b)
        (link,) = b.links([found["Ana has a cat"].id], scope="in")
        assert (link.src, link.rel) == (found["Ana: I adopted Miso \u2028 é 猫"].id, "likes")
        assert b.forget(found["Ana: I adopted Miso \u2028 é 猫"].id, scope="in") == [link.src, link.dst]
        assert [item.id for item in b.items()] == mine
    assert doctor.examine(tmp_path / "b.db") == []


def test_an_import_that_was_cut_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "_BATCH", 3)
    with filled(tmp_path / "a.db") as a, Memory(tmp_path / "b.db") as b:
        lines = exported(a)
        (tmp_path / "a.jsonl").write_text(lines, "utf-8")
        calls = []

        def stop(done, total):
            calls.append(done)
            if len(calls) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            exchange.load(b, tmp_path / "a.jsonl", progress=stop)
        exchange.load(b, tmp_path / "a.jsonl")
        assert exported(b) == lines


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: ["not an export"], "is not an export of loci"),
        (lambda lines: lines[:4], "it was cut short"),
        (lambda lines: [*lines[:3], "{broken", *lines[3:]], "line 4 is not JSON"),
        (lambda lines: ['{"loci": 99, "items": 0}'], "upgrade loci"),
    ],
)
def test_a_broken_file_is_refused_before_anything_is_written(tmp_path, change, says):
    with filled(tmp_path / "a.db") as a, Memory(tmp_path / "b.db") as b:
        (tmp_path / "a.jsonl").write_text("\n".join(change(exported(a).split("\n")[:-1])) + "\n", "utf-8")
        with pytest.raises(ValueError, match=says):
            exchange.load(b, tmp_path / "a.jsonl")
        assert b.items(scope="/") == []


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(words, st.sampled_from(["a", "a/b", "c"]), st.dictionaries(words, words, max_size=2)), max_size=6
    )
)
def test_any_text_survives(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("x")
    with Memory(folder / "a.db") as a, Memory(folder / "b.db") as b:
        for text, scope, meta in rows:
            a.add(text, scope=scope, meta=meta)
        (folder / "a.jsonl").write_text(exported(a), "utf-8", newline="\n")
        exchange.load(b, folder / "a.jsonl")
        assert [(item.text, item.scope, dict(item.meta)) for item in b.items(scope="/")] == rows


def test_every_line_is_json_with_the_text_as_given(tmp_path):
    with filled(tmp_path / "a.db") as a:
        rows = [json.loads(line) for line in exported(a).split("\n") if line]
    assert rows[0] == {"loci": 1, "items": 5}
    assert [row["item"]["text"] for row in rows if "item" in row][0] == "Ana: I adopted Miso \u2028 é 猫"

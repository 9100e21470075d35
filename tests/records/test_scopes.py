"""Scopes: what is at or under a path is seen, what is beside it never, in any verb and with any text for a path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loci.core.errors import ConflictError, UnknownItem
from loci.records import Changes, Hits, Item, Memory, Plain
from loci.records.checks import Words
from loci.records.schemes.bm25 import BM25
from loci.records.scope import covers, scope

HOSTILE = (
    "a' OR '1'='1", 'a" --', "a; DROP TABLE item", "a%", "a_", "%", "_", "a*", "a?", "[a]", "a\\b", "a b", "a'||'b", "NULL", "0", "A",
    "a\u0301", "\u00e1", "\U0001f408", "..a", "a..", "a.b", "\u732b/\u72ac", "ab", "a0", "a-", "a!", "a/b c/d",
)  # fmt: skip


def test_hostile_paths_are_scopes_like_any_other() -> None:
    with Memory(":memory:", scheme="bm25") as memory:
        paths = sorted({scope(path) for path in (*HOSTILE, "a", "a/b", "a/b/c")})
        ids = {path: memory.add(f"kitten of {n}", scope=path)[0] for n, path in enumerate(paths)}
        for path in paths:
            wanted = sorted(id_ for inner, id_ in ids.items() if inner == path or inner.startswith(path + "/"))
            assert [item.id for item in memory.items(scope=path)] == wanted, path
            assert sorted(memory.recall("kitten", 99, scope=path).ids) == wanted, path
        assert len(memory.items(scope="/")) == len(paths)
        for path in paths:
            memory.forget(ids[path], scope=path)
        assert memory.count(scope="/") == 0


def test_one_way_to_write_a_path() -> None:
    assert scope("a\u0301/b") == scope("/\u00e1/b/")
    with Memory(":memory:") as memory:
        ids = memory.add("x", scope="/a\u0301/b/")
        assert memory.get(ids, scope="\u00e1/b")[0].scope == "\u00e1/b"


@pytest.mark.parametrize(
    "path",
    ["", "//", "a//b", "a/../b", ".", "..", "a/.", " ", "a/ /b", "a\x00b", "a\nb", "\ud800", "x" * 1025, "a/\u0085"],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with Memory(":memory:") as memory:
        memory.add("x", scope="a")
        verbs: list[Callable[[], object]] = [
            lambda: memory.add("y", scope=path), lambda: memory.recall("x", scope=path), lambda: memory.items(scope=path),
            lambda: memory.forget(1, scope=path), lambda: memory.consolidate(scope=path), lambda: Memory(":memory:", scope=path),
            lambda: memory.add(Item(text="y", scope=path), scope="/"),
        ]  # fmt: skip
        for verb in verbs:
            with pytest.raises(ValueError, match="is not a slash path"):
                verb()
        assert memory.count(scope="/") == 1
    with pytest.raises(TypeError, match="give a slash path"):
        scope(5)  # type: ignore[arg-type]


segments = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=4).filter(
    lambda part: "/" not in part and part.strip() not in {"", ".", ".."}
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(paths=st.lists(st.lists(segments, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8))
def test_any_paths_are_apart(paths: list[str]) -> None:
    with Memory(":memory:", scheme="bm25", log_queries=False) as memory:
        held = [(scope(path), memory.add("kitten", scope=path)[0]) for path in paths]
        for path in {of for of, _ in held}:
            wanted = sorted(id_ for of, id_ in held if of.split("/")[: len(path.split("/"))] == path.split("/"))
            assert [item.id for item in memory.items(scope=path)] == wanted


def test_covers_is_the_definition() -> None:
    for outer, inner, seen in (
        ("/", "a", True), ("a", "a", True), ("a", "a/b", True), ("a/b", "a", False), ("a", "ab", False), ("a", "/", False), ("a", "a0", False),
    ):  # fmt: skip
        assert covers(outer, inner) is seen


def test_no_verb_reaches_beside() -> None:
    with Memory(":memory:", embedder=Words()) as memory:
        mine = memory.add("my kitten", scope="me")[0]
        other = memory.add("your kitten is secret", scope="you")[0]
        memory.forget(gone := memory.add("your lost kitten", scope="you")[0], scope="you")
        for verb in (memory.get, memory.forget, memory.restore):
            for id_ in (other, gone):
                with pytest.raises(UnknownItem):
                    verb(id_, scope="me")
        with pytest.raises(UnknownItem):
            memory.history(other, scope="me")
        with pytest.raises(UnknownItem):
            memory.link(mine, "likes", other, scope="me")
        with pytest.raises(UnknownItem):
            memory.add("newer", scope="me", supersedes=[other])
        assert memory.links(other, scope="me") == []
        assert {hit.item.id for hit in memory.recall("kitten secret", 9, scope="me")} == {mine}
        found = memory.diff(0, memory.now(), scope="me")
        assert {item.id for item in found.added + found.removed} == {mine}
        assert [item.id for item in memory.items(scope="you")] == [other]


def test_items_lie_at_or_under_the_scope_of_the_call() -> None:
    with Memory(":memory:", scope="acme") as memory:
        with pytest.raises(ValueError, match="lies outside"):
            memory.add(["fine", Item(text="x", scope="other")])
        assert memory.count(scope="/") == 0
        memory.add(
            [Item(text="x", scope="acme/ana"), Item(text="y", scope="acme/bo"), Item(text="z", scope="acme/ana"), "w"]
        )
        assert [item.scope for item in memory.items()] == ["acme/ana", "acme/bo", "acme/ana", "acme"]


def test_feedback_does_not_cross(tmp_path: object) -> None:
    """Praise in one scope changes no score in another."""
    with Memory(":memory:") as memory:
        for path in ("a", "b"):
            memory.add(["a grey kitten", "a blue kitten", "a kitten in Rome"], scope=path)
        before = list(memory.recall("kitten", scope="b"))
        for _ in range(30):
            hits = memory.recall("kitten", scope="a")
            memory.learn(hits.only(hits.ids[-1:]), 1.0)
        assert list(memory.recall("kitten", scope="b")) == before
        assert all(item.uses == 0 for item in memory.items(scope="b"))


class Reaches(BM25):
    """A scheme that wants to change what it does not see."""

    def __init__(self, changes: Changes) -> None:
        self.changes = changes

    def learn(self, hits: Hits, reward: float, view: object) -> Changes:
        return self.changes


@pytest.mark.parametrize(
    "changes",
    [Changes(forget=[1]), Changes(close={1: 5.0}), Changes(value={1: (9.0, 9)})],
    ids=["forget", "close", "value"],
)
def test_the_store_refuses_changes_beside(changes: Changes) -> None:
    with Memory(":memory:", scheme=Reaches(changes)) as memory:
        memory.add("a kitten", scope="other")
        memory.add("a kitten", scope="mine")
        before = memory.items(scope="other")
        with pytest.raises(ConflictError):
            memory.learn(memory.recall("kitten", scope="mine"), 1.0)
        assert memory.items(scope="other") == before


def test_sleep_does_not_cross() -> None:
    with Memory(":memory:", scheme=Plain2()) as memory:
        memory.add(["the same words here", "the same words here", "the same words here"], scope="a")
        memory.add(["the same words here", "the same words here"], scope="b")
        before = memory.items(scope="b")
        report = memory.consolidate(scope="a", budget=1)
        assert report.merged == 2
        assert memory.items(scope="b") == before


class Plain2(BM25, Plain):
    """BM25 under another name, to be given as an object."""

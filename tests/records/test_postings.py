"""The lexical index against BM25 written a second time, and against bm25s; what it costs is counted, not timed."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loci.core.clock import FixedClock
from loci.core.rng import generator
from loci.records import Memory, analysis, postings

K1, B = 1.2, 0.75
VOCABULARY = [f"term{letter}q{n}" for n, letter in enumerate("abcdefghijklmnopqrst")]


def brute_force(texts: dict[int, list[str]], query: list[str], k1: float = K1, b: float = B) -> dict[int, float]:
    """Robertson and Zaragoza with the idf of Lucene, straight from the definition."""
    n = len(texts)
    mean = sum(len(text) for text in texts.values()) / n if n else 1.0
    scores = {}
    for id_, text in texts.items():
        counts = Counter(text)
        total = 0.0
        for term in dict.fromkeys(query):
            have = sum(term in other for other in texts.values())
            if counts[term]:
                idf = math.log(1 + (n - have + 0.5) / (have + 0.5))
                total += idf * counts[term] * (k1 + 1) / (counts[term] + k1 * (1 - b + b * len(text) / mean))
        if total:
            scores[id_] = total
    return scores


def store_scores(
    memory: Memory, query: str, scope: str | None = None, k1: float = K1, b: float = B
) -> dict[int, float]:
    with memory.reading() as db:
        view = memory.view(db, scope or memory.scope)
        scores = view.lexical(query, k1=k1, b=b)
        return {int(id_): float(score) for id_, score in zip(view.ledger.ids, scores, strict=True) if score}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=12), min_size=1, max_size=6)),
        st.tuples(st.just("erase"), st.integers(0, 10**6)),
        st.tuples(st.just("dated"), st.lists(st.sampled_from(VOCABULARY), max_size=3)),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    steps=steps,
    query=st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=5),
    k1=st.sampled_from((0.9, 1.2, 2.0)),
)
def test_scores_equal_brute_force_after_adds_and_erases(
    steps: list[tuple[str, object]], query: list[str], k1: float
) -> None:
    texts: dict[int, list[str]] = {}
    with Memory(":memory:", scheme="bm25", log_queries=False) as memory:
        for what, detail in steps:
            if what == "add":
                new = [" ".join(words) for words in detail]  # type: ignore[union-attr, attr-defined]
                texts |= {id_: analysis.tokens(text) for id_, text in zip(memory.add(new), new, strict=True)}
            elif what == "dated":
                text = " ".join(detail)  # type: ignore[arg-type]
                (id_,) = memory.add(text, at="2023-05-03")
                texts[id_] = [*analysis.tokens(text), "3", "may", "2023"]
            elif texts:
                id_ = sorted(texts)[detail % len(texts)]  # type: ignore[operator]
                memory.forget(id_, erase=True)
                del texts[id_]
        found, wanted = (
            store_scores(memory, " ".join(query), k1=k1),
            brute_force(texts, analysis.query_tokens(" ".join(query)), k1),
        )
        assert found.keys() == wanted.keys()
        assert all(math.isclose(found[id_], wanted[id_], rel_tol=1e-9) for id_ in wanted)
        hits = memory.recall(" ".join(query), 100)
        if k1 == K1 and len({analysis.tokens(hit.item.text)[0] for hit in hits}) == len(hits):
            assert [hit.score for hit in hits] == pytest.approx(
                sorted((wanted[hit.item.id] for hit in hits), reverse=True)
            )


def corpus(seed: int, count: int) -> list[str]:
    rng = generator(seed, "corpus")
    return [" ".join(rng.choice(VOCABULARY, size=int(rng.integers(1, 30)))) for _ in range(count)]


def test_scores_equal_bm25s() -> None:
    bm25s = pytest.importorskip("bm25s")
    texts = corpus(1, 300)
    tokens = [analysis.tokens(text) for text in texts]
    peer = bm25s.BM25(method="lucene", k1=K1, b=B)
    peer.index(tokens, show_progress=False)
    with Memory(":memory:", scheme="bm25") as memory:
        ids = memory.add(texts)
        for query in (VOCABULARY[:1], VOCABULARY[2:5], VOCABULARY[7:15]):
            terms = analysis.query_tokens(" ".join(query))
            wanted = peer.get_scores(terms) * (K1 + 1)  # bm25s leaves the constant factor of Lucene 8 and later out
            found = store_scores(memory, " ".join(query))
            assert [found.get(id_, 0.0) for id_ in ids] == pytest.approx(wanted.tolist(), rel=1e-4, abs=1e-5)


def test_entries_span_rows_and_saturate() -> None:
    texts = corpus(2, 9000)  # three rows of 4096 ids
    with Memory(":memory:", scheme="bm25") as memory:
        ids = memory.add(texts)
        memory.add(["termaq0 " * 70_000, "termaq0 alone"], scope="long")
        held = dict(zip(ids, map(analysis.tokens, texts), strict=True))
        with memory.reading() as db:
            lists = postings.read(db, list(memory.view(db, "default").ledger.scopes), ["termaq0"])
            rows = db.execute("SELECT count(*) FROM posting WHERE term = 'termaq0'").fetchone()[0]
        found, tf, length = lists["termaq0"]
        assert rows == 3 + 1
        assert found.tolist() == [id_ for id_, text in held.items() if "termaq0" in text]
        assert tf.tolist() == [held[id_].count("termaq0") for id_ in found.tolist()]
        assert length.tolist() == [len(held[id_]) for id_ in found.tolist()]
        with memory.reading() as db:
            lists = postings.read(db, list(memory.view(db, "long").ledger.scopes), ["termaq0"])
        assert lists["termaq0"][1].tolist() == [65535, 1], "a count beyond 16 bits saturates"
        long = memory.items(scope="long")[0].id
        memory.forget(long, scope="long", erase=True)
        with memory.reading() as db:
            assert db.execute("SELECT items, tokens FROM scope WHERE path = 'long'").fetchone() == (1, 2)


def test_statistics_return_to_zero_when_all_is_erased() -> None:
    with Memory(":memory:", scheme="bm25") as memory:
        ids = memory.add([*corpus(3, 50), "", "the of", "?!"], at=0.0)
        memory.forget(ids, erase=True)
        with memory.reading() as db:
            assert db.execute("SELECT count(*) FROM posting").fetchone() == (0,)
            assert db.execute("SELECT items, tokens FROM scope").fetchall() == [(0, 0)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    parts=st.lists(st.tuples(st.sampled_from(("a", "a/b", "a/c", "ab", "z")), st.lists(st.sampled_from(VOCABULARY[:6]), max_size=5)), min_size=1, max_size=15)
)  # fmt: skip
def test_a_scope_is_scored_by_its_own_statistics(parts: list[tuple[str, list[str]]]) -> None:
    """What lies beside a scope changes no score; several scopes under one are scored as one collection."""
    query = " ".join(VOCABULARY[:3])
    with Memory(":memory:", scheme="bm25") as memory:
        held = {memory.add(" ".join(words), scope=scope)[0]: (scope, words) for scope, words in parts}
        for scope in ("a", "a/b", "ab", "/"):
            inside = {
                id_: analysis.tokens(" ".join(words))
                for id_, (of, words) in held.items()
                if scope == "/" or of == scope or of.startswith(scope + "/")
            }
            assert store_scores(memory, query, scope) == pytest.approx(
                brute_force(inside, analysis.query_tokens(query))
            )


def test_many_scopes_are_read_as_one() -> None:
    with Memory(":memory:", scheme="bm25") as memory:
        ids = [memory.add(f"termaq0 number{n}x7", scope=f"team/u{n}")[0] for n in range(230)]  # beyond one IN list
        beside = memory.add("termaq0 beside", scope="other")[0]
        found = store_scores(memory, "termaq0", "team")
        assert set(found) == set(ids)
        assert beside not in found
        assert len(set(found.values())) == 1


# --- cost -------------------------------------------------------------------------------------------------------------


def steps_of(memory: Memory, query: str, scope: str) -> int:
    """Virtual machine steps that SQLite takes to answer a question: an exact count, the same on every machine."""
    memory.recall(query, scope=scope)  # caches are warm
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    reader = memory._store.reader
    reader.set_progress_handler(count, 1)
    try:
        memory.recall(query, scope=scope)
    finally:
        reader.set_progress_handler(None, 1)
    return steps


def test_a_question_costs_the_same_however_much_others_keep(tmp_path: Path) -> None:
    def cost(others: int) -> int:
        with Memory(tmp_path / f"{others}.db", scheme="bm25", log_queries=False, clock=FixedClock(1.7e9)) as memory:
            memory.add(corpus(4, 50), scope="mine")
            if others:
                for n in range(10):
                    memory.add(corpus(5 + n, others // 10), scope=f"other/{n}")
            return steps_of(memory, " ".join(VOCABULARY[:4]), "mine")

    alone, crowded = cost(0), cost(5000)
    assert alone > 100, "the steps were not counted"
    assert crowded == alone, f"{alone} steps alone, {crowded} beside 5000 items of others"


def test_posting_lists_are_found_by_their_key(tmp_path: Path) -> None:
    """Every statement of a warm question goes through an index: no table is scanned but the scopes themselves."""
    with Memory(tmp_path / "m.db", scheme="bm25", log_queries=False) as memory:
        memory.add(corpus(6, 50), scope="mine")
        memory.recall("termaq0", scope="mine")
        said: list[str] = []
        memory._store.reader.set_trace_callback(said.append)
        memory.recall("termaq0 termbq1", scope="mine")
        memory._store.reader.set_trace_callback(None)
        plans = [
            (sql, row[3])
            for sql in said
            if sql.startswith("SELECT")
            for row in memory._store.reader.execute(f"EXPLAIN QUERY PLAN {sql}")
        ]
        assert any("posting" in sql for sql, _ in plans)
        scans = [(sql, plan) for sql, plan in plans if plan.startswith("SCAN") and "json_each" not in plan]
        assert not scans, f"scanned: {scans}"


def test_rows_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    """The store's posting table, decoded by hand, is exactly what the texts say."""
    texts = corpus(7, 200)
    with Memory(tmp_path / "m.db", scheme="bm25") as memory:
        ids = memory.add(texts)
        memory.forget(ids[::3], erase=True)
    wanted = {
        (term, id_): count
        for id_, text in zip(ids, texts, strict=True)
        if id_ not in ids[::3]
        for term, count in Counter(analysis.tokens(text)).items()
    }
    db = sqlite3.connect(tmp_path / "m.db")
    found = {
        (term, chunk * 4096 + int(low)): int(tf)
        for term, chunk, entries in db.execute("SELECT term, chunk, entries FROM posting")
        for low, tf, _ in np.frombuffer(entries, "<u2").reshape(-1, 3)
    }
    db.close()
    assert found == wanted


@pytest.mark.parametrize("scope", ["team", "/"])
def test_hundreds_of_scopes_are_read_together(tmp_path: Path, scope: str) -> None:
    with Memory(tmp_path / "m.db", scheme="bm25") as memory:
        mine = [memory.add(f"a kitten number {n}", scope=f"team/u{n}")[0] for n in range(230)]
        theirs = [memory.add(f"another kitten {n}", scope=f"rest/u{n}")[0] for n in range(230)]
        wanted = mine if scope == "team" else mine + theirs
        assert sorted(memory.recall("kitten", 500, scope=scope).ids) == wanted
        assert memory.recall("kitten 7", 1, scope="team").ids == [mine[7]]

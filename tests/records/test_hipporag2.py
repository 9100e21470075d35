"""HippoRAG 2 by its card: seeds by hand, dense fallback, incremental equals batch, deletion gives back what was."""

import json

import numpy as np
import pytest

from loci import Item, Memory
from loci.core.errors import LLMError
from loci.ports.llm_scripted import ScriptedLLM
from loci.records.schemes.hipporag2 import Graph, HippoRAG2, _minmax, seeds

A = [
    ("Ana works for Acme", [["Ana", "works for", "Acme"]]),
    ("Acme sits in Lyon", [["Acme", "sits in", "Lyon"], ["ACME", "sits in", "Lyon!"]]),
]
B = [("Bo works for Acme too", [["Bo", "works for", "Acme"], ["Ana", "works for", "Acme"]])]


def items(rows):
    return [Item(text=text, source=text, meta={"triples": triples}) for text, triples in rows]


def shape(memory):
    """The graph by names: entities with spread, edges with weight, facts."""
    with memory._store.read() as db:
        view = memory._view(db, "default")
        graph = memory.scheme.graph(view)
        names = view.texts(graph.entities.tolist()) + view.texts(graph.passages.tolist())
    edges = {(names[a], names[b]): w for a, b, w in zip(graph.src, graph.dst, graph.weight.tolist())}
    spread = dict(zip(names, graph.spread.tolist()))
    return spread, edges, sorted(graph.texts)


@pytest.mark.parametrize("embedder", [None, "hash"])
def test_incremental_equals_batch_and_deletion_gives_back(embedder):
    with (
        Memory(":memory:", scheme="hipporag2", embedder=embedder) as one,
        Memory(":memory:", scheme="hipporag2", embedder=embedder) as two,
    ):
        one.add(items(A))
        before = shape(one)
        later = one.add(items(B))
        two.add(items(A + B))
        assert shape(one) == shape(two)
        one.forget(later)
        assert shape(one) == before


def test_edges_by_hand():
    with Memory(":memory:", scheme="hipporag2") as memory:
        memory.add(items(A + B))
        spread, edges, facts = shape(memory)
    assert spread == {"ana": 2, "acme": 3, "lyon": 1, "bo": 1}
    assert facts == ["acme sits in lyon", "ana works for acme", "bo works for acme"]
    assert edges["ana", "acme"] == edges["acme", "ana"] == 2 * 2  # said by two passages, counted twice as in the code
    assert edges["acme", "lyon"] == 2 * 1
    assert edges["acme", "Acme sits in Lyon"] == 1  # context
    assert ("ana", "Acme sits in Lyon") not in edges
    assert all(a != b for a, b in edges)


def test_seed_weights_by_hand():
    # facts: 0 = (a, b) with 0.9, 1 = (a, c) with 0.5; a stands in 2 passages, b in 1, c in 4
    graph = Graph(
        np.arange(3), np.arange(3, 6), np.arange(2), ["ab", "ac"], np.array([[0, 1], [0, 2]]), np.array([2, 1, 4])
    )
    got = seeds(graph, np.array([0, 1]), np.array([0.9, 0.5]))
    assert np.abs(got - [(0.9 / 2 + 0.5 / 2) / 2, 0.9, 0.5 / 4]).max() < 1e-12


def test_only_the_five_best_phrases_stay():
    n = 8
    graph = Graph(np.arange(n), np.arange(1), np.arange(4), ["f"] * 4, np.arange(n).reshape(4, 2), np.ones(n, np.int64))
    got = seeds(graph, np.arange(4), np.array([0.4, 0.3, 0.2, 0.1]))
    assert np.count_nonzero(got) == 5


def test_an_empty_recognition_is_dense_retrieval():
    scheme = HippoRAG2(keep=lambda question, facts: [])
    with (
        Memory(":memory:", scheme=scheme, embedder="hash") as graph,
        Memory(":memory:", scheme="dense", embedder="hash") as dense,
    ):
        for memory in (graph, dense):
            memory.add(items(A + B))
        question = "who works for Acme in Lyon?"
        expected = [hit.item.text for hit in dense.recall(question, k=3)]
        got = graph.recall(question, k=3)
        assert [hit.item.text for hit in got] == expected
        assert all(list(hit.why) == ["similarity"] for hit in got)


def test_a_store_without_phrases_is_dense_retrieval():
    plain = [Item(text=text, meta={"triples": []}) for text in ("a red fox", "a blue whale", "two red foxes")]
    with (
        Memory(":memory:", scheme="hipporag2", embedder="hash") as graph,
        Memory(":memory:", scheme="dense", embedder="hash") as dense,
    ):
        for memory in (graph, dense):
            memory.add(plain)
        expected = dense.recall("red fox", k=3).ids  # without what has no cosine above 0
        assert graph.recall("red fox", k=3).ids[: len(expected)] == expected == [1, 3]


def test_visits_of_all_nodes_sum_to_one():
    with Memory(":memory:", scheme="hipporag2") as memory:
        memory.add(items(A + B))
        with memory._store.read() as db:
            view = memory._view(db, "default")
            graph = memory.scheme.graph(view)
            parts = memory.scheme.walk(graph, np.array([0]), np.array([1.0]), np.array([0.2, 1.0, 0.0]))
    assert abs(sum(part.sum() for part in parts) - 1) < 1e-9


def test_minmax_of_a_constant_is_all_ones():
    assert _minmax(np.array([0.3, 0.3])).tolist() == [1.0, 1.0]
    assert _minmax(np.array([1.0, 3.0, 2.0])).tolist() == [0.0, 1.0, 0.5]


def test_triples_from_a_model_come_later_as_a_job_and_a_failure_loses_nothing():
    answers = [
        json.dumps({"named_entities": ["Ana", "Acme"]}),
        json.dumps({"triples": [["Ana", "works for", "Acme"], ["not", "a triple"]]}),
    ]
    with Memory(":memory:", scheme=HippoRAG2(ScriptedLLM(answers))) as memory:
        (ana,) = memory.add("Ana is employed by Acme.")
        (job,) = memory.jobs(waiting=True)
        assert (job.kind, job.done, job.total) == ("write", 0, 1)
        assert memory.work() == []
        assert sorted(item.text for item in memory.items() if item.kind != "episode") == [
            "acme",
            "ana",
            "ana works for acme",
        ]
        assert all(item.sources == (ana,) for item in memory.items() if item.kind != "episode")
        memory.add("A second text, for which the script has no answer.")
        (waiting,) = memory.work()
        assert waiting.error is not None
        assert LLMError.__name__ in waiting.error
        assert memory.count() == 5  # both texts are there

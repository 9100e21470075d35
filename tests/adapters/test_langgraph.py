"""LangGraph's store: the same answers as its own InMemoryStore, in a real graph, and what only a memory can do."""

import asyncio
import time
from typing import TypedDict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore, GetOp, InvalidNamespaceError, ListNamespacesOp, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from loci.adapters.langgraph import LociStore
from loci.records import Memory

LABELS = st.sampled_from(["a", "b", "a/b", "=k", "%2F", "e\u0301", "\u00e9", " ", "A"])
SPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "", "k/k", "..", "=k", "K", "\u00e9", "*"])
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["x", "y"])
VALUES = st.dictionaries(st.sampled_from(["n", "s", "deep"]), LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.just("m"), LEAVES), max_size=3)  # fmt: skip
FILTERS = st.sampled_from(
    [None, {}, {"s": "x"}, {"n": {"$ne": 1}}, {"n": {"$eq": 2}}, {"deep": {"m": 1}}, {"deep": ["x"]}]
)
PATTERN = st.lists(LABELS | st.just("*"), min_size=1, max_size=2).map(tuple)


def shown(items):
    return sorted(((item.namespace, item.key, item.value) for item in items), key=repr)


def emptied(oracle):
    """The oracle also lists namespaces whose last key went, or that were only asked for; stores on a database do not."""
    for namespace in [space for space, held in oracle._data.items() if not held]:
        del oracle._data[namespace]
    return oracle


class SameAnswers(RuleBasedStateMachine):
    """A long random sequence of operations on our store and on the framework's own."""

    def __init__(self):
        super().__init__()
        self.memory = Memory(":memory:", scope="acme")
        self.memory.add("Ana: x y n s deep", scope="acme/a")  # someone else speaks in the same scope
        self.ours, self.oracle = LociStore(self.memory), InMemoryStore()

    def teardown(self):
        self.memory.close()

    @rule(space=SPACES, key=KEYS, value=VALUES)
    def put(self, space, key, value):
        for store in (self.ours, self.oracle):
            store.put(space, key, value)

    @rule(space=SPACES, key=KEYS)
    def delete(self, space, key):
        for store in (self.ours, self.oracle):
            store.delete(space, key)

    @rule(space=SPACES, key=KEYS)
    def get(self, space, key):
        ours, theirs = self.ours.get(space, key), self.oracle.get(space, key)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert (ours.namespace, ours.key, ours.value) == (theirs.namespace, theirs.key, theirs.value)
            assert ours.created_at <= ours.updated_at

    @rule(prefix=st.just(()) | SPACES, wanted=FILTERS)
    def search(self, prefix, wanted):
        ours = self.ours.search(prefix, filter=wanted, limit=1000)
        assert shown(ours) == shown(self.oracle.search(prefix, filter=wanted, limit=1000))
        pages = [
            item
            for at in range(0, len(ours) + 2, 2)
            for item in self.ours.search(prefix, filter=wanted, limit=2, offset=at)
        ]
        assert [(x.namespace, x.key) for x in pages] == [(x.namespace, x.key) for x in ours]

    @rule(
        prefix=st.none() | PATTERN,
        suffix=st.none() | PATTERN,
        depth=st.none() | st.integers(1, 3),
        offset=st.integers(0, 2),
    )
    def spaces(self, prefix, suffix, depth, offset):
        asked = {"prefix": prefix, "suffix": suffix, "max_depth": depth, "offset": offset, "limit": 3}
        assert self.ours.list_namespaces(**asked) == emptied(self.oracle).list_namespaces(**asked)

    @rule(space=SPACES, key=KEYS, first=VALUES, last=VALUES)
    def batch(self, space, key, first, last):
        ops = [PutOp(space, key, first), GetOp(space, key), PutOp(space, key, last), SearchOp(space, limit=1000)]
        ours, theirs = self.ours.batch(ops), self.oracle.batch(ops)
        assert (ours[0], ours[2]) == (theirs[0], theirs[2]) == (None, None)
        assert (ours[1] and ours[1].value) == (theirs[1] and theirs[1].value)  # read before it is written
        assert shown(ours[3]) == shown(theirs[3])


TestSameAnswers = SameAnswers.TestCase
TestSameAnswers.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)


@pytest.fixture
def memory():
    with Memory(":memory:", scope="acme") as memory:
        yield memory


@pytest.fixture(params=["ours", "theirs"])
def either(request, memory):
    """What the framework's own tests expect of any store is asked of both, so that the questions are proved too."""
    return LociStore(memory) if request.param == "ours" else InMemoryStore()


def test_namespaces_as_the_framework_expects(either):
    spaces = [("a", "b", "c"), ("a", "b", "d", "e"), ("a", "b", "d", "i"), ("a", "b", "f"), ("a", "c", "f"), ("b", "a", "f"), ("users", "1")]  # fmt: skip
    for n, space in enumerate(spaces):
        either.put(space, f"id{n}", {"data": n})
    assert either.list_namespaces(prefix=("a", "b")) == spaces[:4]
    assert either.list_namespaces(suffix=("f",)) == spaces[3:6]
    assert either.list_namespaces(prefix=("a", "*", "f")) == spaces[3:5]
    assert either.list_namespaces(prefix=("a",), suffix=("f",)) == spaces[3:5]
    assert either.list_namespaces(prefix=("a", "b"), max_depth=3) == [("a", "b", "c"), ("a", "b", "d"), ("a", "b", "f")]
    assert either.list_namespaces(prefix=("a", "b"), limit=2, offset=1) == spaces[1:3]
    assert either.list_namespaces(prefix=("none",)) == []


def test_what_is_no_namespace_is_refused_in_both_ways_of_calling(either):
    for space in ((), ("the", "thing.about"), ("some", ""), ("langgraph", "foo")):
        with pytest.raises(InvalidNamespaceError):
            either.put(space, "key", {"foo": "bar"})
        with pytest.raises(InvalidNamespaceError):
            asyncio.run(either.aput(space, "key", {"foo": "bar"}))
    either.batch([PutOp(("langgraph", "foo"), "bar", {"foo": "bar"})])  # reserved for put, not for what is below it
    assert either.get(("langgraph", "foo"), "bar").value == {"foo": "bar"}


def test_unchecked_batches_do_not_reach_another_namespace(memory):
    store = LociStore(memory)
    store.put(("a", "b"), "k", {"n": 1})
    for op in (GetOp(("a.b",), "k"), SearchOp(("a.b",)), PutOp(("a.b",), "k", None), PutOp((), "k", {"n": 2})):
        with pytest.raises(InvalidNamespaceError):
            store.batch([op])
    assert store.get(("a", "b"), "k").value == {"n": 1}
    with pytest.raises(TypeError, match="is not an operation"):
        store.batch(["get"])


def test_async_calls_answer_like_sync_ones(memory):
    store = LociStore(memory)

    async def use():
        await asyncio.gather(*(store.aput(("u", str(n)), "k", {"n": n}) for n in range(8)))
        found = await asyncio.gather(*(store.aget(("u", str(n)), "k") for n in range(8)))
        await store.adelete(("u", "0"), "k")
        return (
            [item.value["n"] for item in found],
            await store.alist_namespaces(),
            await store.asearch(("u",), filter={"n": 3}),
        )

    values, spaces, hits = asyncio.run(use())
    assert values == list(range(8))
    assert spaces == [("u", str(n)) for n in range(1, 8)]
    assert [hit.key for hit in hits] == ["k"]


def test_a_time_to_live_is_refused_with_the_way_out(memory):
    store = LociStore(memory)
    with pytest.raises(NotImplementedError, match="TTL is not supported"):
        store.put(("a",), "k", {}, ttl=5)
    with pytest.raises(NotImplementedError, match="does not forget by the clock; leave it out"):
        store.batch([PutOp(("a",), "k", {}, ttl=5)])
    assert store.search(()) == []


def test_a_query_recalls_by_words_with_scores_and_filters(memory):
    store = LociStore(memory)
    for n, text in enumerate(["Ana adopted a kitten called Miso", "Bo sails a boat", "Cy bakes bread on Sundays"]):
        store.put(("notes", "ana"), f"n{n}", {"text": text, "even": n % 2 == 0})
    store.put(("notes", "bo"), "other", {"text": "a kitten of Bo"})
    best = store.search(("notes", "ana"), query="what kitten did Ana adopt?")
    assert best[0].key == "n0"
    assert best[0].score > 0
    assert {hit.namespace for hit in store.search(("notes",), query="kitten")} == {("notes", "ana"), ("notes", "bo")}
    assert store.search(("notes", "ana"), query="boat", filter={"even": True}) == []
    assert store.search(("notes", "ana"), query="bread", filter={"even": True})[0].key == "n2"
    assert store.search(("notes",), query="zebra") == []


def test_an_index_chooses_what_is_found(memory):
    store = LociStore(memory, fields=["title"])
    store.put(("d",), "default", {"title": "boats", "body": "kittens"})
    store.put(("d",), "body", {"title": "boats", "body": "kittens"}, index=["body"])
    store.put(("d",), "none", {"title": "boats", "body": "kittens"}, index=False)
    assert [hit.key for hit in store.search(("d",), query="boats")] == ["default"]
    assert [hit.key for hit in store.search(("d",), query="kittens")] == ["body"]
    assert store.get(("d",), "none").value["title"] == "boats"


def test_recall_finds_the_store_even_behind_many_other_voices(memory):
    store = LociStore(memory)
    memory.add([f"kitten kitten kitten number {n} of the market in {n}" for n in range(40)], scope="acme/talk")
    store.put(("talk",), "mine", {"text": "a kitten"})
    assert [hit.key for hit in store.search((), query="kitten", limit=1)] == ["mine"]


def test_a_put_supersedes_and_the_past_stays_readable(memory):
    store = LociStore(memory)
    store.put(("u",), "job", {"works": "bakery"})
    then = time.time()
    before = store.get(("u",), "job")
    store.put(("u",), "job", {"works": "museum"})
    after = store.get(("u",), "job")
    assert after.value == {"works": "museum"}
    assert after.created_at == before.created_at < after.updated_at
    assert [item.text for item in memory.items(scope="acme/u")] == ["museum (works)"]
    assert [item.text for item in memory.items(scope="acme/u", as_of=then)] == ["bakery (works)"]


def test_a_delete_forgets_every_version_of_the_key_and_nothing_else(memory):
    store = LociStore(memory)
    foreign = memory.add("Ana: secret of the key", scope="acme/u/=k")
    for n in range(4):
        store.put(("u",), "k", {"secret": f"version {n}"})
        store.put(("u",), "k2", {"n": n})
        store.put(("u", "=k"), "k", {"n": n})
    store.delete(("u",), "k")
    assert store.get(("u",), "k") is None
    held = memory.items(scope="/", as_of=time.time())
    assert not [item.text for item in held if "version" in item.text]
    assert [item.id for item in memory.get(foreign)] == foreign
    assert store.get(("u",), "k2").value == store.get(("u", "=k"), "k").value == {"n": 3}
    store.delete(("u",), "k")  # again: nothing
    store.put(("u",), "k", {"secret": "again"})
    assert store.get(("u",), "k").value == {"secret": "again"}


def test_values_must_be_json_and_nothing_is_kept_of_what_is_not(memory):
    store = LociStore(memory)
    with pytest.raises(ValueError, match="meta that is JSON"):
        store.put(("u",), "k", {"x": object()})
    assert store.get(("u",), "k") is None


def test_the_store_outlives_its_process_and_two_handles_agree(tmp_path):
    with Memory(tmp_path / "s.db") as one, Memory(tmp_path / "s.db") as two:
        first, second = LociStore(one, scope="app"), LociStore(two, scope="app")
        first.put(("u",), "k", {"n": 1})
        second.put(("u",), "k", {"n": 2})
        assert first.get(("u",), "k").value == {"n": 2}
        second.delete(("u",), "k")
        assert first.get(("u",), "k") is None
        first.put(("u",), "k", {"n": 3})
    with Memory(tmp_path / "s.db") as again:
        assert LociStore(again, scope="app").get(("u",), "k").value == {"n": 3}
        assert LociStore(again, scope="other").get(("u",), "k") is None
        assert LociStore(again, scope="/").get(("app", "u"), "k").value == {"n": 3}


class State(TypedDict):
    user: str
    said: str
    answer: str


def test_in_a_compiled_graph_one_thread_remembers_for_the_next(tmp_path):
    def listen(state: State, *, store: BaseStore):
        if state["said"].startswith("remember "):
            store.put((state["user"], "facts"), state["said"][9:20], {"text": state["said"][9:]})
            return {"answer": "noted"}
        hits = store.search((state["user"], "facts"), query=state["said"], limit=1)
        return {"answer": hits[0].value["text"] if hits else "I do not know"}

    builder = StateGraph(State)
    builder.add_node("listen", listen)
    builder.add_edge(START, "listen")
    builder.add_edge("listen", END)

    def ask(memory, user, said):
        graph = builder.compile(store=LociStore(memory, scope="app"))
        return graph.invoke({"user": user, "said": said, "answer": ""})["answer"]

    with Memory(tmp_path / "g.db") as memory:
        assert ask(memory, "ana", "remember the kitten is called Miso") == "noted"
        assert ask(memory, "ana", "remember the boat lies in Brest") == "noted"
    with Memory(tmp_path / "g.db") as memory:
        assert ask(memory, "ana", "what is the kitten called?") == "the kitten is called Miso"
        assert ask(memory, "bo", "what is the kitten called?") == "I do not know"


def test_a_listing_needs_no_conditions(memory):
    store = LociStore(memory)
    store.put(("a", "b"), "k", {})
    assert store.batch([ListNamespacesOp()]) == [[("a", "b")]]

"""Sleep: merges and forgetting that past questions survive; bytes that are true; pins that hold."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loci import Item, Memory
from loci.core.errors import BudgetExceeded
from loci.records import keep, merge, near

WORDS = "red green blue kite boat house river seven not never 1 2 30 tea".split()
texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=14)


@given(texts, st.sampled_from([0.5, 0.8, 0.9]))
def test_fast_merging_equals_comparing_every_pair(some, least):
    items = [Item(text=text, id=n + 1, pinned=n % 5 == 4) for n, text in enumerate(some)]
    assert merge.duplicates(items, least=least) == merge.merge_slow(items, least=least)


@pytest.mark.parametrize(
    ("a", "b"),
    [("Ana eats meat every single day of the week and more", "Ana never eats meat every single day of the week and more"),
     ("the meeting with everyone is at 10 in the large room", "the meeting with everyone is at 11 in the large room"),
     ("I do like the new house by the river in the town", "I don't like the new house by the river in the town")],
)  # fmt: skip
def test_a_denial_or_a_number_is_no_duplicate(a, b):
    assert not near.same(a, b, least=0.5)
    assert near.same(a, a + "!")


def filled(**options):
    memory = Memory(":memory:", scheme="bm25", **options)
    rng = random.Random(0)
    words = [f"word{n}" for n in range(800)]
    memory.add([f"{' '.join(rng.choices(words, k=12))} item{n}" for n in range(600)])
    memory.flush()
    return memory


def test_a_budget_is_met_in_true_bytes_and_no_past_question_loses():
    with filled() as memory:
        questions = [f"item{n}" for n in range(0, 600, 20)]
        before = {text: memory.recall(text, k=1).ids for text in questions}
        budget = int(memory.nbytes * 0.6)
        report = memory.consolidate(budget=budget)
        assert report.met
        assert memory.nbytes == report.bytes_after <= budget
        assert report.forgotten > 100
        assert {text: memory.recall(text, k=1).ids for text in questions} == before
        assert all(step.after >= step.before for step in report.steps if step.committed)


def test_pinned_items_are_never_dropped_and_an_impossible_budget_says_so():
    with filled() as memory:
        pins = memory.add(["the door code is 4711", "never call before noon"], pinned=True)
        report = memory.consolidate(budget=50_000)
        assert not report.met
        assert memory.count() == 602  # nothing was dropped in vain
        assert [item.id for item in memory.get(pins)] == list(pins)


def test_a_step_that_hurts_is_refused(monkeypatch):
    with filled() as memory:
        asked = [memory.recall(f"item{n}", k=1).ids[0] for n in range(0, 600, 20)]
        monkeypatch.setattr("loci.records.consolidate._least", lambda *_: (asked[:3], True))  # drop what was asked for
        report = memory.consolidate(budget=int(memory.nbytes * 0.6))
        assert {(step.what, step.committed) for step in report.steps} == {("forget", False)}
        assert report.steps[0].after < report.steps[0].before
        assert len(memory.get(asked)) == len(asked)


def test_a_merge_keeps_the_oldest_and_what_rested_on_the_other():
    with Memory(":memory:") as memory:
        (first,) = memory.add("Ana adopted a grey kitten on Monday")
        (second,) = memory.add("Ana adopted a grey kitten on Monday!")
        (fact,) = memory.add([Item(text="Ana has a kitten", kind="fact", sources=(second,))])
        report = memory.consolidate()
        assert report.merged == 1
        assert [item.id for item in memory.items()] == [first, fact]
        assert memory.forget(first) == [first, fact]  # the fact now rests on the first alone
        memory.restore([first])
        assert memory.restore([second]) == [second]


def test_a_store_with_a_budget_refuses_what_does_not_fit_and_keeps_the_rest():
    with Memory(":memory:", budget="300kB") as memory:
        memory.add("small")
        with pytest.raises(BudgetExceeded) as caught:
            memory.add(["x" * 400_000])
        assert caught.value.needed > caught.value.limit == 300_000
        assert memory.count() == 1


def test_what_covers_more_is_kept_longer():
    items = [
        Item(id=1, text="hi there"),
        Item(id=2, text="the ferry to Naxos leaves Piraeus at dawn"),
        Item(id=3, text="hi again there"),
    ]
    assert keep.order(items, {})[0].id == 2
    assert keep.order(items, {3: 50.0})[0].id == 3  # what was asked for comes first

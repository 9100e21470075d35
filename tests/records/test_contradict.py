"""A rule proposes; it touches only the same functional slot."""

import pytest

from loci import Item, Memory
from loci.records.contradict import slots


@pytest.mark.parametrize(
    ("old", "new", "relation"),
    [
        ("Ana: I live in Paris", "Ana: I moved to Lyon last week", "lives in"),
        ("Bo works for Acme.", "Bo works for the city of Rome.", "works for"),
        ("Ana: my favourite dish is ramen", "Ana: My favourite dish is tagine now", "favourite dish is"),
    ],
)
def test_the_same_slot_with_another_object_is_proposed(old, new, relation):
    with Memory(":memory:") as memory:
        (a,) = memory.add(old)
        (b,) = memory.add(new)
        (found,) = memory.contradictions(b)
        assert (found.old, found.new, found.slot.relation) == (a, b, relation)
        assert memory.count() == 2  # nothing was closed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Ana: I love tea", "Ana: I love coffee"),  # not functional
        ("Ana: I live in Paris", "Bo: I live in Lyon"),  # another subject
        ("Ana: I live in Paris", "Ana: I work at Acme"),  # another relation
        ("Ana: I live in Paris", "Ana: I live in Paris, near the river"),  # the same object
        ("Ana: I live in Paris", "Ana: she moved to Lyon"),  # a pronoun
    ],
)
def test_nothing_else_is_proposed(old, new):
    with Memory(":memory:") as memory:
        memory.add(old)
        (b,) = memory.add(new)
        assert memory.contradictions(b) == []


def test_an_earlier_statement_does_not_supersede_a_later_one():
    with Memory(":memory:") as memory:
        memory.add("Ana: I live in Lyon", at="2024-01-01")
        (b,) = memory.add("Ana: I live in Paris", at="2023-01-01")
        assert memory.contradictions(b) == []


def test_slots_know_the_speaker():
    assert [slot.subject for slot in slots(Item(text="Ana: I live in Rome"))] == ["ana"]

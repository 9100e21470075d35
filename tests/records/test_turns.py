"""Turns: never more at once than there are places, nobody is overtaken, and a place is never lost."""

from __future__ import annotations

import threading

import pytest

from loci.core.errors import LociError
from loci.records import Hit, Memory
from loci.records.scheme import Query
from loci.records.schemes.bm25 import BM25
from loci.records.turns import Turns
from loci.records.view import View


def waiting(turns: Turns, count: int) -> None:
    """Until so many wait."""
    while len(turns._waiting) < count:
        threading.Event().wait(0.001)


def test_those_who_wait_come_in_the_order_they_came() -> None:
    turns, order, threads = Turns(1), [], []
    with turns:
        for name in range(8):

            def run(name: int = name) -> None:
                with turns:
                    order.append(name)

            threads.append(threading.Thread(target=run))
            threads[-1].start()
            waiting(turns, name + 1)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == list(range(8))
    assert turns.free == 1


def test_no_more_at_once_than_places_and_an_error_gives_the_place_back() -> None:
    turns, lock, now, most = Turns(3), threading.Lock(), 0, 0

    def run(n: int) -> None:
        nonlocal now, most
        for _ in range(20):
            try:
                with turns:
                    with lock:
                        now += 1
                        most = max(most, now)
                    threading.Event().wait(0.0005)
                    with lock:
                        now -= 1
                    if n % 2:
                        raise RuntimeError("in its turn")
            except RuntimeError:
                pass

    threads = [threading.Thread(target=run, args=(n,)) for n in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 3
    assert turns.free == 3


def test_a_recall_that_fails_lets_the_next_one_in() -> None:
    with Memory(":memory:", scheme="dense") as memory:
        memory.add("kitten")
        for _ in range(20):
            with pytest.raises(LociError, match="no embedder"):
                memory.recall("kitten")
        assert memory._turns.free == 1


@pytest.mark.timeout(20)
def test_a_thread_does_not_wait_for_itself() -> None:
    """A scheme's filter may look into the same memory."""
    inner: list[list[int]] = []

    class Asks(BM25):
        def recall(self, query: Query, view: View) -> list[Hit]:
            if query.text == "outer":
                inner.append(list(memory.recall("kitten").ids))
            return super().recall(query, view)

    with Memory(":memory:", scheme=Asks()) as memory:
        ids = memory.add(["the outer wall", "a kitten"])
        assert memory.recall("outer").ids == ids[:1]
        assert inner == [ids[1:]]
        assert memory._turns.free == 1

"""The same call again under a key adds nothing, from any process, whatever became of the first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loci.core.clock import FixedClock
from loci.core.errors import BudgetExceeded
from loci.records import Memory
from loci.records.repeat import WINDOW_S


def test_a_repeated_call_gives_the_first_ids(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.db") as memory:
        first = memory.add(["a kitten", "a dog"], scope="a", once="k1")
        assert memory.add(["a kitten", "a dog"], scope="a", once="k1") == first
        assert memory.count(scope="/") == 2
        assert memory.add("a kitten", scope="b", once="k1") != first, "a key belongs to its scope"
        assert memory.add("a cat", scope="a", once="k2")[0] not in first
    with Memory(tmp_path / "m.db") as memory:
        assert memory.add(["a kitten", "a dog"], scope="a", once="k1") == first
        memory.forget(first, scope="a")
        assert memory.add(["a kitten", "a dog"], scope="a", once="k1") == first, "forgotten is not undone by a repeat"
        assert memory.count(scope="a") == 1


def test_a_refused_call_keeps_no_key() -> None:
    with Memory(":memory:", budget=200_000) as memory:
        with pytest.raises(BudgetExceeded):
            memory.add("x" * 1_000_000, once="k")
        assert len(memory.add("small", once="k")) == 1


def test_keys_are_kept_for_a_week() -> None:
    clock = FixedClock(1_700_000_000.0)
    with Memory(":memory:", clock=clock) as memory:
        first = memory.add("a kitten", once="k")
        clock.tick(WINDOW_S - 1)
        assert memory.add("a kitten", once="k") == first
        memory.add("other", once="k2")
        clock.tick(2)
        memory.add("other", once="k3")
        assert memory.add("a kitten", once="k") != first


def test_many_at_once_add_one() -> None:
    with Memory(":memory:") as memory, ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: tuple(memory.add("a kitten", once="k")), range(40)))
        assert len(found) == memory.count() == 1


def test_a_key_that_comes_with_another_call_gives_the_first_ids():
    with Memory(":memory:", scheme="hipporag2", embedder="hash") as memory:
        first = memory.add("Ana works for Acme.", once="key")
        assert memory.add(["Bo works for Acme.", "Cy works for Acme."], once="key") == first
        assert [item.text for item in memory.items() if item.kind == "episode"] == ["Ana works for Acme."]
        for key in ("", "k" * 501):
            with pytest.raises(ValueError, match="1 to 500"):
                memory.add("text", once=key)

"""The laws of the store as data (`STORE_LAWS`): forgetting, time, erasing, bytes. A law takes how to open it, and a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from loci.core.clock import FixedClock
from loci.records.checks import START
from loci.records.item import Item
from loci.records.memory import Memory
from loci.records.oracle import Replay, bytes_left, store_files
from loci.records.scheme import Scheme
from loci.records.scope import covers

Opens = Callable[[Path, FixedClock], Memory]  # how a law opens the store under test


def _seen(memory: Memory, path: str, when: float | None = None) -> list[int]:
    return [item.id for item in memory.items(scope=path, as_of=when)]


def forgetting_cascades(opens: Opens, path: Path) -> None:
    """Forgetting removes each derived item without another living source, and only those; restoring undoes it."""
    clock, oracle = FixedClock(START), Replay()
    with opens(path, clock) as memory:

        def put(text: str, *sources: int) -> int:
            (id_,) = memory.add(
                Item(text=text, scope="s", sources=sources, kind="fact" if sources else "episode"), scope="s"
            )
            oracle.note("add", clock(), Item(text=text, scope="s", id=id_, sources=sources, known=clock()))
            return id_

        a, b = put("alpha one"), put("beta two")
        only_a, both = put("from alpha", a), put("from both", a, b)
        put("from the derived", only_a), put("from both derived", only_a, both)
        clock.tick(10)
        for ids in ([a], [b], [a, b]):
            went = memory.forget(ids, scope="s")
            oracle.note("forget", clock(), ids)
            assert _seen(memory, "s") == oracle.sees("s", clock()), f"after forgetting {ids}, {set(went)} went"
            clock.tick(10)
            memory.restore(ids, scope="s")
            oracle.note("restore", clock(), ids)
            assert _seen(memory, "s") == oracle.sees("s", clock()), f"after restoring {ids}"
            clock.tick(10)


def the_past_is_as_it_was(opens: Opens, path: Path) -> None:
    """`as_of` sees what was known, live and holding then, at every moment between two events and at each event."""
    clock, oracle = FixedClock(START), Replay()
    with opens(path, clock) as memory:

        def put(text: str, **more: float) -> int:
            given: dict[str, float] = {"known": clock(), **more}
            (id_,) = memory.add(text, scope="s", **more)  # type: ignore[arg-type]
            oracle.note("add", clock(), Item(text=text, scope="s", id=id_, **given))  # type: ignore[arg-type]
            return id_

        first = put("the office is in Rome", since=START)
        put("the lease runs for a while", since=START - 50, until=START + 25)
        clock.tick(10)
        letter = put("an old letter", known=START - 30)
        second = put("the office is in Oslo", since=clock())
        clock.tick(10)
        (third,) = memory.add("the office is in Bern", scope="s", supersedes=[first, second])
        oracle.note("add", clock(), Item(text="", scope="s", id=third, known=clock()))
        oracle.note("close", clock(), dict.fromkeys((first, second), clock()))
        clock.tick(10)
        memory.forget([second, letter], scope="s")
        oracle.note("forget", clock(), [second, letter])
        clock.tick(10)
        memory.restore([second, letter], scope="s")
        oracle.note("restore", clock(), [second, letter])
        for when in range(int(START) - 60, int(clock()) + 10, 5):
            assert _seen(memory, "s", when) == oracle.sees("s", when), f"as of {when - START:+.0f} s"


def erasing_leaves_no_bytes(opens: Opens, path: Path) -> None:
    """After the erase no word of the item is in any file: not in text, index, log or what was derived from it."""
    clock = FixedClock(START)
    with opens(path, clock) as memory:
        secret = memory.add(
            ["zorblatt7 lives in qwyx99 street", "kept kettle"], scope="s/t", source="vrumpf5", meta={"k": "glimpf3"}
        )
        memory.add(Item(text="fact of fnord42", scope="s/t", sources=(secret[0],), kind="fact"), scope="s/t")
        memory.recall("who is zorblatt7 at qwyx99?", scope="s")  # logged under the outer scope
        memory.learn(memory.recall("where does zorblatt7 live?", scope="s/t"), 1.0)
        memory.flush()
        words = ["zorblatt7", "qwyx99", "fnord42"]
        assert set(bytes_left(store_files(path), words)) == set(words), "the scan cannot see what is there"
        memory.recall("is zorblatt7 at home?", scope="s")  # still in the handle's buffer
        memory.forget(secret[0], scope="s/t", erase=True)
        memory.flush()
        assert not (left := bytes_left(store_files(path), words)), f"bytes left: {left}"
    assert not (left := bytes_left(store_files(path), words)), f"bytes left after closing: {left}"


def scopes_are_apart(opens: Opens, path: Path) -> None:
    """A scope sees what is at or under it, never beside it; nothing done in one touches the others."""
    with opens(path, FixedClock(START)) as memory:
        paths = ["a", "a/b", "a/b/c", "ab", "a b", "a%", "a_b", "b", "A"]
        ids = {of: memory.add(f"kitten of {of}", scope=of)[0] for of in paths}
        for of in [*paths, "/", "c", "a/"]:
            outer = of.strip("/") or "/"
            wanted = sorted(id_ for inner, id_ in ids.items() if covers(outer, inner))
            assert _seen(memory, of) == wanted, f"scope {of!r} sees {_seen(memory, of)}, not {wanted}"
            assert {hit.item.id for hit in memory.recall("kitten", 20, scope=of)} <= set(wanted), f"scope {of!r} leaks"
        memory.forget(ids["a/b"], scope="a")
        rest = {of: id_ for of, id_ in ids.items() if of != "a/b"}
        assert _seen(memory, "/") == sorted(rest.values()), "forgetting in one scope touched another"


STORE_LAWS: tuple[Callable[[Opens, Path], None], ...] = (
    forgetting_cascades, the_past_is_as_it_was, erasing_leaves_no_bytes, scopes_are_apart,
)  # fmt: skip


def opened(kind: type[Memory], scheme: str | Scheme = "loci") -> Opens:
    """How to open a kind of memory for the laws of the store."""
    return lambda path, clock: kind(path, clock=clock, scheme=scheme)

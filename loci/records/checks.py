"""The laws of schemes as data (`LAWS`); those of the store under them are in checks_store.py.

A law takes `make`, which builds a fresh scheme from its card, and raises AssertionError where the scheme breaks it.
Laws look at what the scheme itself returns, before `Memory` collapses near duplicates and cuts to k.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from loci.core.checking import Law, Make
from loci.core.clock import FixedClock
from loci.records.handle import Handle
from loci.records.item import Hit, Item
from loci.records.memory import Memory
from loci.records.oracle import Words
from loci.records.scheme import Query
from loci.records.scope import covers

START = 1_700_000_000.0
TEXTS = (
    "Ana: I adopted a grey kitten called Pixel in May", "Bo: my sister moved to Rome to study sculpture",
    "Ana: Pixel broke the blue vase of my grandmother", "Bo: we baked sourdough bread with rye flour",
    "Ana: the marathon in Berlin starts at nine", "Bo: the telescope shows four moons of Jupiter",
    "Ana: our landlord repaired the boiler on Friday", "Bo: I sold the old motorbike to a neighbour",
    "Ana: what did the dentist say about your tooth?", "Bo: he says that the wisdom tooth must go",
    "Ana: my violin teacher plays in an orchestra", "Bo: the harvest of olives was poor this autumn",
)  # fmt: skip
HOSTILE = (
    '"', "'", "')); DROP TABLE item; --", "kitten' OR '1'='1", "NEAR(kitten vase, 2)", "kitten AND OR NOT", "kit*",
    "^kitten", "text:kitten", "{a b}:c", "kitten -vase", "kitten\x00vase", "\x00", "%_%", "?? !!", ";", "\\", "`",
    "\U0001f408 \U0001f3fd kitten", "\u202ekitten\u202c", "e\u0301 \ufeff kitten", "\ud800 kitten", "kitten " * 14_000,
    "x" * 100_000, " ".join(f"w{n}" for n in range(40_000)),
)  # fmt: skip


@contextmanager
def _memory(make: Make, path: str | Path = ":memory:", *, texts: Sequence[str] = TEXTS) -> Iterator[Memory]:
    """A memory under the scheme with the little corpus: scopes acme/ana (all), acme/bo and other (some of it)."""
    clock = FixedClock(START)
    with Memory(path, scheme=make(), embedder=Words(), clock=clock, scope="acme/ana", log_queries=False) as memory:
        try:
            if texts:
                memory.add(texts, at="2023-05-03", session="1")
                memory.add([f"{text} again" for text in texts[:4]], scope="acme/bo", session="1")
                memory.add([f"{text} elsewhere" for text in texts[:4]], scope="other", session="1")
                memory.work()
        except ValueError as refused:
            raise AssertionError(f"the store refused what it derived: {refused}") from refused
        clock.tick(60)
        yield memory


def ask(memory: Handle, text: str, k: int = 5, path: str = "acme/ana") -> list[Hit]:
    """What the scheme itself answers, checked: live, in scope, once each, at most k, scores not increasing."""
    with memory.reading() as db:
        view = memory.view(db, path)
        alive = view.live.copy()
        hits = list(memory.scheme.recall(Query(text=text, k=k, now=view.when), view))
        ids = [hit.item.id for hit in hits]
        held = view.get(ids)
        places = view.ledger.places(np.array(ids, np.int64))
        live = [place >= 0 and bool(alive[place]) for place in places.tolist()]
    shown = text[:40]
    assert len(hits) <= k, f"{len(hits)} hits for k={k} and query {shown!r}"
    assert len(set(ids)) == len(ids), f"ids {ids} repeat for query {shown!r}"
    assert all(id_ in held and covers(path, held[id_].scope) for id_ in ids), f"ids {ids} are not all in scope {path!r}"
    assert all(live), f"ids {ids} are not all live for query {shown!r}"
    assert all(held[hit.item.id].text == hit.item.text for hit in hits), "a hit's text is not the item's"
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True), f"scores rise for query {shown!r}: {scores}"
    return hits


def _signature(hits: Iterable[Hit]) -> list[tuple[int, float, dict[str, float]]]:
    return [(hit.item.id, hit.score, dict(hit.why)) for hit in hits]


def hits_are_live_in_scope_unique_sorted(make: Make) -> None:
    """Hits are live, in scope, unique, at most k, scores not increasing, for every text and scope."""
    with _memory(make) as memory:
        first = memory.items()[0].id
        memory.forget(first)
        for path in ("acme/ana", "acme/bo", "acme", "other", "/", "nobody"):
            for text in TEXTS:
                ask(memory, text, 5, path)


def k_is_respected(make: Make) -> None:
    """At most k hits, for small and large k; a larger k finds no fewer."""
    with _memory(make) as memory:
        for text in TEXTS[:4]:
            counts = [len(ask(memory, text, k)) for k in (1, 2, 5, 1000)]
            assert counts == sorted(counts), f"hits for k=1, 2, 5, 1000 are {counts}"


def parts_sum_to_score(make: Make) -> None:
    """Every hit says why: finite parts that sum to its score."""
    with _memory(make) as memory:
        for text in TEXTS:
            for hit in ask(memory, text):
                assert math.isfinite(hit.score), f"score {hit.score} of item {hit.item.id} is not finite"
                total = math.fsum(hit.why.values())
                assert hit.why, f"item {hit.item.id} has a score without parts"
                assert math.isclose(total, hit.score, rel_tol=1e-6, abs_tol=1e-6), (
                    f"parts {dict(hit.why)} sum to {total}, not to {hit.score}"
                )


def own_text_is_recalled(make: Make) -> None:
    """An item's own text as the question finds it among the first 5."""
    with _memory(make) as memory:
        for item in memory.items():
            if item.kind == "episode":
                found = [hit.item.id for hit in ask(memory, item.text)]
                assert item.id in found, f"{item.text!r} finds {found}, not {item.id}"


def deterministic(make: Make) -> None:
    """The same calls give the same answers, twice in one memory and in two."""
    with _memory(make) as one, _memory(make) as two:
        for text in TEXTS:
            told = [_signature(ask(memory, text)) for memory in (one, one, two)]
            assert told[0] == told[1] == told[2], f"answers to {text!r} differ: {told}"


def forgotten_is_not_recalled(make: Make) -> None:
    """What was forgotten is not recalled, by its own words or others'; what was restored is."""
    with _memory(make) as memory:
        for item in [item for item in memory.items() if item.kind == "episode"][:6]:
            before = _signature(ask(memory, item.text))
            went = set(memory.forget(item.id))
            assert item.id in went, f"forget({item.id}) returned {went}"
            for text in TEXTS:
                assert went.isdisjoint(hit.item.id for hit in ask(memory, text)), f"{went} recalled after forgetting"
            memory.restore(item.id)
            assert _signature(ask(memory, item.text)) == before, f"recall after restoring {item.id} is not as before"


def erased_is_not_recalled(make: Make) -> None:
    """What was erased is not recalled, and a new item in its stead is."""
    with _memory(make) as memory:
        for text in TEXTS:  # whatever the scheme caches is warm
            ask(memory, text)
        went = memory.forget(memory.items()[0].id, erase=True)
        new = memory.add("Ana: a quiet walrus plays the trombone")[0]
        assert new not in went, f"id {new} was used again"
        memory.work()
        assert new in [hit.item.id for hit in ask(memory, "quiet walrus trombone")], "the new item is not found"
        for text in TEXTS[1:]:
            assert set(went).isdisjoint(hit.item.id for hit in ask(memory, text)), "an erased item was recalled"


def as_of_reads_the_past(make: Make) -> None:
    """`as_of` sees what was known, live and holding then; now sees what is."""
    clock = FixedClock(START)
    with Memory(":memory:", scheme=make(), embedder=Words(), clock=clock, log_queries=False) as memory:
        old = memory.add("Carla works at the harbour office", since=START)[0]
        memory.add([text.replace(":", " said") for text in TEXTS[4:]])
        clock.tick(100)
        new = memory.add("Carla works at the harbour museum", since=clock(), supersedes=[old])[0]
        memory.work()
        clock.tick(100)
        memory.forget(new)
        clock.tick(100)
        for when, sees in ((START + 50, {old}), (START + 150, {new}), (None, set())):
            hits = memory.recall("where does Carla work? harbour office museum", 5, as_of=when)
            found = {hit.item.id for hit in hits} & {old, new}
            assert found == sees, f"as_of={when} sees {found} of {{{old}, {new}}}, not {sees}"
        assert not memory.recall("Carla harbour", as_of=START - 1), "something was recalled before anything was known"


def empty_memory_and_empty_query(make: Make) -> None:
    """An empty memory answers nothing; an empty question is no error."""
    with _memory(make, texts=()) as memory:
        assert not ask(memory, "kitten")
        assert not memory.recall("kitten")
        assert not memory.recall("")
    with _memory(make) as memory:
        for text in ("", " ", "?!", "the of and", "\n\t"):
            ask(memory, text)
            assert len(memory.recall(text, 3)) <= 3, f"too many hits for {text!r}"
        assert not memory.recall("kitten", 0), "k=0 gave hits"


def hostile_queries(make: Make) -> None:
    """Query syntax, SQL, NUL, emoji, lone surrogates, 100,000 characters: answered like any other, nothing changed."""
    with _memory(make) as memory:
        before = memory.items(scope="/")
        for text in HOSTILE:
            ask(memory, text, 5)
        assert memory.items(scope="/") == before, "a question changed the store"
        assert any("kitten" in hit.item.text for hit in ask(memory, "kitten' OR '1'='1")), "quotes hide the words"


def reopen_equals_before(make: Make) -> None:
    """Closed and opened again, or seen from a second handle, the memory answers the same, feedback included."""
    with tempfile.TemporaryDirectory(prefix="loci-") as folder:
        path = Path(folder) / "memory.db"
        with _memory(make, path) as memory:
            for text in TEXTS[:4]:
                memory.learn(memory.recall(text, 2), 1.0)
            memory.forget(memory.items()[3].id, erase=True)
            before = [_signature(ask(memory, text)) for text in TEXTS]
        with Memory(path, scheme=make(), embedder=Words(), clock=FixedClock(START + 60)) as memory:
            assert [_signature(ask(memory, text)) for text in TEXTS] == before, "the answers changed by reopening"


def feedback_keeps_the_laws(make: Make) -> None:
    """After praise and blame hits are still lawful, and nothing verbatim has changed."""
    with _memory(make) as memory:
        texts = [(item.id, item.text) for item in memory.items() if item.kind == "episode"]
        for turn, text in enumerate(TEXTS * 2):
            memory.learn(memory.recall(text, 3), (1.0, -1.0, 0.0, 0.5)[turn % 4])
        for text in TEXTS:
            for hit in ask(memory, text):
                assert math.isfinite(hit.score), f"score {hit.score} after feedback"
        assert [(item.id, item.text) for item in memory.items() if item.kind == "episode"] == texts, (
            "feedback changed items"
        )


def changes_keep_provenance(make: Make) -> None:
    """What a scheme derives names its sources, lies in their scope, and goes when they go; so do its links."""
    with _memory(make) as memory:
        memory.consolidate(scope="acme/ana")
        given = {item.id for item in memory.items(scope="/") if item.kind == "episode"}
        for item in memory.items(scope="/"):
            if item.id in given:
                continue
            assert item.sources, f"derived {item.kind} {item.text!r} names no sources"
            assert {source.scope for source in memory.get(item.sources, scope="/")} == {item.scope}, (
                "a source lies elsewhere"
            )
        for path in ("acme/ana", "other"):
            memory.forget([item.id for item in memory.items(scope=path) if item.kind == "episode"], scope=path)
            left = memory.items(scope=path)
            assert not left, f"{[item.text for item in left][:5]} outlived all that was known"
        assert len([item for item in memory.items(scope="acme/bo") if item.kind == "episode"]) == 4, (
            "another scope lost items"
        )
        memory.forget([item.id for item in memory.items(scope="/") if item.kind == "episode"], scope="/")
        with memory.reading() as db:
            (links,) = db.execute("SELECT count(*) FROM link WHERE gone IS NULL").fetchone()
        assert not links, f"{links} links outlived all that was known"


def write_is_idempotent_under_replay(make: Make) -> None:
    """A write that is run again (a job that was killed after its commit) derives nothing twice."""
    with _memory(make) as memory:

        def state() -> tuple[list[Item], int]:
            with memory.reading() as db:
                (links,) = db.execute("SELECT count(*) FROM link WHERE gone IS NULL").fetchone()
            return [replace(item, version=0) for item in memory.items()], links

        before = state()
        memory._write_scheme("acme/ana", [item.id for item in before[0] if item.kind == "episode"])
        after = state()
        texts = [[item.text for item in items] for items, _ in (before, after)]
        assert texts[0] == texts[1], (
            f"replay added {sorted(set(texts[1]) - set(texts[0])) or texts[1][len(texts[0]) :]}"
        )
        assert before[1] == after[1], f"replay made {after[1]} links of {before[1]}"


def sleep_keeps_what_is_pinned(make: Make) -> None:
    """No budget, however small, drops a pinned item or one of another scope."""
    with _memory(make) as memory:
        pinned = memory.add("Ana: my passport number is in the red folder", pinned=True)[0]
        others = [item.id for item in memory.items(scope="acme/bo")]
        report = memory.consolidate(budget=1)
        assert all(step.committed for step in report.steps if step.what == "derive"), (
            "the store had to refuse its sleep"
        )
        assert pinned in [item.id for item in memory.items()], "a pinned item went"
        assert [item.id for item in memory.items(scope="acme/bo")] == others, "sleep in one scope touched another"


LAWS: tuple[Law, ...] = (
    hits_are_live_in_scope_unique_sorted, k_is_respected, parts_sum_to_score, own_text_is_recalled, deterministic,
    forgotten_is_not_recalled, erased_is_not_recalled, as_of_reads_the_past, empty_memory_and_empty_query,
    hostile_queries,
    reopen_equals_before, feedback_keeps_the_laws, changes_keep_provenance, write_is_idempotent_under_replay,
    sleep_keeps_what_is_pinned,
)  # fmt: skip

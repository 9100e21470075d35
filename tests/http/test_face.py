"""The client has the face of `Memory`: the same verbs, signatures, answers, errors, and laws, over a real server."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

import loci
from loci.core.clock import FixedClock
from loci.core.errors import BudgetExceeded, ClosedError, ConflictError, Denied, StoreError, UnknownItem
from loci.records import Hits, Item, Memory, checks_store, tokens
from loci.records.calls import VERBS
from loci.records.checks import START
from loci.records.checks_store import STORE_LAWS
from loci.records.remote import RemoteMemory
from loci.records.remote_async import AsyncMemory
from loci.records.scheme import Changes, Plain
from tests.http.serving import running
from tests.stores import on_postgres

pytestmark = pytest.mark.enable_socket

# what an embedded store has and a server does not give away: its transactions, its clock, where it is
EMBEDDED = {"reading", "writing", "view", "apply", "now", "local"}


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_") and name not in EMBEDDED}


def test_every_public_verb_is_there_with_its_signature():
    missing = public(Memory) - public(RemoteMemory)
    assert not missing, f"RemoteMemory lacks {missing}"
    verbs = [name for name in public(Memory) if callable(getattr(Memory, name)) and name not in ("close",)]
    assert set(VERBS) == set(verbs)
    for name in verbs:
        here, there = getattr(Memory, name), getattr(RemoteMemory, name)
        assert inspect.signature(there) == inspect.signature(here), name
        assert inspect.signature(getattr(AsyncMemory, name)) == inspect.signature(here), name
        assert inspect.iscoroutinefunction(getattr(AsyncMemory, name)), name
        assert there.__doc__ == here.__doc__, name


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
@pytest.mark.parametrize("law", STORE_LAWS, ids=lambda law: law.__name__)
def test_the_laws_of_the_store_hold_over_http(law, engine, tmp_path, monkeypatch):
    if engine == "postgres":
        on_postgres(monkeypatch, checks_store)

    @contextlib.contextmanager
    def opens(path: Path, clock: FixedClock):
        with Memory(path, clock=clock) as memory, running(memory) as url, Memory(url) as remote:
            yield remote

    law(opens, tmp_path / "law.db")


@pytest.fixture
def pair(tmp_path):
    """The memory, and the same seen through the server, under one fixed clock."""
    with Memory(tmp_path / "m.db", clock=FixedClock(START)) as memory:
        with running(memory) as url, loci.Memory(url) as remote:
            assert isinstance(remote, RemoteMemory)
            yield memory, remote


def told(hits: Hits):
    return [(hit.item, hit.score, dict(hit.why)) for hit in hits], vars(hits)


def test_everything_comes_back_exactly(pair):
    here, there = pair
    ids = there.add(
        ["Ana: I work at the bakery.", Item(text="Ünïcode 🦊 \x00 \u2028 text", meta={"a": [1, 2.5, None, {"b": "ü"}]}, at=0.1 + 0.2)],
        scope="acme/ana", session="s1", source="chat#1", at=datetime(2023, 5, 3, 1, 2, 3, 456789, tzinfo=UTC), known="2023-05-04",
    )  # fmt: skip
    assert ids.scope == "acme/ana"
    new = there.add("Ana: I work at the museum now.", scope="acme/ana", supersedes=ids[:1], at="2024-01-01")
    derived = there.add(
        Item(text="a fact", kind="fact", sources=tuple(ids), value=0.1, uses=3, pinned=True), scope="acme/ana"
    )
    there.link(ids[1], "near", new[0], weight=1 / 3, scope="acme")
    assert there.items(scope="/") == here.items(scope="/")
    assert there.items(scope="acme", as_of="2023-06-01") == here.items(scope="acme", as_of="2023-06-01")
    assert there.get(derived) == here.get(derived)
    assert there.links(ids) == here.links(ids)
    assert there.count(scope="acme") == here.count(scope="acme") == 4
    assert there.history(ids[0], scope="acme") == here.history(ids[0], scope="acme")
    assert there.diff("2023-01-01", "2024-06-01", scope="acme") == here.diff("2023-01-01", "2024-06-01", scope="acme")
    assert there.contradictions(new[0], scope="acme") == here.contradictions(new[0], scope="acme")
    for question in ("where does Ana work?", "fox 🦊", "", "lone \ud800 surrogate"):
        assert told(there.recall(question, 3, scope="acme")) == told(here.recall(question, 3, scope="acme"))
    assert there.name == here.name
    assert there.nbytes == here.nbytes
    assert there.scope == here.scope == "default"
    assert there.verify_forgotten(ids[1], text="nowhere at all") == here.verify_forgotten(ids[1], text="nowhere at all")
    went = there.forget(there.recall("fact", scope="acme").only(derived))
    assert went == derived
    assert went.scope == "acme"
    assert there.restore(went) == derived
    spam = there.add(["buy now", "buy more"], scope="acme", principal="web:spam", trust="untrusted")
    assert there.quarantine(principal="web:spam", scope="acme") == spam
    assert there.quarantined(scope="acme") == here.quarantined(scope="acme") != []
    assert there.release(spam[0], scope="acme") == spam[:1]
    assert there.undo(principal="web:spam", scope="acme", since=START).forgotten == spam
    assert there.jobs(scope="/") == here.jobs(scope="/") == there.work() == []
    assert there.embed() == 0
    assert there.erase(window=0) == 2
    assert there.consolidate(scope="/", budget="1GB").met is True


def test_feedback_over_http_is_feedback(tmp_path):
    """The same praise, here and there, leaves the same policy in the file."""

    def taught(memory, learner):
        memory.add([f"note {n} about kittens and {word}" for n, word in enumerate(("milk", "wool", "rain"))], scope="s")
        for _ in range(3):
            hits = learner.recall("kittens in the rain", 3, scope="s")
            learner.learn(hits.only(hits.ids[:1]), 1.0)
        out = io.StringIO()
        loci.records.exchange.export(memory, out)
        return [line for line in out.getvalue().splitlines() if '"state"' in line or '"asked"' in line]

    import loci.records.exchange

    with (
        Memory(tmp_path / "a.db", clock=FixedClock(START)) as one,
        Memory(tmp_path / "b.db", clock=FixedClock(START)) as two,
    ):
        with running(two) as url, Memory(url) as remote:
            here, there = taught(one, one), taught(two, remote)
    assert here == there
    assert any('"state"' in line for line in here)


def test_errors_are_those_of_the_memory(pair):
    here, there = pair
    ids = there.add("a kitten", scope="a")
    for call in (
        lambda m: m.get([*ids, 99], scope="a"), lambda m: m.forget(ids, scope="b"), lambda m: m.history(99, scope="a"),
        lambda m: m.add("x", scope="a//b"), lambda m: m.add("x", at="no date"), lambda m: m.add(5), lambda m: m.get("x"),
        lambda m: m.add("x", known="2999-01-01"), lambda m: m.recall("x", -1), lambda m: m.learn([], 1.0),
        lambda m: m.learn(Hits(query="x", scope="a"), 2.0), lambda m: m.add(Item(text="x", since=2, until=1)),
        lambda m: m.add(Item(text="x", scope="z"), scope="a"), lambda m: m.wipe("not its name"), lambda m: m.add("x", at=True),
    ):  # fmt: skip
        with pytest.raises(Exception) as mine:
            call(here)
        with pytest.raises(Exception) as theirs:
            call(there)
        assert (theirs.type, str(theirs.value)) == (mine.type, str(mine.value))
    for meta in ({"x": float("nan")}, {"x": {1, 2}}):
        with pytest.raises(ValueError):
            there.add("x", meta=meta)
    with pytest.raises(ValueError):
        there.add("lone \ud800 surrogate")
    assert there.count(scope="/") == 1


def test_a_budget_says_what_is_needed(tmp_path):
    with Memory(tmp_path / "m.db", budget=400_000) as memory, running(memory) as url, Memory(url) as remote:
        with pytest.raises(BudgetExceeded) as over:
            remote.add("x " * 500_000)
        assert over.value.limit == 400_000 < over.value.needed


class Contended(Plain):
    """A scheme whose every feedback rests on a row that moves meanwhile."""

    name = "contended"
    other: Memory

    def recall(self, query, view):
        return []

    def learn(self, hits, reward, view):
        (item,) = view.every()
        self.other.link(item.id, "moved", item.id, scope="a")
        self.other.forget(item.id, scope="a")
        self.other.restore(item.id, scope="a")
        return Changes(value={item.id: (1.0, 1)})


def test_a_conflict_stays_a_conflict(tmp_path):
    scheme = Contended()
    with Memory(tmp_path / "m.db", scheme=scheme) as memory, Memory(tmp_path / "m.db") as scheme.other:
        memory.add("a kitten", scope="a")
        with running(memory) as url, Memory(url) as remote, pytest.raises(ConflictError):
            remote.learn(Hits(query="x", scope="a"), 1.0)


def test_what_is_no_server_is_said():
    with (
        Memory("http://127.0.0.1:9", retries=1, pause=lambda _: None) as nobody,
        pytest.raises(StoreError, match="did not answer"),
    ):
        nobody.count()
    with pytest.raises(ValueError, match="token="):
        Memory("http://user:secret@127.0.0.1:8787")
    with pytest.raises(ValueError, match="address"):
        RemoteMemory("ftp://x")
    with pytest.raises(ValueError, match="embedder, scheme is for the server"):
        Memory("http://127.0.0.1:9", scheme="bm25", embedder="hash")
    with pytest.raises(ValueError, match="only a server"):
        Memory("some.db", token="loci_x")


def test_a_closed_client_says_so(url):
    remote = Memory(url)
    remote.close()
    with pytest.raises(ClosedError, match="open it again"):
        remote.count()


def test_a_client_may_have_a_scope_of_its_own(url):
    with RemoteMemory(url, scope="team/x") as remote:
        assert remote.add("a kitten").scope == "team/x"
        assert remote.recall("kitten").scope == "team/x"
        assert remote.count() == 1
        assert remote.count(scope="other") == 0


def test_the_async_client_gives_the_same(pair):
    here, there = pair
    ids = there.add([f"kitten {n}" for n in range(30)], scope="s")

    async def ask():
        async with loci.AsyncMemory(there.path) as memory:
            many = await asyncio.gather(*(memory.recall(f"kitten {n}", 3, scope="s") for n in range(30)))
            new = await memory.add("a dog", scope="s", once="k")
            assert await memory.add("a dog", scope="s", once="k") == new
            with pytest.raises(UnknownItem):
                await memory.get(999, scope="s")
            out = io.StringIO()
            lines = await memory.export(out, scope="s")
            assert lines == len(out.getvalue().splitlines())
            assert await memory.load(["one", Item(text="two", at=5.0)], scope="t") == 2
            await memory.forget(ids[:1], scope="s")
            assert (await memory.store())["name"] == here.name
            await memory.close()
            with pytest.raises(ClosedError):
                await memory.count()
            return many

    for n, hits in enumerate(asyncio.run(ask())):
        assert hits[0].item.text == f"kitten {n}"
    assert [item.text for item in here.items(scope="t")] == ["one", "two"]
    assert here.count(scope="s") == 30


def test_a_token_is_sent_and_never_said(tmp_path):
    with Memory(tmp_path / "m.db") as memory, running(memory) as url:
        secret, _ = tokens.create(memory, "ana", scope="acme/ana")
        with Memory(url, token=secret) as remote:
            ids = remote.add("a kitten")
            assert ids.scope == "acme/ana" == remote.scope
            assert secret not in repr(remote)
            with pytest.raises(Denied):
                assert remote.nbytes
            with pytest.raises(Denied):
                remote.forget(ids)
        with Memory(url) as nobody, pytest.raises(Denied, match="no token"):
            nobody.count()
        for wrong in ("", "with space", "ümlaut"):
            with pytest.raises(ValueError, match="token"):
                Memory(url, token=wrong)

"""Point in time: the rewound store answers as a second memory does that lived only until then. Nothing of ours is its oracle."""

import dataclasses
import io
import json
import random
import shutil
import sqlite3

import pytest

from loci import Item, Memory
from loci.core.clock import FixedClock
from loci.records import doctor, exchange, move
from loci.records.rewind import rewind
from tests import stores

SCOPES = ("acme/ana", "acme/bo", "acme", "zoo")
WORDS = "kitten boat museum bakery tea Kiel Rome piano letter winter".split()
START = 1_700_000_000.0


class Life:
    """One history, decided by a seed and nothing else: lived by two memories, it gives both the same ids."""

    def __init__(self, path, seed, *, erases=False, learns=False):
        self.rng, self.clock = random.Random(seed), FixedClock(START)
        self.memory = Memory(path, clock=self.clock, log_queries=True)
        self.erases, self.learns, self.erased, self.seed = erases, learns, set(), seed
        self.forgotten, self.live = {}, {}

    def text(self):
        return f"{self.rng.choice(['Ana', 'Bo', 'Cy'])}: I {' '.join(self.rng.sample(WORDS, 3))}"

    def step(self):
        self.clock.tick(self.rng.choice([1.0, 2.5, 100.0]))
        dice, scope = self.rng.random(), self.rng.choice(SCOPES)
        if self.rng.random() < 0.12:
            self.trust()
            self.memory.flush()
            return
        live = sorted(id_ for id_, of in self.live.items() if of == scope)
        if dice < 0.45 or len(live) < 3:
            self.add(scope, live)
        elif dice < 0.55:
            self.memory.link(*self.rng.sample(live, 1), "near", self.rng.choice(live), scope=scope)
        elif dice < 0.70:
            self.went(self.memory.forget(self.rng.choice(live), scope=scope), scope)
        elif dice < 0.80 and self.forgotten:
            self.back(self.rng.choice(sorted(self.forgotten)))
        elif dice < 0.87:
            hits = self.memory.recall(" ".join(self.rng.sample(WORDS, 2)), 3, scope=scope)
            if self.learns and hits:
                self.memory.learn(hits.only(hits.ids[:1]), 1.0)
        elif self.erases:
            went = self.memory.forget(self.rng.choice(live), scope=scope, erase=True)
            self.went(went, scope)
            self.erased |= set(went)
            self.forgotten = {i: of for i, of in self.forgotten.items() if i not in self.erased}
        else:
            self.add(scope, live)
        self.memory.flush()

    def trust(self):
        """Quarantine, release and undo: what they do is decided by what is there."""
        held = [item.id for item in self.memory.quarantined(scope="/")]
        who = self.rng.choice(["web:a", "web:b"])
        if held and self.rng.random() < 0.5:
            for id_ in held:
                try:
                    self.memory.release(id_, scope="/")
                except LookupError:
                    continue
        elif self.rng.random() < 0.7:
            self.memory.quarantine(principal=who, scope="/")
        else:
            self.memory.undo(principal=who, scope="/")
        there = {item.id: item.scope for item in self.memory.items(scope="/", as_of=self.clock())}
        self.live = {**there, **{i: of for i, of in self.live.items() if i in there}}
        self.forgotten = {i: of for i, of in self.forgotten.items() if i not in there}

    def add(self, scope, live):
        rng, now = self.rng, self.clock()
        new = [
            Item(
                text=self.text(), known=now - 500.0 if rng.random() < 0.3 else None, at=now - rng.randrange(10_000),
                until=now + 150.0 if rng.random() < 0.2 else None, session=rng.choice([None, "one"]),
                principal=rng.choice([None, None, "web:a", "web:b"]),
            )
            for _ in range(rng.randint(1, 3))
        ]  # fmt: skip
        if live and rng.random() < 0.4:
            new.append(Item(text=self.text(), kind="fact", sources=tuple(rng.sample(live, min(2, len(live))))))
        ends = rng.sample(live, 1) if live and rng.random() < 0.3 else ()
        for id_ in self.memory.add(new, scope=scope, supersedes=ends):
            self.live[id_] = scope

    def went(self, ids, scope):
        for id_ in ids:
            self.forgotten[id_] = self.live.pop(id_)

    def back(self, id_):
        try:
            came = self.memory.restore(id_, scope=self.forgotten[id_])
        except LookupError:  # what was derived comes back with its sources only
            return
        for one in came:
            self.live[one] = self.forgotten.pop(one)


def answers(memory, when, *, gone=(), learned=True, recall=True):
    """Everything that a memory says, now and of its past; `gone`: ids that are left out."""

    def shown(item):
        item = dataclasses.replace(item, version=0, sources=tuple(i for i in item.sources if i not in gone))
        return item if learned else dataclasses.replace(item, value=0.0, uses=0)

    found = {}
    times = [None, *(START + (when - START) * share for share in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)), when - 450.0]
    for scope in ("/", *SCOPES):
        for then in times:
            items = [item for item in memory.items(scope=scope, as_of=then) if item.id not in gone]
            found[scope, then] = [shown(item) for item in items]
            ids = [item.id for item in items]
            links = memory.links(ids, scope=scope, as_of=then) if ids else []
            found["links", scope, then] = [
                dataclasses.replace(link, sources=()) for link in links if not {link.src, link.dst} & set(gone)
            ]
    found["held"] = [shown(item) for item in memory.quarantined(scope="/") if item.id not in gone]
    for item in found["/", None]:
        found["history", item.id] = memory.history(item.id, scope="/")
    for words in ("kitten boat", "what has Ana in Kiel?", "letter winter tea") if recall else ():
        for scope in ("/", *SCOPES):
            for then in (None, when - 100.0):
                hits = memory.recall(words, 5, scope=scope, as_of=then)
                found["recall", words, scope, then] = [(hit.item.text, round(hit.score, 9)) for hit in hits]
    return found


def told(memory):
    """All that the memory holds, line by line; but not in which order the lines of one call came."""
    out = io.StringIO()
    exchange.export(memory, out)
    lines = [json.loads(line) for line in out.getvalue().split("\n") if line]
    events = [{name: value for name, value in line.items() if name != "seq"} for line in lines if "event" in line]
    rest = [{name: value for name, value in line.items() if name != "version"} for line in lines if "event" not in line]
    return [line for line in rest if "id" not in line], sorted(map(json.dumps, events))


def lived(path, seed, steps, **how):
    life = Life(path, seed, **how)
    for _ in range(steps):
        life.step()
    return life


def place(engine, tmp_path, name):
    return stores.tenant() if engine == "postgres" else tmp_path / f"{name}.db"


@pytest.mark.parametrize(
    ("engine", "seed"), [*(("sqlite", seed) for seed in range(8)), *(("postgres", seed) for seed in range(2))]
)
def test_a_rewound_store_answers_as_the_one_that_lived_until_then(engine, seed, tmp_path):
    steps = 40
    cut = random.Random(seed).randint(5, steps - 5)
    then = lived(place(engine, tmp_path, "then"), seed, cut)  # the oracle: the same history, and no later
    old = lived(place(engine, tmp_path, "old"), seed, steps)
    when = then.clock()
    target = place(engine, tmp_path, "new")
    old.memory.close()
    report = rewind(
        old.memory.path if engine == "sqlite" else old.memory._store._url + f"&tenant={old.memory._store.tenant}",
        target,
        when,
    )
    assert (report.erased, report.unlearned, report.when) == (0, 0, when)
    clock = FixedClock(when)
    with then.memory as wanted, Memory(target, clock=clock) as new:
        assert told(new) == told(wanted)
        assert answers(new, when) == answers(wanted, when)
        used = max(item.id for item in wanted.items(scope="/"))
        fresh = new.add("new here", scope="zoo")[0]
        assert fresh > used
    assert doctor.examine(target) == []
    with Memory(old.memory.path) if engine == "sqlite" else Memory(":memory:") as source:
        assert engine == "postgres" or fresh > max(item.id for item in source.items(scope="/")), "an id was given twice"


@pytest.mark.parametrize("seed", range(8))
def test_what_was_erased_or_learned_since_is_told(seed, tmp_path):
    """Erasing and learning cannot be undone: all else is as it was, and the report says how much is not."""
    steps, how = 50, {"erases": True, "learns": True}
    cut = random.Random(seed).randint(10, steps - 10)
    then = lived(tmp_path / "then.db", seed, cut, **how)
    old = lived(tmp_path / "old.db", seed, steps, **how)
    when = then.clock()
    old.memory.close()
    report = rewind(tmp_path / "old.db", tmp_path / "new.db", when)
    gone = old.erased - then.erased
    with then.memory as wanted, Memory(tmp_path / "new.db", clock=FixedClock(when)) as new:
        there = {item.id for item in wanted.items(scope="/")} | set(then.forgotten)
        lost = gone & there
        assert report.erased >= len(lost)
        assert bool(report.erased) >= bool(lost)
        some = {"gone": gone, "learned": False, "recall": False}
        assert answers(new, when, **some) == answers(wanted, when, **some)
        kept = {item.id: item for item in new.items(scope="/")}
        for item in wanted.items(scope="/"):
            if item.id in kept and kept[item.id].uses:  # a number that was kept is the one of then
                assert (kept[item.id].value, kept[item.id].uses) == (item.value, item.uses)
    assert doctor.examine(tmp_path / "new.db") == []


def test_back_dated_items_are_not_there_before_they_were_added(tmp_path):
    clock = FixedClock(1000.0)
    with Memory(tmp_path / "a.db", clock=clock) as memory:
        memory.add("first")
        clock.tick(100)
        memory.add("told later of long ago", known=1.0)
    rewind(tmp_path / "a.db", tmp_path / "b.db", 1050.0)
    with Memory(tmp_path / "b.db", clock=FixedClock(1050.0)) as memory:
        assert [item.text for item in memory.items()] == ["first"]


def test_learned_state_is_kept_only_if_it_has_not_changed_since(tmp_path):
    clock = FixedClock(1000.0)
    with Memory(tmp_path / "a.db", clock=clock) as memory:
        for scope in ("early", "late"):
            memory.add(["Ana has a kitten", "Bo has a boat"], scope=scope)
        for scope in ("early", "late"):
            memory.learn(memory.recall("who has a kitten?", 1, scope=scope), 1.0)
        clock.tick(100)
        memory.learn(memory.recall("who has a boat?", 1, scope="late"), 1.0)
        memory.flush()
    report = rewind(tmp_path / "a.db", tmp_path / "b.db", 1050.0)
    assert report.unlearned > 0
    assert "begin anew" in str(report)

    def states(name):
        sql = "SELECT path, name, data FROM state JOIN scope ON scope.id = state.scope ORDER BY 1, 2"
        db = sqlite3.connect(tmp_path / name)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    assert states("b.db") == [row for row in states("a.db") if row[0] == "early"] != []


def test_before_the_log_begins_and_over_what_is_there_is_refused(tmp_path):
    with Memory(tmp_path / "a.db", clock=FixedClock(1000.0)) as memory:
        memory.add("x")
    with pytest.raises(ValueError, match="before the first line of the store's log .it begins at 1970"):
        rewind(tmp_path / "a.db", tmp_path / "b.db", 10.0)
    assert not (tmp_path / "b.db").exists()
    with Memory(tmp_path / "c.db") as memory:
        memory.add("mine")
    with pytest.raises(ValueError, match="holds 1 items"):
        rewind(tmp_path / "a.db", tmp_path / "c.db", 2000.0)
    with pytest.raises(ValueError, match="address of a server"):
        rewind("http://127.0.0.1:1", tmp_path / "d.db", 2000.0)


def test_a_rewind_that_was_cut_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(move, "_BATCH", 7)
    life = lived(tmp_path / "a.db", 3, 30)
    life.memory.close()
    when = START + (life.clock() - START) / 2
    wanted = rewind(tmp_path / "a.db", tmp_path / "whole.db", when)

    def stop(done, total):
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewind(tmp_path / "a.db", tmp_path / "b.db", when, progress=stop)
    (finding,) = doctor.examine(tmp_path / "b.db")
    assert "run it again" in str(finding)
    report = rewind(tmp_path / "a.db", tmp_path / "b.db", when)
    assert report.moved.already >= 14
    assert (report.moved.digest, report.moved.counts) == (wanted.moved.digest, wanted.moved.counts)


def test_a_log_with_an_import_into_a_store_in_use(tmp_path):
    """The lines of an imported log are older than the import; the import itself is what counts."""
    old = FixedClock(1000.0)
    with Memory(tmp_path / "other.db", clock=old) as other:
        other.add(["one", "two"], scope="o")
        out = io.StringIO()
        exchange.export(other, out)
    (tmp_path / "other.jsonl").write_text(out.getvalue())
    clock = FixedClock(5000.0)
    with Memory(tmp_path / "a.db", clock=clock) as memory:
        memory.add("mine", scope="o")
        clock.tick(10)
        exchange.load(memory, tmp_path / "other.jsonl")
        clock.tick(10)
        memory.add("after", scope="o")
    for when, texts in (
        (5005.0, ["mine"]),
        (5015.0, ["mine", "one", "two"]),
        (5025.0, ["mine", "one", "two", "after"]),
    ):
        rewind(tmp_path / "a.db", tmp_path / f"{when}.db", when)
        with Memory(tmp_path / f"{when}.db", clock=FixedClock(when)) as memory:
            assert [item.text for item in memory.items(scope="/")] == texts
    shutil.rmtree(tmp_path)


def test_jobs_that_ended_since_wait_again(tmp_path):
    clock = FixedClock(1000.0)
    with Memory(tmp_path / "a.db", clock=clock) as memory:
        memory.add("x", scope="s")
        with memory.writing() as db:
            db.execute(
                "INSERT INTO job (kind, scope, detail, done, total, created, ended) VALUES ('write', 1, ?, 1, 1, 1000, 1100)",
                (json.dumps({"first": 1, "last": 1}),),
            )
        clock.tick(200)
        memory.add("y", scope="s")
    rewind(tmp_path / "a.db", tmp_path / "b.db", 1050.0)
    with Memory(tmp_path / "b.db") as memory:
        (job,) = memory.jobs(scope="s", waiting=True)
        assert (job.done, job.ended) == (0, None)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_link_that_went_and_came_back_before_and_after(engine, tmp_path):
    clock, source = FixedClock(1000.0), place(engine, tmp_path, "a")
    with Memory(source, clock=clock, scope="s") as memory:
        a, b = memory.add(["left", "right"])
        memory.link(a, "near", b)
        for verb in (memory.forget, memory.restore, memory.forget, memory.restore):  # at 1010, 1020, 1030, 1040
            clock.tick(10)
            verb(b)
    for when, stands in ((1005, True), (1015, False), (1025, True), (1035, False), (1045, True)):
        target = place(engine, tmp_path, str(when))
        rewind(source, target, when)
        with Memory(target, clock=FixedClock(when), scope="s") as memory:
            assert bool(memory.links(a)) == stands
            with memory.reading() as db:
                past = db.execute("SELECT gone, ended FROM link_past ORDER BY 1").fetchall()
            assert [tuple(row) for row in past] == [x for x in ((1010.0, 1020.0), (1030.0, 1040.0)) if x[1] <= when]
            for then in range(1005, when, 10):
                assert bool(memory.links(a, as_of=then)) == (then in (1005, 1025, 1045)), (when, then)
        assert doctor.examine(target) == []

"""What real machines do to a file: kill -9, full disks, files that cannot be written, files that are something else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loci.core.errors import ClosedError, LociError, NotAStore, ReadOnly, StorageFull, StoreError
from loci.records import Item, Memory, doctor, schema
from loci.records.checks import ask
from loci.records.oracle import Replay

QUICK, LONG = 20, 200

# --- kill -9 ----------------------------------------------------------------------------------------------------------

CHILD = """
import json, random, sys
from loci.records import Item, Memory
path, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
def say(*what):
    sys.stdout.write(json.dumps(what) + chr(10)); sys.stdout.flush()
with Memory(path, scope="a") as memory:
    say("ready")
    for turn in range(10**6):
        live = [item.id for item in memory.items()]
        dice = rng.random()
        if dice < 0.5 or len(live) < 4:
            sources = tuple(rng.sample(live, 2)) if len(live) > 4 and rng.random() < 0.4 else ()
            texts = [f"kitten {rng.choice('abcdef')} of run {seed} turn {turn} number {n}" for n in range(rng.randint(1, 40))]
            say("try", "add", texts, sources)
            ids = memory.add([Item(text=text, sources=sources, kind="fact" if sources else "episode") for text in texts])
            say("ack", "add", list(ids))
        elif dice < 0.8:
            ids = rng.sample(live, rng.randint(1, min(20, len(live))))
            erase = rng.random() < 0.3
            say("try", "forget", ids, erase)
            say("ack", "forget", list(memory.forget(ids, erase=erase)))
        else:
            memory.recall("kitten a", 3)
            say("try", "consolidate")
            memory.consolidate()
            say("ack", "consolidate")
"""


def live_in(path: Path) -> dict[int, str]:
    with Memory(path, scope="a") as memory:
        found = {item.id: item.text for item in memory.items()}
        for text in ("kitten a", "kitten f of run 3"):
            ask(memory, text, 5, "a")
    return found


def after(state: dict[int, Item], tried: list) -> dict[int, Item]:  # type: ignore[type-arg]
    """What is remembered when the unacknowledged call was carried out."""
    if tried[0] == "add":
        return state | {-n: Item(text=text) for n, text in enumerate(tried[1], start=1)}
    if tried[0] == "forget":
        oracle = Replay()
        for id_, item in state.items():
            oracle.note("add", 0.0, Item(text=item.text, id=id_, sources=item.sources, known=0.0))
        went = oracle.closure(tried[1])
        return {id_: item for id_, item in state.items() if id_ not in went}
    return state


def kill_round(path: Path, state: dict[int, Item], given: set[int], seed: int) -> dict[int, Item]:
    """One child, killed at a random moment; what must be remembered after it."""
    rng = random.Random(seed)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(seed)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert json.loads(child.stdout.readline()) == ["ready"]
    time.sleep(rng.random() ** 2 * 0.25)
    child.kill()
    lines = [json.loads(line) for line in child.communicate()[0].splitlines() if line.endswith("]")]
    tried: list | None = None  # type: ignore[type-arg]
    for line in lines:
        if line[0] == "try":
            tried = line[1:]
            continue
        assert tried is not None
        if line[1] == "add":
            assert given.isdisjoint(line[2]), "an id was used again"
            given |= set(line[2])
            kind = "fact" if tried[2] else "episode"
            state = state | {
                id_: Item(text=text, kind=kind, sources=tuple(tried[2]), id=id_)
                for id_, text in zip(line[2], tried[1], strict=True)
            }
        elif line[1] == "forget":
            wanted = after(state, tried)
            strange = (set(state) - set(wanted)) ^ set(line[2])
            assert not strange, f"forget({tried[1]}) differs in {[(state.get(id_), id_ in line[2]) for id_ in strange]}"
            state = wanted
        tried = None
    found = live_in(path)
    texts = sorted(found.values())
    before, done = (
        sorted(item.text for item in held.values()) for held in (state, after(state, tried) if tried else state)
    )
    assert texts in (before, done), (
        f"round {seed}, killed in {tried and tried[0]}: lost {set(before) - set(texts)}, half-done {set(texts) - set(before)}"
    )
    integrity(path)
    with Memory(path, scope="a") as memory:
        return {item.id: item for item in memory.items()}


def integrity(path: Path) -> None:
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        db.close()
    assert doctor.examine(path) == []


def kill_rounds(path: Path, rounds: int) -> None:
    state: dict[int, Item] = {}
    given: set[int] = set()
    for seed in range(rounds):
        if len(state) > 600:  # start again, or the rounds grow slow
            path = path.with_name(f"{seed}.db")
            state, given = {}, set()
        state = kill_round(path, state, given, seed)
        given |= set(state)
    assert given, "no round acknowledged anything: the test shows nothing"


def test_kill_loses_nothing_acknowledged(tmp_path: Path) -> None:
    kill_rounds(tmp_path / "memory.db", QUICK)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_loses_nothing_acknowledged_in_many_rounds(tmp_path: Path) -> None:
    kill_rounds(tmp_path / "memory.db", LONG)


# --- no room ----------------------------------------------------------------------------------------------------------


def fill(memory: Memory, write: Callable[[int], object]) -> StorageFull:
    """Write until there is no room; the error."""
    for turn in range(10_000):
        try:
            write(turn)
        except StorageFull as error:
            return error
    raise AssertionError("the store never filled")


def test_a_full_store_says_so_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with Memory(path) as memory:
        kept = memory.add([f"kitten number {n}" for n in range(50)])
        memory._store._writer.execute("PRAGMA max_page_count = 60")
        error = fill(
            memory, lambda turn: kept.extend(memory.add([f"kitten {turn} {n} " + "word " * 50 for n in range(20)]))
        )
        assert "no space left" in str(error)
        assert "nothing of this call was kept" in str(error)
        assert [item.id for item in memory.items()] == kept
        assert memory.recall("kitten number 7", 3)
        memory._store._writer.execute("PRAGMA max_page_count = 1000000")
        kept += memory.add("there is room again")
    integrity(path)
    with Memory(path) as memory:
        assert [item.id for item in memory.items()] == kept


FILLS = """
import resource, sys
from loci.core.errors import StorageFull
from loci.records import Memory
with Memory(sys.argv[1]) as memory:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    count = len(memory.items())
    error = None
    for turn in range(10_000):
        try:
            count += len(memory.add([f"kitten {turn} {n} " + "word " * 50 for n in range(20)]))
        except StorageFull as full:
            error = full
            break
    assert error is not None, "never full"
    assert len(memory.items()) == count, (len(memory.items()), count)
    assert memory.recall("kitten", 3)
    try:
        memory.consolidate()
        memory.forget(memory.items()[0].id, erase=True)
        count = len(memory.items())
    except StorageFull:
        count = len(memory.items())
    print(count, flush=True)
"""


def test_a_file_that_may_not_grow_says_so_and_loses_nothing(tmp_path: Path) -> None:
    """The system refuses to write (RLIMIT_FSIZE): the same error, and the file opens with everything in it."""
    path = tmp_path / "memory.db"
    with Memory(path) as memory:
        memory.add([f"kitten number {n}" for n in range(50)])
    child = subprocess.run([sys.executable, "-c", FILLS, str(path)], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    integrity(path)
    with Memory(path) as memory:
        assert len(memory.items()) == int(child.stdout)
        memory.add("there is room again")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_budget_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with Memory(tmp_path / "memory.db", budget="300kB") as memory:
        kept: list[int] = []
        with pytest.raises(LociError, match="nothing was added") as caught:
            for turn in range(1000):
                kept += memory.add([f"kitten {turn} {n} " + "word " * 50 for n in range(20)])
        assert caught.value.needed > caught.value.limit == 300_000  # type: ignore[attr-defined]
        assert [item.id for item in memory.items()] == kept
        assert memory.nbytes <= 300_000


# --- no permission ----------------------------------------------------------------------------------------------------

READS = """
import os, sys
from loci.core.errors import ReadOnly
from loci.records import Memory
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
path, what = sys.argv[1:]
try:
    memory = Memory(path)
except ReadOnly as error:
    print("refused:", error)
    sys.exit()
try:
    print("items", len(memory.items()), len(memory.recall("kitten number 7", 3)))
    for verb in (lambda: memory.add("new"), lambda: memory.forget(1), lambda: memory.forget(1, erase=True), memory.consolidate):
        try:
            verb()
        except ReadOnly as error:
            print("refused:", error)
        else:
            print("written")
finally:
    memory.close()
"""


@pytest.mark.parametrize("what", ["file", "folder", "both", "unreadable", "new"])
def test_what_cannot_be_written_says_so_and_is_left_as_it_is(what: str, tmp_path: Path) -> None:
    """As a user who may not write (root may always, so a root test run becomes `nobody` first)."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "memory.db"
    with Memory(path) as memory:
        ids = memory.add([f"kitten number {n}" for n in range(50)])
    if what == "new":
        path.unlink()
    else:
        path.chmod({"file": 0o444, "both": 0o444, "unreadable": 0o000}.get(what, 0o666))
    folder.chmod(0o777 if what in ("file", "unreadable") else 0o555)
    before = path.read_bytes() if what != "new" and os.access(path, os.R_OK) else None
    for parent in [tmp_path, *tmp_path.parents]:  # pytest's own folders are private
        if "pytest-" in str(parent):
            parent.chmod(parent.stat().st_mode | 0o055)
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.run(
        [sys.executable, "-c", READS, str(path), what], capture_output=True, text=True, check=False, env=env
    )
    folder.chmod(0o777)
    assert child.returncode == 0, child.stderr[-2000:]
    said = child.stdout.splitlines()
    assert said
    assert "written" not in said, said
    assert sum(line.startswith("refused:") for line in said) == (1 if not said[0].startswith("items") else 4), said
    assert all(
        "nothing was written" in line or "cannot be read" in line for line in said if line.startswith("refused:")
    ), said
    if what == "new":
        assert not path.exists()
        return
    path.chmod(0o666)
    if before is not None:
        assert path.read_bytes() == before
    with Memory(path) as memory:
        assert [item.id for item in memory.items()] == ids


# --- not a store ------------------------------------------------------------------------------------------------------


def foreign(path: Path, *, wal: bool = False) -> None:
    db = sqlite3.connect(path)
    if wal:
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE customers (name TEXT)")
    db.execute("INSERT INTO customers VALUES ('Ana')")
    db.commit()
    db.close()


def truncated(path: Path, share: float) -> None:
    with Memory(path) as memory:
        memory.add([f"kitten number {n} " + "word " * 30 for n in range(500)])
    with path.open("rb+") as file:
        file.truncate(int(path.stat().st_size * share))


def newer(path: Path) -> None:
    with Memory(path) as memory:
        memory.add("from the future")
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()


def other_owner(path: Path) -> None:
    foreign(path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA application_id = 1196444487")
    db.close()


def overwritten(path: Path) -> None:
    truncated(path, 1.0)
    with path.open("rb+") as file:
        file.seek(100)
        file.write(b"\xff" * 8000)


STRANGERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("dear diary\n" * 100),
    "short text": lambda path: path.write_text("hi"),
    "zip": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(200)),
    "zeros": lambda path: path.write_bytes(bytes(8192)),
    "foreign": foreign,
    "foreign with a log": lambda path: foreign(path, wal=True),
    "other application": other_owner,
    "newer schema": newer,
    "cut to the header": lambda path: truncated(path, 0.001),
    "cut to a tenth": lambda path: truncated(path, 0.1),
    "cut to a half": lambda path: truncated(path, 0.5),
    "cut by a page": lambda path: truncated(path, 0.995),
    "header alone": lambda path: path.write_bytes(b"SQLite format 3\x00"),
    "header and nonsense": lambda path: path.write_bytes(b"SQLite format 3\x00" + b"\x17" * 500),
    "overwritten": overwritten,
}


@pytest.mark.parametrize("what", STRANGERS)
def test_a_stranger_is_refused_and_left_as_it_is(what: str, tmp_path: Path) -> None:
    path = tmp_path / "it.db"
    STRANGERS[what](path)
    before = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()}
    with pytest.raises(NotAStore) as caught:
        Memory(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()} == before


def test_a_foreign_log_that_is_still_open_is_left_as_it_is(tmp_path: Path) -> None:
    """Another program's database with unsaved pages in its log: opening and closing it must not merge them."""
    path = tmp_path / "it.db"
    foreign(path, wal=True)
    owner = sqlite3.connect(path)
    owner.execute("INSERT INTO customers VALUES ('Bo')")
    owner.commit()
    shutil.copytree(tmp_path, copy := tmp_path / "copy")
    owner.close()
    before = {file.name: file.read_bytes() for file in copy.iterdir() if not file.name.endswith("-shm")}
    with pytest.raises(NotAStore):
        Memory(copy / "it.db")
    assert {file.name: file.read_bytes() for file in copy.iterdir() if not file.name.endswith("-shm")} == before


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAStore, match="is a folder"):
        Memory(tmp_path)
    with pytest.raises(StoreError, match="does not exist"):
        Memory(tmp_path / "no" / "memory.db")
    assert not list(tmp_path.iterdir())


def test_damage_found_later_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "it.db"
    truncated(path, 1.0)
    pages = path.stat().st_size // 4096
    with path.open("rb+") as file:
        for page in range(pages // 2, pages):
            file.seek(page * 4096)
            file.write(random.Random(page).randbytes(4096))
    with pytest.raises(StoreError), Memory(path) as memory:
        for item in memory.items():
            memory.forget(item.id)


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    path.touch()
    with Memory(path) as memory:
        assert memory.add("kitten")
        assert memory.recall("kitten")


def test_a_closed_memory_says_so(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory.db")
    memory.add("kitten")
    memory.close()
    memory.close()
    for verb in (
        lambda: memory.add("x"),
        lambda: memory.recall("kitten"),
        memory.items,
        memory.consolidate,
        lambda: memory.nbytes,
    ):
        with pytest.raises(ClosedError, match="open it again"):
            verb()


def test_read_only_is_an_error_of_the_store() -> None:
    assert issubclass(ReadOnly, StoreError)
    assert issubclass(StorageFull, StoreError)


# --- whatever text ----------------------------------------------------------------------------------------------------

TEXTS = (
    "", " ", "\x00", "a\x00b kitten", "\U0001f408 kitten \U0001f3fd", "\u05d0\u05d1 kitten", "\u732b\u304c\u597d\u304d", "\ufeffkitten",
    "e\u0301 kitten \u00e9", "'); DROP TABLE item; --", '"kitten" NEAR/2 OR', "kitten\r\n\ttwo", "\u202ekitten", "%s {} $1 :x ?", "\\",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize("scheme", ["loci", "bm25"])
def test_text_comes_back_as_it_was_given(text: str, scheme: str, tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with Memory(path, scheme=scheme) as memory:
        ids = memory.add(
            [text, "the harbour"], session=text, source=text, meta={text: [text, None, 1.5, {"deep": True}]}
        )
        memory.recall(text, 3)
        for word in text.split():
            ask(memory, word, 3, "default")
    with Memory(path, scheme=scheme) as memory:
        (item,) = memory.get(ids[0])
        assert (item.text, item.session, item.source) == (text, text, text)
        assert item.meta == {text: [text, None, 1.5, {"deep": True}]}
        assert memory.count() == 2
        if "kitten" in text:
            assert memory.recall("kitten", 1).ids == ids[:1]
        assert memory.forget(ids[0], erase=True) == ids[:1]
        assert [one.text for one in memory.items()] == ["the harbour"]
    integrity(path)


@pytest.mark.parametrize("field", ["text", "session", "source", "meta", "key"])
@pytest.mark.parametrize("as_item", [False, True])
def test_lone_surrogates_are_refused(field: str, as_item: bool) -> None:
    bad = "kitten \ud800"
    given = {"text": "kitten"} | (
        {"meta": {"x": bad}} if field == "meta" else {"meta": {bad: 1}} if field == "key" else {field: bad}
    )
    with Memory(":memory:") as memory:
        with pytest.raises(ValueError, match="without lone surrogates"):
            if as_item:
                memory.add(["good", Item(**given)])  # type: ignore[arg-type]
            else:
                memory.add(["good", str(given.pop("text"))], **given)  # type: ignore[arg-type]
        assert memory.count() == 0, "half of the call was kept"


def test_a_question_with_a_lone_surrogate_does_not_break_the_next_write() -> None:
    with Memory(":memory:") as memory:
        ids = memory.add("a kitten")
        assert memory.recall("kitten \ud800").ids == ids
        assert memory.add("next")
        assert memory.count() == 2
        memory.learn(memory.recall("kitten \ud800"), 1.0)
        memory.flush()
        with memory.reading() as db:
            assert db.execute("SELECT count(*) FROM asked").fetchone()[0] == 2


@pytest.mark.parametrize(
    "wrong", [{"meta": {"x": object()}}, {"meta": {1: "a", "b": 2}}, {"meta": {"x": b"bytes"}}, {"kind": "idea"}]
)
def test_what_cannot_be_kept_is_refused_whole(wrong: dict[str, object]) -> None:
    with Memory(":memory:") as memory:
        with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
            memory.add(["one", "two"], **wrong)  # type: ignore[arg-type]
        for what in (
            5,
            None,
            b"bytes",
            [b"bytes"],
            Item(text=5),
            Item(text="x", source=5),
            Item(text="x", session=1.5),
        ):  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                memory.add(what)  # type: ignore[arg-type]
        assert memory.count(scope="/") == 0


def test_ten_megabytes_in_one_text(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    text = " ".join(f"word{n % 5000}" for n in range(1_200_000)) + " needle7x"
    assert len(text) > 10_000_000
    with Memory(path) as memory:
        ids = memory.add([text, "a kitten"])
        assert memory.recall("needle7x", 1).ids == ids[:1]
        assert memory.recall("kitten", 1).ids == ids[1:]
    with Memory(path) as memory:
        assert memory.get(ids[0])[0].text == text
        memory.forget(ids[0], erase=True)
    assert path.stat().st_size < 1_000_000
    integrity(path)

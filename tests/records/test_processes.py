"""Many processes and threads on one file: no lost write, no error, each reader sees its scope only, and it only grows."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loci.core.errors import ClosedError
from loci.records import Memory
from loci.records.checks import Words

WRITERS, READERS, CALLS, BATCH = 4, 2, 40, 5

WRITER = f"""
import sys
from loci.records import Memory
path, name = sys.argv[1:]
with Memory(path, scope=f"team/{{name}}") as memory:
    for turn in range({CALLS}):
        ids = memory.add([f"kitten {{name}} turn {{turn}} number {{n}}" for n in range({BATCH})])
        assert len(memory.get(ids)) == {BATCH}
        if turn % 10 == 5:
            memory.forget(ids[0])
            memory.learn(memory.recall(f"kitten {{name}} turn {{turn}}", 3), 1.0)
    print(memory.count())
"""
READER = """
import json, sys
from loci.records import Memory
path, scope, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
counts, newest, scopes = [], [], set()
with Memory(path, scope=scope) as memory:
    while not counts or counts[-1] < last:
        items = memory.items()
        scopes |= {item.scope for item in items} | {hit.item.scope for hit in memory.recall("kitten turn number", 10)}
        counts.append(len(items))
        newest.append(max((item.id for item in items), default=0))
print(json.dumps([counts, newest, sorted(scopes)]))
"""


def start(code: str, *args: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, *args], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_four_writers_and_two_readers_on_one_file(tmp_path: Path) -> None:
    """The file is not even made when they start: all of them race to make it."""
    path = str(tmp_path / "memory.db")
    kept = CALLS * BATCH - CALLS // 10
    writers = [start(WRITER, path, f"w{n}") for n in range(WRITERS)]
    readers = [
        (start(READER, path, scope, str(last)), scope, last)
        for scope, last in (("team", WRITERS * kept), ("team/w1", kept))
    ]
    for writer in writers:
        out, err = writer.communicate(timeout=120)
        assert writer.returncode == 0, err[-2000:]
        assert out == f"{kept}\n"
    for reader, scope, last in readers:
        out, err = reader.communicate(timeout=120)
        assert reader.returncode == 0, err[-2000:]
        counts, newest, scopes = json.loads(out)
        assert counts[-1] == last
        assert newest == sorted(newest), "a reader saw the past"
        assert scopes == ([f"team/w{n}" for n in range(WRITERS)] if scope == "team" else ["team/w1"])
    with Memory(path, scope="/") as memory:
        items = memory.items()
        assert len(items) == WRITERS * kept == len({item.text for item in items})
        assert memory.count(scope="team/w2") == kept


ADDS = """
import sys
from loci.records import Memory
with Memory(sys.argv[1], scope=sys.argv[2]) as memory:
    for turn in range(60):
        memory.add([f"kitten turn {turn} number {n}" for n in range(5)])
"""


def test_readers_see_only_growth_while_writers_write(tmp_path: Path) -> None:
    path = str(tmp_path / "memory.db")
    Memory(path).close()
    readers = [start(READER, path, f"s{n}", "600") for n in range(READERS)]
    writers = [start(ADDS, path, f"s{n % 2}") for n in range(WRITERS)]
    for writer in writers:
        _, err = writer.communicate(timeout=120)
        assert writer.returncode == 0, err[-2000:]
    for reader in readers:
        out, err = reader.communicate(timeout=120)
        assert reader.returncode == 0, err[-2000:]
        counts, _, scopes = json.loads(out)
        assert counts == sorted(counts)
        assert counts[-1] == 600
        assert scopes == [f"s{readers.index(reader)}"]
        assert all(count % 5 == 0 for count in counts), "half of a call was seen"


MAKES = """
import sys
from loci.records import Memory
print("ready", flush=True)
sys.stdin.readline()
with Memory(sys.argv[1]) as memory:
    memory.add(sys.argv[2])
    print(memory.name)
"""


def test_many_processes_make_one_store(tmp_path: Path) -> None:
    for turn in range(4):
        path = str(tmp_path / f"{turn}.db")
        children = [start(MAKES, path, f"kitten {n}") for n in range(6)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        names = set()
        for child in children:
            out, err = child.communicate(timeout=60)
            assert child.returncode == 0, err[-2000:]
            names.add(out)
        with Memory(path) as memory:
            assert names == {f"{memory.name}\n"}
            assert memory.count() == 6


def test_eight_threads_on_one_memory(tmp_path: Path) -> None:
    with Memory(tmp_path / "memory.db", embedder=Words()) as memory:
        barrier = threading.Barrier(8)

        def live(n: int) -> tuple[set[int], set[int]]:
            scope = f"team/t{n}"
            barrier.wait()
            mine: set[int] = set()
            gone: set[int] = set()
            for turn in range(25):
                mine |= set(memory.add([f"kitten {n} turn {turn} a", f"harbour {n} turn {turn} b"], scope=scope))
                hits = memory.recall(f"kitten {n} turn {turn}", 4, scope=scope)
                assert hits
                assert {hit.item.id for hit in hits} <= mine - gone
                assert {hit.item.scope for hit in memory.recall("harbour", 3, scope="team")} <= {
                    f"team/t{x}" for x in range(8)
                }
                if turn % 5 == 4:
                    memory.learn(hits, 1.0)
                    gone |= set(memory.forget(hits[0].item.id, scope=scope))
                    memory.items(scope=scope, as_of="2023-05-03")
                assert memory.count(scope=scope) == len(mine - gone)
            return mine, gone

        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(live, range(8)))
        assert len(set().union(*(mine for mine, _ in told))) == 8 * 25 * 2, "an id was given twice"
        for n, (mine, gone) in enumerate(told):
            assert {item.id for item in memory.items(scope=f"team/t{n}")} == mine - gone
    with Memory(tmp_path / "memory.db") as memory:
        assert {item.id for item in memory.items(scope="/")} == set().union(*(mine - gone for mine, gone in told))


def test_a_handle_sees_what_another_wrote(tmp_path: Path) -> None:
    with Memory(tmp_path / "memory.db") as one, Memory(tmp_path / "memory.db") as two:
        assert not two.recall("kitten", scope="a")
        ids = one.add("a kitten", scope="a/b")
        assert two.recall("kitten", scope="a").ids == ids
        two.forget(ids)
        assert not one.recall("kitten", scope="a/b")
        assert one.count(scope="a") == 0
        one.restore(ids)
        assert two.recall("kitten", scope="a").ids == ids


def test_connections_of_ended_threads_are_let_go() -> None:
    with Memory(":memory:") as memory:
        memory.add("kept")
        for _ in range(30):
            thread = threading.Thread(target=memory.count)
            thread.start()
            thread.join()
        assert len(memory._store._all) <= 4  # the writer, this thread, the last one that ended


ADDS_ONE = "import sys; from loci.records import Memory; Memory(sys.argv[1]).add(sys.argv[2])"


def ran(code: str, *args: str) -> None:
    """Run to the end, closing connections on the way: whoever closes last folds the log into the file and removes it."""
    child = start(code, *args)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err[-2000:]


def test_a_second_handle_and_a_scan_leave_the_locks(tmp_path: Path) -> None:
    """POSIX drops a file's locks when any descriptor of it is closed; another process would then remove a log in use."""
    path = str(tmp_path / "memory.db")
    with Memory(path) as memory:
        ids = memory.add(["kept", "erased"])
        Memory(path).close()
        memory.forget(ids[1], erase=True)
        assert memory.verify_forgotten(ids[1]).clean
        ran(ADDS_ONE, path, "from another process")
        assert Path(path + "-wal").exists(), "another process took itself for the last one"
        memory.add("written after that")
        ran(ADDS_ONE, path, "from a third process")
    with Memory(path) as memory:
        assert {item.text for item in memory.items()} == {
            "kept", "from another process", "written after that", "from a third process",
        }  # fmt: skip


def test_a_forked_child_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "memory.db")
    with Memory(path) as memory:
        memory.add("kept")
        child = os.fork()
        if not child:
            try:
                memory.add("never")
            except ClosedError as error:
                with contextlib.suppress(BaseException):
                    memory.close()
                os._exit(7 if "fork" in str(error) else 8)
            os._exit(9)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        memory.add("kept too")
        assert memory.count() == 2

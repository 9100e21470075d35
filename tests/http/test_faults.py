"""Real server processes, real clients, real signals: what was acknowledged is there, and nothing is there twice."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loci.core.errors import LociError, StorageFull, StoreError
from loci.records import Memory, tokens
from loci.records.remote import RemoteMemory

pytestmark = pytest.mark.enable_socket

CLIENTS, BATCH = 4, 3


class Server:
    """`loci serve` as a process of its own; started again it takes the same port."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path, self.options, self.port = path, options, 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", "from loci.app.cli import main; main()"]
        self.process = subprocess.Popen(
            [*command, "serve", str(self.path), "--port", str(self.port), *self.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        assert " at http://" in line, line + self.process.stderr.read()
        self.url = line.split(" at ")[1].strip()
        self.port = int(self.url.rsplit(":", 1)[1])

    def signal(self, which: int) -> str:
        """Send a signal and wait until the process has ended; what it said on stderr."""
        self.process.send_signal(which)
        _, said = self.process.communicate(timeout=60)
        return said

    def end(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def server(tmp_path):
    running = Server(tmp_path / "m.db")
    yield running
    running.end()


class Load:
    """Clients that add as fast as they can, each noting what was acknowledged and with which error it ended."""

    def __init__(self, url: str, retries: int = 0) -> None:
        self.url, self.retries = url, retries
        self.acknowledged: dict[str, list[int]] = {}
        self.errors: list[Exception] = []
        self.stop, self.enough = threading.Event(), threading.Semaphore(0)
        self.pool = ThreadPoolExecutor(CLIENTS)
        self.done = [self.pool.submit(self._add, n) for n in range(CLIENTS)]

    def _add(self, client: int) -> None:
        with RemoteMemory(self.url, scope="load", retries=self.retries) as remote:
            for turn in range(10_000):
                if self.stop.is_set():
                    return
                texts = [f"client {client} turn {turn} part {part}" for part in range(BATCH)]
                try:
                    ids = remote.add(texts)
                except (LociError, ValueError) as error:
                    self.errors.append(error)
                    return
                self.acknowledged |= dict(zip(texts, ids, strict=True))
                self.enough.release()

    def wait(self, adds: int) -> None:
        for _ in range(adds):
            assert self.enough.acquire(timeout=60), f"the load stands still: {self.errors}"

    def end(self) -> None:
        self.stop.set()
        for one in self.done:
            one.result(timeout=120)
        self.pool.shutdown()


def kept(path: Path) -> dict[str, list[int]]:
    with Memory(path) as memory:
        found: dict[str, list[int]] = {}
        for item in memory.items(scope="/"):
            found.setdefault(item.text, []).append(item.id)
        return found


def whole(found: dict[str, list[int]]) -> None:
    """Every call is there whole or not at all."""
    parts: dict[str, int] = {}
    for text in found:
        parts[text.rsplit(" part ", 1)[0]] = parts.get(text.rsplit(" part ", 1)[0], 0) + 1
    assert set(parts.values()) <= {BATCH}, "a call is there in part"


def test_kill_9_under_load_loses_nothing_that_was_acknowledged(server):
    load = Load(server.url)
    load.wait(40)
    server.signal(signal.SIGKILL)
    load.end()
    assert load.errors
    assert all(isinstance(error, StoreError) for error in load.errors), load.errors
    found = kept(server.path)
    for text, id_ in load.acknowledged.items():
        assert found[text] == [id_], text
    whole(found)


def test_clients_that_try_again_add_each_call_once_across_kills(server):
    """Three kills under load while every client repeats what was not answered: nothing is lost, nothing is double."""
    load = Load(server.url, retries=12)
    for _ in range(3):
        load.wait(15)
        server.signal(signal.SIGKILL)
        server.start()
    load.wait(15)
    load.end()
    assert not load.errors, load.errors
    server.signal(signal.SIGTERM)
    assert kept(server.path) == {text: [id_] for text, id_ in load.acknowledged.items()}


def test_a_key_holds_across_a_kill(server):
    with Memory(server.url) as remote:
        first = remote.add(["a kitten", "a dog"], once="key of the call")
    server.signal(signal.SIGKILL)
    server.start()
    with Memory(server.url) as remote:
        assert remote.add(["a kitten", "a dog"], once="key of the call") == first
        assert remote.count() == 2


def test_sigterm_under_load_answers_all_it_began_and_loses_nothing(server):
    load = Load(server.url)
    load.wait(40)
    said = server.signal(signal.SIGTERM)
    load.end()
    assert "Traceback" not in said, said
    found = kept(server.path)
    assert {text: [id_] for text, id_ in load.acknowledged.items()} == found, (
        "an add is kept that nobody was told of, or lost that somebody was told of"
    )


def test_sigterm_waits_for_a_running_request_and_flushes_the_log(server):
    """An add that waits for another process's lock is in flight when the signal comes: it gets its answer."""
    with Memory(server.url, retries=0) as remote, Memory(server.path) as other, ThreadPoolExecutor(2) as pool:
        remote.add("a kitten")
        remote.recall("kitten")
        with other.writing():
            waiting = pool.submit(remote.add, "in flight")
            while not _running(server.url):
                pass
            server.process.send_signal(signal.SIGTERM)
            refused = False
            while not refused:  # it takes no new connections
                try:
                    with RemoteMemory(server.url, retries=0) as late:
                        late.count()
                except StoreError:
                    refused = True
            assert not waiting.done()
        assert len(waiting.result(timeout=60)) == 1
    server.process.wait(60)
    assert set(kept(server.path)) == {"a kitten", "in flight"}
    with Memory(server.path) as memory, memory.reading() as db:
        assert db.execute("SELECT query FROM asked").fetchall() == [("kitten",)]


def _running(url: str) -> bool:
    import httpx2

    text = httpx2.get(f"{url}/metrics", trust_env=False, verify=False).text
    return "loci_requests_running 2.0" in text  # the add, and this question itself


def test_a_killed_import_goes_on(server, tmp_path):
    source = tmp_path / "lines.jsonl"
    source.write_text("".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(4000)))
    with RemoteMemory(server.url, scope="x", retries=0) as remote:

        def lines():
            for n, line in enumerate(source.read_text().splitlines()):
                if n == 2600:
                    while remote.count() < 2000:
                        pass
                    server.signal(signal.SIGKILL)
                yield json.loads(line)["text"]

        with pytest.raises(StoreError):
            remote.load(lines())
    server.start()
    with RemoteMemory(server.url, scope="x") as remote:
        assert 2000 <= remote.count() < 4000
        assert remote.load(json.loads(line)["text"] for line in source.read_text().splitlines()) == 4000
        assert [item.text for item in remote.items()] == [f"line {n}" for n in range(4000)]


def cli(*args: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"LOCI_TOKEN": token} if token else {})
    command = [sys.executable, "-c", "from loci.app.cli import main; main()", *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_only_loopback_is_served_without_a_token(tmp_path):
    path = str(tmp_path / "m.db")
    refused = cli("serve", path, "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "no live token" in refused.stderr
    assert "loci token new" in refused.stderr
    made = cli("token", "new", path, "ana", "--scope", "acme/ana", "--rights", "read,write,forget", "--json")
    secret = json.loads(made.stdout)["token"]
    assert secret not in cli("token", "list", path).stdout
    server = Server(Path(path), "--host", "0.0.0.0")
    try:
        url = f"http://127.0.0.1:{server.port}"
        assert cli("add", url, "Ana adopted a kitten", "--scope", "acme/ana", token=secret).returncode == 0
        found = cli("recall", url, "what pet does Ana have?", "--scope", "acme/ana", "--json", token=secret)
        assert json.loads(found.stdout)["hits"][0]["text"] == "Ana adopted a kitten"
        (tmp_path / "notes.txt").write_text("a note about the garden\n")
        assert cli("import", url, str(tmp_path / "notes.txt"), "--scope", "acme/ana", token=secret).returncode == 0
        assert '"Ana adopted a kitten"' in cli("export", url, "--scope", "acme/ana", token=secret).stdout
        outside = cli("recall", url, "x", "--scope", "acme", token=secret)
        assert outside.returncode == 2
        assert "acme/ana" in outside.stderr
        assert cli("token", "revoke", path, "ana").returncode == 0
        assert "revoked" in cli("recall", url, "x", "--scope", "acme/ana", token=secret).stderr
    finally:
        server.end()
    with Memory(path) as memory:
        assert not any(one.live(memory.now()) for one in tokens.listed(memory))
    assert cli("serve", path, "--host", "0.0.0.0", "--port", "0").returncode == 2


def test_a_port_in_use_is_said(server, tmp_path):
    other = cli("serve", str(tmp_path / "n.db"), "--port", str(server.port))
    assert other.returncode == 2
    assert "cannot be listened on" in other.stderr
    for command in (("serve", server.url), ("token", "list", server.url)):
        assert "give the file or database" in cli(*command).stderr


def test_a_full_disk_is_one_clear_error_and_loses_nothing(server: Server) -> None:
    """The server may write no file beyond a size, as on a full disk; with room again it goes on."""
    import resource

    with RemoteMemory(server.url, scope="full", retries=0) as remote:
        kept_ids = [remote.add(f"kitten {n}")[0] for n in range(5)]
        limit = server.path.stat().st_size + 300_000
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        with pytest.raises(StorageFull, match="nothing of this call was kept"):
            for n in range(200):
                kept_ids += remote.add([f"turn {n} part {part} " + "word " * 400 for part in range(20)])
        assert [item.id for item in remote.items()] == kept_ids, "a full disk lost or half kept something"
        assert remote.recall("kitten 3", 1)[0].item.id == kept_ids[3]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        kept_ids += remote.add("room again")
        assert [item.id for item in remote.items()] == kept_ids


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_soak_ends_without_an_error_and_without_growing(server: Server) -> None:
    """Mixed load by eight clients for LOCI_SOAK_S seconds (300): every call is answered, the server's memory stays bounded."""
    psutil = pytest.importorskip("psutil")
    stop = time.monotonic() + float(os.environ.get("LOCI_SOAK_S", "300"))
    process, watched = psutil.Process(server.process.pid), []

    def use(client: int) -> int:
        with RemoteMemory(server.url, scope=f"soak/{client}", retries=0) as remote:
            for turn in itertools.count():
                if time.monotonic() > stop:
                    return turn
                ids = remote.add(f"Ana: turn {turn % 500} of client {client}", session=str(turn // 20))
                hits = remote.recall(f"turn {turn % 500}", 3)
                assert hits
                if turn % 5 == 0:
                    remote.learn(hits, 1.0)
                if turn % 2:
                    remote.forget(ids, erase=turn % 50 == 1)
                if client == 0 and turn % 20 == 0:
                    watched.append((time.monotonic(), process.memory_info().rss))
        raise AssertionError

    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        turns = sum(pool.map(use, range(8)))
    assert turns > 100
    early = max(rss for when, rss in watched if when - begin <= 0.3 * (stop - begin))
    assert watched[-1][1] < 1.5 * early + 50_000_000, f"the server grew from {early} to {watched[-1][1]} bytes"

"""Imports and exports: as streams, with progress, resumable, without loss, and without reach beyond what they bring."""

from __future__ import annotations

import io
import json
import tracemalloc

import httpx2
import pytest

from loci.app.http import bulk
from loci.app.http.limits import Limits
from loci.core.clock import FixedClock
from loci.core.errors import Denied, StoreError
from loci.records import Item, Memory, exchange, tokens
from loci.records.checks import START
from tests.http.serving import running

pytestmark = pytest.mark.enable_socket


def exported(memory, scope="/"):
    out = io.StringIO()
    (memory.export if hasattr(memory, "export") else lambda o, scope: exchange.export(memory, o, scope=scope))(
        out, scope=scope
    )
    return out.getvalue()


@pytest.fixture
def filled(memory):
    ids = memory.add([f"kitten {n}" for n in range(1200)], scope="a/b", at="2023-05-03")
    memory.add(Item(text="a fact ü 🦊", kind="fact", sources=tuple(ids[:3]), meta={"x": [1.5]}), scope="a/b")
    memory.link(ids[0], "near", ids[1], scope="a/b")
    memory.learn(memory.recall("kitten 7", scope="a/b"), 1.0)
    memory.forget(ids[5], scope="a/b")
    memory.add("elsewhere", scope="c")
    return memory


def test_the_export_over_http_is_the_export(filled, url):
    with Memory(url) as remote:
        assert exported(remote) == exported(filled)
        assert exported(remote, "a") == exported(filled, "a")
        seen = []
        remote.export(io.StringIO(), scope="a", progress=lambda done, total: seen.append((done, total)))
        assert seen[0] == (1000, 1201)


def test_an_export_is_imported_without_loss(filled, url, tmp_path):
    (tmp_path / "all.jsonl").write_text(exported(filled), "utf-8")
    with Memory(tmp_path / "new.db") as new, running(new) as other, Memory(other) as remote:
        assert remote.load(tmp_path / "all.jsonl", scope="/") == 1202
        assert exported(remote) == exported(filled)
        assert remote.load(tmp_path / "all.jsonl", scope="/") == 0, "sent again it adds nothing"


def test_lines_of_items_come_with_progress(client, memory):
    lines = b"".join(
        json.dumps({"text": f"line {n}", "at": "2023-05-03", "meta": {"n": n}}).encode() + b"\n\n" for n in range(1700)
    )
    with client.stream("POST", "/v1/import", params={"scope": "x"}, content=lines) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        rows = [json.loads(row) for row in answer.iter_lines()]
    assert rows[-1] == {"done": True, "lines": 3400, "items": 1700}
    assert all(row["items"] % bulk.BATCH == 0 for row in rows[:-1])
    assert [item.meta["n"] for item in memory.items(scope="x")] == list(range(1700))


def test_an_import_that_broke_goes_on_when_it_is_sent_again(client, memory):
    good = [json.dumps({"text": f"line {n}"}) for n in range(1600)]
    broken = [*good[:1234], '{"text": 5}', *good[1234:]]
    rows = client.post("/v1/import", content="\n".join(broken)).text.splitlines()
    said = json.loads(rows[-1])["error"]
    assert said["type"] == "ValueError"
    assert said["message"].startswith("line 1235 is no item (text: ")
    assert memory.count() == 1000, "what came before the batch of the broken line is kept"
    for _ in range(2):
        assert json.loads(client.post("/v1/import", content="\n".join(good)).text.splitlines()[-1])["items"] == 1600
        assert [item.text for item in memory.items()] == [f"line {n}" for n in range(1600)]


@pytest.mark.parametrize(
    "line",
    [b"no json", b"[]", b"5", b"\xff", b'{"text": "x", "spell": 1}', b'{"text": "x", "at": "no date"}', b"[" * 100_000],
)
def test_lines_that_are_no_items(shared, line):
    memory, client = shared
    said = json.loads(client.post("/v1/import", content=b'{"text": "x"}\n' + line).text.splitlines()[-1])["error"]
    assert said["type"] == "ValueError"
    assert "Traceback" not in said["message"]
    assert memory.count() == 0


def test_an_empty_import_is_none(client, memory):
    assert client.post("/v1/import", content=b"").json() == {"done": True, "lines": 1, "items": 0}


def test_a_long_line_and_a_long_import_are_refused(memory):
    with (
        running(memory, limits=Limits(line=1000, upload=50_000)) as url,
        httpx2.Client(base_url=url, trust_env=False, verify=False) as http,
    ):
        for content in (b'{"text": "' + b"x" * 2000, (b'{"text": "x"}\n' * 10_000 for _ in range(1))):
            answer = http.post("/v1/import", content=content)
            assert json.loads(answer.text.splitlines()[-1])["error"]["type"] == "TooLarge"


def test_neither_stands_in_memory(tmp_path):
    """40 MB in and out through a client and a server of one process: at no time is more held than batches of a few thousand items."""
    text = "x" * 5_000
    with (
        Memory(tmp_path / "m.db", log_queries=False) as memory,
        running(memory) as url,
        Memory(url, timeout=300) as remote,
    ):
        remote.load(Item(text=f"warm {n} {text}") for n in range(20))
        tracemalloc.start()
        try:
            assert remote.load(Item(text=f"kitten {n} {text}") for n in range(8000)) == 8000

            class Counts(io.StringIO):
                size = 0

                def write(self, piece):
                    self.size += len(piece)
                    return len(piece)

            out = Counts()
            tracemalloc.reset_peak()
            remote.export(out)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert out.size > 40_000_000
    assert peak < 30_000_000, f"the export held {peak} bytes at once"


def hostile(change):
    """An export of two items and a link, with one line changed."""
    item = {"kind": "fact", "text": "t", "at": None, "since": None, "until": None, "known": 1.0, "changed": 1.0, "session": None,
            "source": None, "principal": None, "trust": 1, "held": 0, "value": 0.0, "uses": 0, "pinned": 0, "gone": None}  # fmt: skip
    rows = [
        {"loci": 1, "items": 2}, {"scope": "x", "id": 1},
        *({"item": {"id": n} | item, "meta": {}, "version": 1, "scope": "x"} for n in (1, 2)),
        {"derived": [2, 1]},
        {"link": {"id": 1, "src": 1, "rel": "r", "dst": 2, "weight": 1.0, "since": None, "until": None, "known": 1.0, "gone": None}},
        {"vouched": [1, 1]},
    ]  # fmt: skip
    change(rows)
    return "\n".join(map(json.dumps, rows)) + "\n"


HOSTILE = {
    "derived from another's": lambda rows: rows[4].update(derived=[2, -3]),
    "another's derived from mine": lambda rows: rows[4].update(derived=[0, 1]),
    "an item in another's place": lambda rows: rows[2]["item"].update(id=-1),
    "a link to another's": lambda rows: rows[5]["link"].update(dst=-1),
    "a link beyond the file": lambda rows: rows[5]["link"].update(dst=9),
    "another's link": lambda rows: rows[6].update(vouched=[0, 1]),
    "another's past": lambda rows: rows.append(
        {"past": {"item": -2, "since": None, "until": None, "gone": 1.0, "known": 0.0, "ended": 1.0}}
    ),
    "another's state": lambda rows: rows.append({"state": ["loci", "item:-1"], "scope": "x", "data": ""}),
    "another's questions": lambda rows: rows.append(
        {"asked": "q", "scope": "x", "time": 1.0, "hits": [-1], "reward": None}
    ),
    "another's history": lambda rows: rows.append(
        {"event": "add", "scope": "x", "seq": 1, "time": 1.0, "first": -5, "last": 3, "detail": {}}
    ),
    "a scope upwards": lambda rows: rows[1].update(scope="../org"),
    "a scope not in its form": lambda rows: rows[2].update(scope="/x/"),
    "an unknown line": lambda rows: rows.append({"token": "x"}),
    "an id that is text": lambda rows: rows[2]["item"].update(id="1"),
}


@pytest.fixture(scope="module")
def tenant(tmp_path_factory):
    """A store where another has items, and the client of a tenant with every right in its own scope."""
    with Memory(tmp_path_factory.mktemp("tenant") / "m.db", clock=FixedClock(START)) as memory:
        memory.add([f"another's {n}" for n in range(5)], scope="other")
        secret, _ = tokens.create(memory, "t", scope="org/t", rights=tokens.RIGHTS)
        with running(memory) as url, Memory(url, token=secret) as remote:
            yield memory, remote


@pytest.mark.parametrize("name", HOSTILE)
def test_an_export_may_speak_only_of_its_own(tenant, tmp_path, name):
    memory, remote = tenant
    before = exported(memory)
    (tmp_path / "bad.jsonl").write_text(hostile(HOSTILE[name]))
    with pytest.raises(ValueError, match="line of an export|does not hold"):
        remote.load(tmp_path / "bad.jsonl")
    assert exported(memory) == before


def test_a_lawful_export_passes_the_same_check(tmp_path):
    with Memory(tmp_path / "m.db") as memory:
        secret, _ = tokens.create(memory, "t", scope="org/t", rights=tokens.RIGHTS)
        poor, _ = tokens.create(memory, "p", scope="org/t", rights=("read", "write"))
        (tmp_path / "good.jsonl").write_text(hostile(lambda rows: None))
        with running(memory) as url, Memory(url, token=secret) as remote, Memory(url, token=poor) as other:
            assert remote.load(tmp_path / "good.jsonl") == 2
            assert [item.scope for item in remote.items()] == ["org/t/x"] * 2
            with pytest.raises(Denied, match="admin"):
                other.load(tmp_path / "good.jsonl")


def test_too_many_streams_wait(memory):
    with running(memory, limits=Limits(streams=1)) as url:
        with httpx2.Client(base_url=url, trust_env=False, verify=False) as http:

            def body():
                yield b'{"text": "x"}\n'
                answer = httpx2.get(f"{url}/v1/export", trust_env=False, verify=False)
                assert (answer.status_code, answer.json()["error"]["type"]) == (503, "Busy")
                yield b'{"text": "y"}\n'

            assert json.loads(http.post("/v1/import", content=body()).text.splitlines()[-1])["items"] == 2


def test_a_server_that_ends_early_is_no_success(memory):
    from loci.records.requests import Patience, Progress

    said = Progress(Patience("http://x", 0), None)
    said.hear('{"lines": 500, "items": 500}')
    with pytest.raises(StoreError, match="run it again"):
        said.end()

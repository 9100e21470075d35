"""What is too much is refused early, costs no memory, and keeps nobody else waiting."""

from __future__ import annotations

import resource
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx2
import pytest

from loci.app.http.app import create
from loci.app.http.errors import Refused
from loci.app.http.limits import Buckets, Limits
from loci.core.errors import Busy
from loci.records import Memory
from tests.http.serving import running

pytestmark = pytest.mark.enable_socket


def raw(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def served(memory, **limits):
    return running(memory, limits=Limits(**limits))


def test_a_hundred_megabytes_are_refused_without_being_held(url, client, memory):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    piece = b"x" * (1 << 20)
    sent = 0

    def body():
        nonlocal sent
        for _ in range(100):
            sent += len(piece)
            yield piece

    announced = client.post("/v1/add", content=b"y" * 33_000_000, headers={"content-type": "application/json"})
    unannounced = client.post("/v1/add", content=body(), headers={"content-type": "application/json"})
    for answer in (announced, unannounced):
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "TooLarge")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 33_000_000 + 80_000_000, f"grew by {grown} bytes: the first body itself, and the limit, are 65 MB"
    assert memory.count(scope="/") == 0
    assert client.post("/v1/count", json={}).json() == {"count": 0}


def test_an_announced_body_is_refused_before_it_is_sent(url):
    with raw(url) as wire:
        wire.sendall(b"POST /v1/add HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n"
                     b"expect: 100-continue\r\n\r\n")  # fmt: skip
        assert wire.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_token_is_not_read_at_all(memory):
    from loci.records import tokens

    tokens.create(memory, "ana")
    with running(memory) as url, raw(url) as wire:
        wire.sendall(
            b"POST /v1/add HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n"
        )
        assert wire.recv(4096).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"what": NaN}', b'{"what": "x", "meta": {"x": NaN}}', b'{"what": "x", "meta": {"x": 1e999}}',
     b"[" * 200_000, b'{"what": "x", "meta":' + b'{"x":' * 50_000 + b"1" + b"}" * 50_001, b'{"what": "x", "at": 1e999}', b'{"what": {"text": 1}}',
     b'{"what": "x", "supersedes": [99999999999999999999999999]}', b'{"what": "\\ud800"}', b'{"what": "x", "once": "\\ud800"}', b'{"what": "x", "once": ""}',
     b'{"what": "x", "kind": "spell"}', b'{"what": "x", "nonsense": 1}', b'{"what": {"text": "x", "id": 7}}'],
)  # fmt: skip
def test_malformed_bodies_are_answered_and_change_nothing(shared, body):
    memory, client = shared
    answer = client.post("/v1/add", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"error"}
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    assert memory.count(scope="/") == 0


def test_another_content_type_is_no_json(client):
    assert client.post("/v1/count", content=b"{}", headers={"content-type": "text/plain"}).status_code == 422


def test_k_items_and_ids_have_limits(memory):
    with served(memory, k=10, items=5) as url, Memory(url) as remote:
        for call in (
            lambda: remote.recall("x", 11), lambda: remote.add(["x"] * 6), lambda: remote.get(list(range(6))),
            lambda: remote.add("x", supersedes=list(range(6))),
        ):  # fmt: skip
            with pytest.raises(ValueError, match="at most 5|over 10"):
                call()
        assert remote.count(scope="/") == 0


def test_the_bucket_by_hand():
    now = [0.0]
    buckets = Buckets(2.0, 1.5, clock=lambda: now[0])
    for _ in range(3):
        buckets.take("ana")
    with pytest.raises(Refused) as refused:
        buckets.take("ana")
    assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "1"})
    buckets.take("bo")  # another caller has a bucket of its own
    now[0] = 0.5
    buckets.take("ana")
    with pytest.raises(Refused):
        buckets.take("ana")
    now[0] = 1000.0
    for _ in range(3):
        buckets.take("ana")
    with pytest.raises(Refused):
        buckets.take("ana")


def test_too_many_requests_are_told_when_to_come_again(memory):
    waited = []
    with served(memory, rate=0.01, burst=300) as url:
        with httpx2.Client(base_url=url, trust_env=False, verify=False) as http:
            answers = [http.post("/v1/count", json={}) for _ in range(5)]
            assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
            assert 0 < int(answers[-1].headers["retry-after"]) <= 100
            assert http.get("/health").status_code == 200
        with Memory(url, retries=2, pause=waited.append) as remote, pytest.raises(Busy, match="requests a second"):
            remote.forget(1)  # at 429 nothing was done, so even this may be tried again
        assert len(waited) == 2
        assert max(waited) <= 10


def test_more_requests_than_there_is_room_for(memory):
    """While another process holds the store, one write waits for it and a read is told to come again; then both are done."""
    app = create(memory, limits=Limits(concurrent=1), open_access=True)
    with running(memory, app) as url, Memory(url, retries=0) as remote, Memory(memory.path) as other:
        first = threading.Thread(target=remote.add, args=("first",))
        with other.writing():
            first.start()
            while app.state.desk.room.requests == 0:
                time.sleep(0.005)
            with pytest.raises(Busy, match="call again"):
                remote.count()
        first.join()
        assert remote.count() == 1


def test_slow_senders_keep_nobody_waiting_and_are_let_go(memory):
    """A hundred that send one byte and no more: others are served meanwhile, then each is answered 408 and closed."""
    with served(memory, body_s=1.5, concurrent=4) as url, Memory(url) as remote:
        slow = [raw(url) for _ in range(100)]
        for wire in slow:
            wire.sendall(
                b"POST /v1/add HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{"
            )
        for n in range(20):
            remote.add(f"kitten {n}")
        assert remote.count() == 20
        for wire in slow:
            answer = b""
            while piece := wire.recv(4096):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 408 "), answer[:40]
            wire.close()
        assert remote.count() == 20


def test_connections_that_say_nothing_are_let_go(memory):
    with running(memory, head_s=0.5) as url, Memory(url) as remote:
        silent = [raw(url) for _ in range(50)]
        for wire in silent[::2]:
            wire.sendall(b"POST /v1/add HTTP/1.1\r\nhost: local")
        remote.add("a kitten")
        for wire in silent:
            assert wire.recv(100) == b""
            wire.close()
        assert remote.count() == 1


def test_a_slow_import_is_let_go_and_keeps_what_came(memory):
    with served(memory, idle_s=0.5) as url, raw(url) as wire:
        lines = b"".join(b'{"text": "line %d"}\n' % n for n in range(500))
        wire.sendall(
            b"POST /v1/import HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n"
            % (len(lines), lines)
        )
        answer = b""
        while b"TooSlow" not in answer:
            answer += wire.recv(4096)
        assert memory.count() == 500


def test_a_reader_that_stops_reading_lets_the_export_go(memory):
    memory.add([f"kitten {n} " + "x" * 20_000 for n in range(800)])
    with served(memory, idle_s=0.5) as url, raw(url) as wire:
        wire.sendall(b"GET /v1/export HTTP/1.1\r\nhost: localhost\r\n\r\n")
        wire.recv(100)

        def exporting():
            return [thread for thread in threading.enumerate() if thread.name == "loci-stream"]

        assert exporting()
        while exporting():  # ends by itself: nobody reads on
            time.sleep(0.01)
        with Memory(url) as remote:
            assert remote.count() == 800


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match="body=0"):
        Limits(body=0)

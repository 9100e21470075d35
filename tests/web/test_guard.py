"""Who is let in: raw requests as other pages and other names would send them, and how the command begins and ends."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from loci.records import Memory

pytestmark = [pytest.mark.enable_socket, pytest.mark.xdist_group("web")]


def ask(port, *headers, path="/"):
    """One raw HTTP request: its status and the whole answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall("\r\n".join([f"GET {path} HTTP/1.1", *headers, "Connection: close", "", ""]).encode())
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    text = answer.decode("utf-8", "replace")
    return int(text.split(" ", 2)[1]), text


def test_only_this_address_and_its_own_pages_are_answered(shown):
    port = shown.port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert ask(port, f"Host: {host}")[0] == 200
        assert ask(port, f"Host: {host}", f"Origin: http://{host}")[0] == 200
    for host in (
        "rebound.example",
        f"rebound.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        "127.0.0.1.example",
    ):
        status, said = ask(port, f"Host: {host}")
        assert status == 403
        assert "the Host header names another address" in said
        assert "Miso" not in said
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"):
        assert ask(port, f"Host: 127.0.0.1:{port}", f"Origin: {origin}")[0] == 403


def test_another_page_cannot_open_the_socket(shown):
    wish = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    with socket.create_connection(("127.0.0.1", shown.port), timeout=20) as line:
        head = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{shown.port}", "Origin: http://evil.example", *wish, "", ""]
        line.sendall("\r\n".join(head).encode())
        assert line.recv(65536).startswith(b"HTTP/1.1 403")


def test_pages_may_load_nothing_from_elsewhere_and_are_not_kept(shown):
    _, said = ask(shown.port, f"Host: 127.0.0.1:{shown.port}")
    head = said.split("\r\n\r\n", 1)[0].lower()
    assert "default-src 'self'" in head
    assert "frame-ancestors 'none'" in head
    assert head.count("cache-control") == 1
    assert "cache-control: no-store" in head


def test_it_listens_on_this_machine_alone(shown):
    listening = [
        row.split()[1] for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        if row.split()[3] == "0A" and row.split()[1].endswith(f":{shown.port:04X}")
    ]  # fmt: skip
    assert listening == [f"0100007F:{shown.port:04X}"]


def test_it_says_where_it_is_and_ends_cleanly(look):
    viewer = look()
    assert viewer.said.startswith("loci view of trip.db: http://127.0.0.1:") or "trip.db" in viewer.said
    assert ask(viewer.port, f"Host: 127.0.0.1:{viewer.port}")[0] == 200
    viewer.process.terminate()
    assert viewer.process.communicate(timeout=20)[1] == ""
    assert viewer.process.returncode == 0
    with Memory(viewer.file) as memory:
        assert memory.count(scope="/") == 29


def test_what_cannot_be_shown_is_one_sentence(tmp_path, shown):
    def run(*args):
        done = subprocess.run(
            [sys.executable, "-m", "loci", "view", *map(str, args), "--no-open"], capture_output=True, text=True
        )
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        return done.returncode, done.stderr

    assert "does not exist" in run(tmp_path / "none.db")[1]
    (tmp_path / "text.db").write_text("no database at all, but long enough to be read as one " * 50)
    assert run(tmp_path / "text.db")[0] == 2
    code, said = run(shown.file, "--port", shown.port)
    assert code == 2
    assert "cannot be listened on" in said

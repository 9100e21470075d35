"""The viewer in front of a service: what a token sees and may do, through HTTP, in a real browser."""

import json
import os
import subprocess
import sys

import pytest

from loci.records import Memory, tokens
from tests.web.trip import fill

pytestmark = [pytest.mark.enable_socket, pytest.mark.xdist_group("web")]
pytest.importorskip("httpx2", reason="a service needs httpx2; pip install 'loci[serve]'")


@pytest.fixture
def service(tmp_path, monkeypatch):
    """`loci serve` of the small memory, and a token of demo/mara that may read, write and forget."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    file = fill(tmp_path / "served.db")
    with Memory(file) as memory:
        secret, _ = tokens.create(memory, "viewer", scope="demo/mara", rights=["read", "write", "forget"])
    monkeypatch.setenv("LOCI_TOKEN", secret)
    process = subprocess.Popen(
        [sys.executable, "-m", "loci", "serve", str(file), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    said = ""
    while "http://" not in said:
        line = process.stdout.readline()
        assert line, f"loci serve did not start: {said}"
        said += line
    yield next(word for word in said.split() if word.startswith("http://")).rstrip("/.,;")
    process.send_signal(2)
    process.communicate(timeout=20)


def test_a_token_sees_its_scope_and_changes_what_it_may(browser, look, service, tmp_path):
    viewer = look(file=service)
    browser.go(f"{viewer.address}/timeline", until="Now: 27 items held")
    assert "bakery" not in browser.text
    browser.go(f"{viewer.address}/?q=what+pet+did+Mara+adopt%3F", until="his name is Miso")
    browser.press("Item 10 was useful")
    browser.reads("Noted: useful")
    browser.go(f"{viewer.address}/?q=Where+does+Bo+work%3F&scope=/", until="demo/mara")
    assert "museum" not in browser.text
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps([{"role": "user", "content": "My canoe is called Otter"}]))
    browser.go(f"{viewer.address}/import", until="Drop files here")
    browser.one("input[type=file]").send_keys(str(chat))
    browser.reads("chat.json: 1 item added")
    browser.go(f"{viewer.address}/item/12", until="Around it")
    browser.press("Forget item 12")
    browser.reads("With it 2 items go")
    browser.press("Forget item 12 now")
    browser.reads("Forgot #12, #28, #29", "This item is no longer here")
    browser.press("Bring item 12 back")
    browser.reads("Restored #12, #28, #29", "Around it")
    browser.press("Forget item 12")
    browser.press("Forget item 12 now")
    browser.reads("Forgot #12, #28, #29")
    with Memory(service, token=os.environ["LOCI_TOKEN"]) as memory:
        texts = {item.text for item in memory.items()}
    assert "user: My canoe is called Otter" in texts
    assert "Miso has a white paw" not in texts

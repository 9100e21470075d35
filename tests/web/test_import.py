"""Files that are dropped on the viewer, and the dry run of a budget."""

import hashlib
import json

import pytest

from loci.records import Memory, exchange

pytestmark = [pytest.mark.enable_socket, pytest.mark.xdist_group("web")]
TALK = [
    {"role": "user", "content": "My canoe is called Otter", "timestamp": "2024-05-01"},
    {"role": "assistant", "content": "A fine name"},
]


def drop(browser, path):
    browser.one("input[type=file]").send_keys(str(path))


def test_a_chat_comes_in_once(browser, look, tmp_path):
    viewer = look()
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps(TALK))
    browser.go(f"{viewer.address}/import?scope=acme/ana", until="Drop files here")
    drop(browser, chat)
    browser.reads("chat.json: 2 items added, 0 skipped of 2.")
    drop(browser, chat)
    browser.reads("chat.json: 0 items added, 2 skipped of 2.")
    with Memory(viewer.file) as memory:
        assert [item.text for item in memory.items(scope="acme/ana")] == [
            "user: My canoe is called Otter",
            "assistant: A fine name",
        ]


def test_an_export_keeps_its_scopes_and_a_broken_file_changes_nothing(browser, look, tmp_path):
    with Memory(tmp_path / "other.db") as other, (tmp_path / "other.jsonl").open("w") as out:
        other.add("Otter needs a new paddle", scope="boats/otter")
        exchange.export(other, out)
    broken = tmp_path / "broken.json"
    broken.write_text('[{"role": "user", "content": ')
    viewer = look()
    browser.go(f"{viewer.address}/import", until="Drop files here")
    drop(browser, broken)
    browser.reads("broken.json line 1 is not JSON")
    assert str(tmp_path) not in browser.text
    drop(browser, tmp_path / "other.jsonl")
    browser.reads("other.jsonl: 1 item added")
    with Memory(viewer.file) as memory:
        assert [item.text for item in memory.items(scope="boats/otter")] == ["Otter needs a new paddle"]
        assert memory.items(scope="default") == []


def test_the_dry_run_says_what_would_go_and_changes_nothing(browser, look, tmp_path):
    path = tmp_path / "big.db"
    with Memory(path) as memory:
        words = [f"Note {n}: " + " ".join(f"word{(n * 7 + i * 13) % 997}" for i in range(120)) for n in range(150)]
        memory.add([*words, "Ana: my locker is 4711", "Ana: my locker is 4711"], scope="acme")
        memory.flush()
        before = [(item.id, item.text) for item in memory.items(scope="/")]
        held = memory.nbytes
    viewer = look("--read-only", file=path)
    browser.go(f"{viewer.address}/budget", until="152")
    browser.fill("Fit into", f"{int(0.7 * held)}")
    browser.press("Try on a copy")
    text = browser.reads("would go", "It would fit.", "To do it: loci consolidate big.db")
    assert "Merged into a near duplicate: 1 item" in text
    assert "Dropped, worth least for their bytes" in text
    browser.fill("Fit into", "plenty")
    browser.press("Try on a copy")
    browser.reads("budget='plenty' is not a size")
    viewer.stop()
    with Memory(path) as memory:
        assert [(item.id, item.text) for item in memory.items(scope="/")] == before
        assert not memory.history(152, scope="/")[1:], "nothing became of the duplicate"


def test_read_only_offers_no_change_and_writes_nothing(browser, look):
    viewer = look("--read-only")
    with Memory(viewer.file) as memory:
        memory.flush()
    digest = hashlib.sha256(viewer.file.read_bytes()).hexdigest()
    browser.go(f"{viewer.address}/?q=kitten", until="Read only")
    browser.reads("his name is Miso")
    assert not browser.all("button[aria-label$='useful']")
    browser.go(f"{viewer.address}/item/12", until="What became of it")
    assert not browser.all("button[aria-label^='Forget']")
    browser.go(f"{viewer.address}/import", until="started with --read-only")
    assert not browser.all("input[type=file]")
    assert viewer.stop() == (0, "")
    assert hashlib.sha256(viewer.file.read_bytes()).hexdigest() == digest

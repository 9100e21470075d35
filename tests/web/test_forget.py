"""Forgetting in the browser: what goes with it, the way back, the proof; and the graph around an item."""

import pytest

from loci.core.errors import UnknownItem
from loci.records import Memory

pytestmark = [pytest.mark.enable_socket, pytest.mark.xdist_group("web")]
PAW = 12  # "Yes, the grey one with the white paw.": the only source of 28, on which 29 rests, and one of two of 27


def ids(browser):
    return [row.text.split()[0] for row in browser.all('[aria-label="What goes with it"] li')]


def test_the_dialog_lists_the_cascade_and_forgetting_can_be_undone(browser, look):
    viewer = look()
    browser.go(f"{viewer.address}/item/{PAW}", until="white paw")
    browser.press(f"Forget item {PAW}")
    browser.reads("With it 2 items go that rest on it alone")
    assert ids(browser) == ["#28", "#29"]
    browser.press("Cancel")
    browser.reads_no_more("With it 2 items")
    with Memory(viewer.file) as memory:
        assert len(memory.get([PAW, 28, 29], scope="/")) == 3, "asking forgets nothing"
    browser.press(f"Forget item {PAW}")
    browser.press(f"Forget item {PAW} now")
    browser.reads("Forgot #12, #28, #29")
    with Memory(viewer.file) as memory:
        assert {27} == {item.id for item in memory.items(scope="/") if item.id in {PAW, 27, 28, 29}}
    browser.go(f"{viewer.address}/forgotten", until="Miso can be told by his paw")
    assert len(browser.all('[aria-label="Forgotten items"] > li')) == 3
    browser.press(f"Restore item {PAW}")
    browser.reads("Restored #12, #28, #29", "Nothing waits to be erased")
    with Memory(viewer.file) as memory:
        assert len(memory.get([PAW, 28, 29], scope="/")) == 3


def test_erasing_shows_the_receipt_and_leaves_no_bytes(browser, look):
    viewer = look()
    browser.go(f"{viewer.address}/item/{PAW}?scope=demo/mara", until="white paw")
    browser.press(f"Forget item {PAW}")
    browser.click(lambda: browser.one(".q-checkbox"))
    browser.press(f"Forget item {PAW} now")
    browser.reads("Erased #12, #28, #29. Verified:", "item 12: nowhere in the store", "item 29: nowhere in the store")
    browser.reads("This item is no longer here")
    assert not browser.all("button[aria-label^='Forget']")
    viewer.stop()
    held = b"".join(path.read_bytes() for path in viewer.file.parent.glob("trip.db*"))
    assert b"the grey one with the white paw" not in held
    assert b"his name is Miso" in held
    with Memory(viewer.file) as memory, pytest.raises(UnknownItem):
        memory.history(PAW, scope="/")


def test_an_item_shows_its_provenance_as_a_picture_of_links_and_as_a_list(browser, shown):
    browser.go(f"{shown.address}/item/27?scope=demo/mara", until="Around it")
    named = {node.accessible_name: node.get_attribute("href") for node in browser.all(".graph a")}
    assert set(named) == {
        "Item 10: Mara: I adopted a kitten, his name is Miso.", "Item 12: Mara: Yes, the grey one with the white paw.",
        "Item 27: Mara has a grey kitten called Miso", "Item 28: Miso has a white paw",
    }  # fmt: skip
    listed = [row.text.split("\n") for row in browser.all('[aria-label="Neighbours"] li')]
    assert [row[0] for row in listed] == ["derived from", "derived from", "same cat"]
    browser.one('[aria-label="Neighbours"] a[aria-label="Item 10"]').click()
    browser.reads("Item 10", "basis of", "chat may", "session", "13 May 2023")
    assert browser.all('[aria-label="Neighbours"] a[aria-label="Item 27"]')


def test_an_unknown_item_is_said_in_a_sentence(browser, shown):
    said = "item 999 is not in scope '/', or was erased"
    browser.go(f"{shown.address}/item/999", until=said)
    assert browser.text.count(said) == 1


def test_the_picture_of_the_docs(browser, shown):
    browser.go(f"{shown.address}/item/27?scope=demo/mara", until="Around it")
    assert browser.picture("item", height=900).stat().st_size < 250_000

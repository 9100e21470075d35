"""The timeline in the browser: the memory as it was, what has ended, what changed."""

import pytest
from selenium.webdriver.common.keys import Keys

from loci.records import Memory

pytestmark = [pytest.mark.enable_socket, pytest.mark.xdist_group("web")]


def rows(browser):
    return [row.text for row in browser.all(".rows .memory")]


def test_now_it_shows_everything_and_says_what_has_ended(browser, shown):
    browser.go(shown.address + "/timeline?scope=demo/bo", until="Now: 1 item held, 1 no longer")
    assert rows(browser) == ["Bo: I work at the museum now.", "Bo: I work at the bakery on Rue Cler."]
    ended = browser.one("li.ended")
    assert "no longer true since 10 January 2024" in ended.text, "said in words, not by a line alone"
    line = ended.find_element("css selector", ".memory").value_of_css_property("text-decoration-line")
    assert line == "line-through"


def test_the_slider_moves_through_time_by_the_keyboard(browser, shown):
    browser.go(shown.address + "/timeline?scope=demo/bo", until="Now:")
    slider = browser.one('input[type=range][aria-label="As of"]')
    slider.send_keys(Keys.HOME)
    browser.reads("As it was on 3 May 2023: 1 item held")
    assert rows(browser) == ["Bo: I work at the bakery on Rue Cler."]
    assert not browser.all("li.ended"), "nobody knew then that it would end"
    slider.send_keys(Keys.ARROW_RIGHT)
    browser.reads("As it was on 4 May 2023")
    slider.send_keys(Keys.END)
    browser.reads("Now: 1 item held, 1 no longer")


def test_a_date_shows_exactly_what_items_as_of_gives(browser, shown):
    browser.go(shown.address + "/timeline?scope=/", until="Now:")
    browser.date("As of (empty: now)", "2023-06-01")
    browser.reads("As it was on 1 June 2023: 16 items held")
    with Memory(shown.file, log_queries=False) as memory:
        then = memory.items(scope="/", as_of="2023-06-01")
    assert sorted(rows(browser)) == sorted(item.text for item in then)
    browser.press("Now")
    browser.reads("Now:")


def test_two_dates_are_compared(browser, shown):
    browser.go(shown.address + "/timeline?scope=demo/bo", until="Now:")
    browser.date("From", "2023-06-01")
    browser.date("To", "2024-02-01")
    browser.press("Compare")
    browser.reads("1 became recallable, 1 ceased to be.")
    changes = browser.one('[aria-label="Changes"]').text
    assert changes.index("museum") < changes.index("bakery")
    assert "ceased to be recallable" in browser.one("li.minus-row").get_attribute("textContent")


def test_a_date_that_is_none_is_said_in_a_sentence(browser, shown):
    browser.go(shown.address + "/timeline?scope=demo/bo", until="Now:")
    browser.press("Compare")
    browser.reads("A date is missing")
    assert not browser.all('[aria-label="Changes"]')


def test_an_empty_memory_says_how_to_begin(browser, look, tmp_path):
    Memory(tmp_path / "new.db").close()
    viewer = look(file=tmp_path / "new.db")
    for path in ("/", "/timeline"):
        browser.go(viewer.address + path, until="Nothing remembered yet")
        assert "loci add new.db" in browser.text
        assert browser.all("input[type=file]")


def test_the_picture_of_the_docs(browser, shown):
    browser.dark()
    browser.go(shown.address + "/timeline?scope=demo&as_of=2024-02-01", until="As it was on 1 February 2024")
    browser.reads("no longer true since")
    assert browser.picture("timeline-dark", height=1000).stat().st_size < 250_000

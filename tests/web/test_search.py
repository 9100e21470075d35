"""Search in the browser: hits, the parts of their scores, how sure the memory is, feedback, the past."""

import re

import pytest

from loci.records import Memory

pytestmark = [pytest.mark.enable_socket, pytest.mark.xdist_group("web")]
QUESTION = "/?q=what+pet+did+Mara+adopt%3F"


def test_hits_are_those_of_recall_and_their_parts_sum_to_the_score(browser, shown):
    browser.go(shown.address, until="Ask a question")
    browser.fill("Question", "what pet did Mara adopt?")
    browser.press("Search")
    browser.reads("Probably in memory", "his name is Miso")
    with Memory(shown.file, log_queries=False) as memory:
        expected = memory.recall("what pet did Mara adopt?", 5, scope="/")
    cards = browser.all(".hits > li")
    assert [card.find_element("css selector", ".memory").text for card in cards] == [hit.item.text for hit in expected]
    for card, hit in zip(cards, expected, strict=True):
        score = float(card.find_element("css selector", ".hit-score").text)
        assert score == pytest.approx(hit.score, abs=0.005)
        legend = card.find_element("css selector", ".legend").text
        *parts, total = (float(x) for x in re.findall(r"-?\d+\.\d\d", legend))
        assert sum(parts) == pytest.approx(score, abs=0.005 * (len(parts) + 2))
        assert total == score
        spoken = card.find_element("css selector", ".bar-of").accessible_name
        assert spoken.startswith(f"Score {score:.2f}, made of ")
        assert all(f"{part:.2f}" in spoken for part in parts)
        wide = [seg.size["width"] for seg in card.find_elements("css selector", ".bar-of > i")]
        assert wide == sorted(wide, reverse=True)
    assert f"{expected.known:.2f}" in browser.one("[role=meter]").get_attribute("aria-valuetext")


def test_it_says_when_it_does_not_know(browser, shown):
    browser.go(shown.address + "/?q=what+car+does+Bo+drive%3F", until="Probably not in memory")
    assert browser.one("[role=meter]").get_attribute("aria-valuetext").startswith("Probably not in memory, 0.")


def test_the_past_is_read_as_it_was(browser, shown):
    browser.go(shown.address + "/?q=Where+does+Bo+work%3F&k=1", until="museum")
    browser.date("As of (empty: now)", "2023-06-01")
    browser.press("Search")
    browser.reads("bakery")
    assert "museum" not in browser.text
    assert browser.driver.current_url.endswith("as_of=2023-06-01")
    assert not browser.all("button[aria-label$='was useful']"), "the past is not judged"


def test_feedback_is_kept_in_the_file(browser, look):
    viewer = look()
    browser.go(viewer.address + QUESTION, until="his name is Miso")
    browser.press("Item 10 was useful")
    browser.reads("Noted: useful")
    assert not browser.button("Item 10 was useful").is_enabled()
    with Memory(viewer.file) as memory:
        (item,) = memory.get([10], scope="/")
    assert (item.uses, item.value) == (1, 1.0)


def test_a_wrong_scope_and_an_empty_question_are_said_in_a_sentence(browser, shown):
    browser.go(shown.address + "/?scope=a//b", until="is not a slash path")
    assert browser.one("[role=alert]").text.startswith("scope='a//b'")
    browser.press("Search")
    browser.reads("The question is empty")


def test_a_scope_shows_only_what_is_under_it(browser, shown):
    browser.go(shown.address + "/?scope=demo/bo&q=Miso+kitten+work", until="museum")
    assert "Miso" not in browser.one(".hits").text


def test_the_picture_of_the_docs(browser, shown):
    browser.go(shown.address + QUESTION + "&k=4&scope=demo/mara", until="white paw")
    assert browser.picture("search", height=760).stat().st_size < 250_000

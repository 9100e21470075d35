"""What every page promises: keyboard, names, contrast, phone width, light and dark; text stays text, nothing leaves."""

import re
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from tests.web.trip import XSS

pytestmark = [pytest.mark.enable_socket, pytest.mark.xdist_group("web")]
PAGES = {
    "/?q=what+pet+did+Mara+adopt%3F": "his name is Miso",
    "/timeline": "Now:",
    "/item/27?scope=demo/mara": "Around it",
    "/forgotten": "Nothing waits",
    "/budget": "Items by kind",
    "/import": "Drop files here",
}
_INTERACTIVE = "a[href], button, input, [role=button], [role=slider], [role=checkbox], [tabindex='0']"
_INKS = """
const seen = [], back = (e) => { for (; e; e = e.parentElement) {
  const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const box = e.getBoundingClientRect(), style = getComputedStyle(e);
  if (own && box.width > 1 && box.height > 1 && style.visibility === 'visible' && !e.closest('svg, [aria-hidden=true] .q-icon, .q-icon, #popup, #too_long_message_popup, .nicegui-skip-link'))
    seen.push([e.textContent.trim().slice(0, 40), style.color, back(e)]);
} return seen;"""


def luminance(colour):
    parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    """WCAG 2.2, 1.4.3."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(params=["light", "dark"])
def scheme(request, browser):
    getattr(browser, request.param)()
    return request.param


def test_every_text_can_be_read_and_everything_that_can_be_used_has_a_name(browser, shown, scheme):
    for path, words in PAGES.items():
        browser.go(shown.address + path, until=words)
        inks = browser.driver.execute_script(_INKS)
        assert len(inks) > 10
        weak = [(text, ink, paper) for text, ink, paper in inks if contrast(ink, paper) < 4.5]
        assert weak == [], path
        paper = browser.one("body").value_of_css_property("background-color")
        assert (luminance(paper) < 0.1) == (scheme == "dark")
        there = [one for one in browser.all(_INTERACTIVE) if one.is_displayed()]
        assert len(there) > 8
        nameless = [one.get_attribute("outerHTML")[:200] for one in there if not one.accessible_name.strip()]
        assert nameless == [], path
        assert len(browser.all("h1")) == 1
        assert browser.one("html").get_attribute("lang") == "en-US"


def test_a_phone_needs_no_sideways_scrolling(browser, shown):
    browser.screen(375, 812)
    for path, words in PAGES.items():
        browser.go(shown.address + path, until=words)
        wide, room = browser.driver.execute_script(
            "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
        )
        assert wide <= room == 375, path
    browser.go(shown.address + "/?q=what+pet+did+Mara+adopt%3F&k=2&scope=demo/mara", until="his name is Miso")
    assert browser.picture("phone", height=812).stat().st_size < 250_000


def test_a_search_needs_no_mouse(browser, shown):
    browser.go(shown.address + "/timeline", until="Now:")
    browser.driver.execute_script("document.activeElement.blur()")
    walked = []
    body = browser.one("body")
    body.send_keys(Keys.TAB)
    for _ in range(40):
        walked.append(browser.focused)
        if browser.focused == "Search":
            break
        browser.key(Keys.TAB)
    assert walked[:3] == ["Skip to the content", "loci, search", "Search"]
    ring = browser.driver.switch_to.active_element.value_of_css_property("outline-style")
    assert ring == "solid", "the focus can be seen"
    browser.key(Keys.ENTER)
    browser.reads("Ask a question")
    assert browser.until(lambda: browser.focused == "Question"), "an empty search awaits a question"
    browser.key("what pet did Mara adopt?", Keys.ENTER)
    browser.reads("Probably in memory")
    order = []
    for _ in range(12):
        browser.key(Keys.TAB)
        order.append(browser.focused)
    assert order[:2] == ["Hits", "As of (empty: now)"]
    after = [name for name in order if name.startswith(("Search", "Item"))]
    assert after[:4] == ["Search", "Item 10", "Item 10 was useful", "Item 10 was not useful"]


def test_the_skip_link_leads_to_the_content(browser, shown):
    browser.go(shown.address + "/budget", until="Items by kind")
    browser.one("body").send_keys(Keys.TAB)
    browser.key(Keys.ENTER)
    assert browser.until(lambda: browser.driver.switch_to.active_element.get_attribute("class") == "page")


def test_a_choice_of_light_holds_on_the_next_page(browser, look):
    viewer = look()
    browser.go(viewer.address, until="Ask a question")
    browser.press("Dark")
    browser.until(lambda: browser.all("body.body--dark"))
    assert browser.button("Dark").get_attribute("aria-pressed") == "true"
    browser.go(viewer.address + "/budget", until="Items by kind")
    assert browser.all("body.body--dark")
    browser.press("System")
    browser.until(lambda: browser.all("body.body--light"))


def test_a_text_that_is_html_stays_text_everywhere(browser, look):
    viewer = look()
    number = 30
    places = {
        "/?q=Mallory+bold": XSS, "/timeline": XSS, f"/item/{number}": XSS,
        "/?scope=demo/%3Cimg+src=x+onerror=alert(1)%3E": "Nothing remembered in",
    }  # fmt: skip
    for path, words in places.items():
        browser.go(viewer.address + path, until=words)
        assert "owned" not in browser.driver.title
        assert not browser.all("img[src=x]")
        assert not browser.all(".memory b, .memory strong, .item-text strong")
    browser.go(f"{viewer.address}/item/{number}", until=XSS)
    browser.press(f"Forget item {number}")
    browser.reads(f"Forget item {number}?")
    assert "owned" not in browser.driver.title
    assert not browser.all("img[src=x]")


def test_no_request_leaves_this_machine_and_no_text_is_stored_in_the_browser(browser, shown):
    browser.asked()
    for path, words in PAGES.items():
        browser.go(shown.address + path, until=words)
    urls = [url for url in browser.asked() if urlsplit(url).scheme in ("http", "https", "ws", "wss")]
    assert len(urls) > 30, "the log was read"
    assert {urlsplit(url).netloc for url in urls} == {f"127.0.0.1:{shown.port}"}
    stored = browser.driver.execute_script(
        "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    )
    assert not any(word in stored for word in ("Miso", "Mara", "kitten", "bakery", "pet"))
    assert [path.name for path in shown.file.parent.iterdir() if not path.name.startswith("trip.db")] == []

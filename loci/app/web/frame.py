"""The frame of every page: skip link, header, navigation, scope, light and dark, and the place where results are said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from nicegui import app, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from loci.app.web.desk import Desk, Work, sentence
from loci.app.web.words import url
from loci.records import Item
from loci.records.item import UNTRUSTED
from loci.records.scope import scope as checked

R = TypeVar("R")
STYLE = (Path(__file__).parent / "style.css").read_text("utf-8")
PAGES = (
    ("/", "Search"),
    ("/timeline", "Timeline"),
    ("/forgotten", "Forgotten"),
    ("/budget", "Budget"),
    ("/import", "Import"),
)
_THEMES = {"system": None, "light": False, "dark": True}


def text(tag: str, said: str, kind: str = "") -> TextElement:
    """Text in an element of HTML. Whatever it says is shown as it is, never read as HTML."""
    return TextElement(tag=tag, text=said).classes(kind)


def box(tag: str, kind: str = "", **attributes: str) -> Element:
    """An element of HTML that holds others; `aria_label` becomes aria-label."""
    element = ui.element(tag).classes(kind)
    for name, value in attributes.items():
        element.props[name.rstrip("_").replace("_", "-")] = value
    return element


def link(said: str, target: str, kind: str = "", **attributes: str) -> TextElement:
    """A link within the viewer."""
    element = text("a", said, kind)
    element.props["href"] = target
    for name, value in attributes.items():
        element.props[name.replace("_", "-")] = value
    return element


def button(
    said: str, do: Callable[[], object], *, kind: str = "", icon: str | None = None, label: str | None = None
) -> ui.button:
    """A button; `label` is its full name where the words on it are short."""
    made = ui.button(said, icon=icon, on_click=do, color=None).props("no-caps unelevated").classes(f"btn {kind}")
    if label is not None:
        made.props["aria-label"] = label
    return made


def field(label: str, value: str = "", *, kind: str = "", hint: str = "") -> ui.input:
    """A field for a line of text."""
    made = ui.input(label, value=value).props("outlined dense stack-label").classes(kind)
    if hint:
        made.props["placeholder"] = hint
    return made


def listed(place: ui.input, choices: list[str], name: str) -> None:
    """Let a field propose choices, by the browser's own list."""
    with ui.element("datalist").props(f"id={name}"):
        for choice in choices:
            box("option", value=choice)
    place.props["list"] = name


def distrust(item: Item) -> None:
    """A mark on what came from untrusted hands."""
    if item.trust == UNTRUSTED:
        text("span", "untrusted", "chip warn")


class Notice:
    """Where a page says what was done and what could not be done; read aloud by screen readers."""

    def __init__(self) -> None:
        self._alert = box("div", "notice-place", role="alert")
        self._status = box("div", "notice-place", role="status", aria_live="polite")

    def clear(self) -> None:
        """Say nothing."""
        self._alert.clear()
        self._status.clear()

    def problem(self, said: str) -> None:
        """Say what could not be done."""
        self.clear()
        with self._alert:
            text("p", said, "notice notice-problem")

    def done(self, said: str, *lines: str) -> Element:
        """Say what was done, with its particulars; returns its place, for what may be done next."""
        self.clear()
        with self._status, box("div", "notice notice-done") as place:
            text("p", said)
            for line in lines:
                text("p", line, "mono small")
        return place

    async def attempt(self, work: Awaitable[R]) -> R | None:
        """Wait for work; an error is said as one sentence, and the page stays as it is."""
        try:
            return await work
        except Exception as error:  # noqa: BLE001 - whatever happened is said on the page, the server goes on
            self.problem(sentence(error))
            return None


@contextmanager
def working(work: Work, *others: Element) -> Iterator[None]:
    """Show how far slow work is, under what is already there, and keep its buttons from being pressed twice."""
    for other in others:
        other.props["disable"] = True
    with box("div", "working", role="status") as place:
        said = text("p", work.what or "Working…", "small")
        bar = ui.linear_progress(show_value=False, size="6px", color=None).props("indeterminate aria-label=Progress")

        def follow() -> None:
            said.set_text(work.what + ("…" if work.share is None else f"… {100 * work.share:.0f} %"))
            bar.props["indeterminate"] = work.share is None
            bar.set_value(work.share or 0.0)

        timer = ui.timer(0.2, follow)
    try:
        yield
    finally:
        timer.cancel()
        place.delete()
        for other in others:
            other.props["disable"] = False


@contextmanager
def page(desk: Desk, title: str, here: str, scope: str) -> Iterator[tuple[Notice, str]]:
    """One page: yields where to say things, and the scope that it shows."""
    ui.page_title(f"{title} · {desk.name} · loci")
    problem = None
    try:
        path = checked(scope) if scope else desk.scope
    except ValueError as error:
        path, problem = desk.scope, str(error)
    _header(desk, here, path)
    with box("div", "page") as content:
        ui.skip_link("Skip to the content", target=content)
        text("h1", title)
        notice = Notice()
        if problem:
            notice.problem(problem)
        yield notice, path
    with box("footer", "foot small"):
        how = "Read only. " if desk.read_only else ""
        text("p", f"{how}Everything here stays on this machine: no telemetry, no other server.")


def _header(desk: Desk, here: str, scope: str) -> None:
    theme = ui.dark_mode(desk.dark)
    with ui.header(fixed=False, elevated=False, wrap=False).classes("bar"), box("div", "bar-in"):
        link("loci", url("/", scope=scope), "brand", aria_label="loci, search")
        text("span", desk.name, "file mono").props["title"] = str(desk.memory.path)
        with box("nav", "nav", aria_label="Pages"):
            for path, name in PAGES:
                if path == "/import" and desk.read_only:
                    continue
                made = link(name, url(path, scope=scope), "nav-link")
                if path == here:
                    made.props["aria-current"] = "page"
        place = field("Scope", scope, kind="scope", hint="/")
        place.props["autocomplete"] = "off"
        scopes = box("div", "hidden")

        def go() -> None:
            ui.navigate.to(url(here, scope=place.value or desk.scope))

        place.on("keydown.enter", go)
        place.on("change", go)

        def chosen(name: str) -> None:
            desk.dark = _THEMES[name]
            app.config.dark = desk.dark  # so that the next page comes in the right light at once
            theme.value = desk.dark
            mark()

        with box("div", "themes", role="group", aria_label="Light or dark"):
            buttons = {name: button(name.title(), partial(chosen, name), kind="theme") for name in _THEMES}

        def mark() -> None:
            for name, one in buttons.items():
                one.props["aria-pressed"] = "true" if _THEMES[name] is desk.dark else "false"

        mark()

    async def propose() -> None:
        found = await desk.run(desk.reading.scopes)
        with scopes:
            listed(place, ["/", *found[:500]], "scopes")

    ui.timer(0.05, propose, once=True)

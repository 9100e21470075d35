"""Timeline: what was remembered, as it stood at any time, and what changed between two dates."""

from __future__ import annotations

import asyncio
from itertools import groupby

from nicegui import ui

from loci.app.web import words
from loci.app.web.desk import Desk, Work
from loci.app.web.frame import Notice, box, button, distrust, field, link, page, text, working
from loci.app.web.reading import ENDED, FORGOTTEN, LATER, Line, Row
from loci.app.web.search import nothing
from loci.core.clock import moment
from loci.records import Item

_PAGE = 100
_DAY = 86400.0
_STEPS = 4000  # of the slider at most


def add(desk: Desk) -> None:
    """Serve the page."""

    @ui.page("/timeline")
    async def timeline(scope: str = "", as_of: str = "", before: str = "", after: str = "") -> None:
        with page(desk, "Timeline", "/timeline", scope) as (notice, path):
            Timeline(desk, notice, path).draw(as_of)
            Changes(desk, notice, path).draw(before, after)


class Timeline:
    """The slider of time and the items as they stood then."""

    def __init__(self, desk: Desk, notice: Notice, scope: str) -> None:
        self._desk, self._notice, self._scope = desk, notice, scope
        self._when: float | None = None
        self._asked = 0  # the newest question counts: a slider asks faster than a store answers
        self._reading = asyncio.Lock()
        self._start, self._step = 0.0, _DAY

    def draw(self, as_of: str) -> None:
        """Places for the control and the list; they fill when the store has answered."""
        self._control = box("section", "asof", aria_label="As of")
        self._place = box("div")

        async def fill() -> None:
            await self._begin(as_of)

        ui.timer(0.01, fill, once=True)

    async def _begin(self, as_of: str) -> None:
        with self._place, working(Work("Reading")):
            span = await self._notice.attempt(self._desk.run(self._desk.reading.span, self._scope))
        if span is None:
            self._control.delete()
            with self._place:
                nothing(self._desk, self._notice, self._scope)
            return
        now = self._desk.reading.now()
        last = max(now, span[1])
        self._start = span[0]
        self._step = next(step for step in (60.0, 3600.0, _DAY, 30 * _DAY) if (last - span[0]) / step <= _STEPS)
        self._steps = int((last - self._start) / self._step) + 1
        with self._control:
            self._draw_control()
        if as_of:
            self._date.set_value(as_of)
        else:
            await self._show(None)

    def _draw_control(self) -> None:
        self._said = text("p", "", "asof-said")
        self._said.props["role"] = "status"
        with box("div", "slide"):
            self._slider = ui.input(value=str(self._steps)).props(
                f'type=range min=0 max={self._steps} step=1 borderless dense aria-label="As of"'
            )  # the browser's own slider: keys, names and touch are its business
        with box("div", "ends"):
            text("span", words.day(self._start))
            text("span", "now")
        with box("div", "asof-line"):
            self._date = field("As of (empty: now)", kind="w-date").props("type=date")
            button("Now", lambda: self._date.set_value(""))
        self._slider.on("update:model-value", self._slid, throttle=0.15, leading_events=False)
        self._date.on_value_change(self._dated)

    async def _slid(self) -> None:
        at = int(self._slider.value or 0)
        when = None if at >= self._steps else self._start + at * self._step
        self._date.value = "" if when is None else words.date_of(when)
        await self._show(when)

    async def _dated(self) -> None:
        try:
            when = moment(self._date.value) if self._date.value else None
        except ValueError as error:
            self._notice.problem(str(error))
            return
        if when is not None and self._when is not None and words.date_of(self._when) == words.date_of(when):
            return  # the slider set it
        if when is None and self._at_end and self._when is None:
            return
        place = self._steps if when is None else int((when - self._start) / self._step)
        self._slider.value = str(max(0, min(place, self._steps)))
        await self._show(when)

    @property
    def _at_end(self) -> bool:
        return int(self._slider.value or 0) >= self._steps

    async def _show(self, when: float | None, start: int = 0) -> None:
        self._when = when
        self._asked += 1
        mine = self._asked
        as_of = None if when is None else words.date_of(when)
        ui.navigate.history.replace(words.url("/timeline", scope=self._scope, as_of=as_of))
        async with self._reading:
            if mine != self._asked:
                return
            line = await self._notice.attempt(
                self._desk.run(self._desk.reading.line, self._scope, when, start=start, count=_PAGE)
            )
        if line is None or mine != self._asked:
            return
        ended = line.total - line.holding
        then = "Now" if when is None else f"As it was on {words.moment_of(when)}"
        rest = f", {ended:,} no longer or not yet" if ended else ""
        self._slider.props["aria-valuetext"] = then
        self._said.set_text(f"{then}: {words.count(line.holding, 'item')} held{rest}")
        self._place.clear()
        with self._place:
            if line.total:
                months(line.rows)
            else:
                with box("div", "empty"):
                    text("strong", "Nothing was known then")
                    text("p", "Move the slider to the right.")
            self._pages(line, start)

    def _pages(self, line: Line, start: int) -> None:
        if line.total <= _PAGE:
            return
        with box("div", "actions more"):
            text("span", f"{start + 1:,} to {start + len(line.rows):,} of {line.total:,}", "soft small num")
            if start:
                button("Newer", lambda: self._show(self._when, max(0, start - _PAGE)), kind="quiet")
            if start + _PAGE < line.total:
                button("Older", lambda: self._show(self._when, start + _PAGE), kind="quiet")


class Changes:
    """What became recallable between two dates, and what ceased to be."""

    def __init__(self, desk: Desk, notice: Notice, scope: str) -> None:
        self._desk, self._notice, self._scope = desk, notice, scope

    def draw(self, before: str, after: str) -> None:
        """Two dates and a place for what differs."""
        text("h2", "What changed between two dates")
        with box("div", "form", role="group", aria_label="Compare two dates"):
            self._before = field("From", before, kind="w-date").props("type=date")
            self._after = field("To", after, kind="w-date").props("type=date")
            self._go = button("Compare", self._compare)
        self._place = box("div", "more")

    async def _compare(self) -> None:
        self._notice.clear()
        self._place.clear()
        before, after = self._before.value, self._after.value
        if not before or not after:
            self._notice.problem("A date is missing; give both dates, then press Compare")
            return
        with self._place, working(Work("Comparing"), self._go):
            found = await self._notice.attempt(self._desk.run(self._desk.memory.diff, before, after, scope=self._scope))
        if found is None:
            return
        with self._place:
            new, gone = len(found.added), len(found.removed)
            text("p", f"{new:,} became recallable, {gone:,} ceased to be.").props["role"] = "status"
            if new or gone:
                with box("ul", "rows more", aria_label="Changes"):
                    for sign, items in (("+", found.added), ("−", found.removed)):
                        for item in items[:_PAGE]:
                            _changed(sign, item)


def _changed(sign: str, item: Item) -> None:
    plus = sign == "+"
    with box("li", "plus" if plus else "minus-row"):
        text("span", sign, "sign").props["aria-hidden"] = "true"
        text("span", "became recallable" if plus else "ceased to be recallable", "sr")
        with box("div", "row-main"):
            text("p", words.short(item.text), "memory")
        link(f"#{item.id}", words.url(f"/item/{item.id}", scope=item.scope), "small", aria_label=f"Item {item.id}")


def months(found: list[Row]) -> None:
    """Rows under the headings of their months."""
    for month, some in groupby(found, key=lambda row: words.month(words.when_of(row.item))):
        text("h3", month).props["aria-level"] = "2"
        with box("ul", "rows"):
            for row in some:
                entry(row)


def entry(row: Row) -> None:
    """One row: its day, its text, what became of it, the way to it."""
    item = row.item
    with box("li", row.state if row.state in (ENDED, FORGOTTEN) else ""):
        text("span", words.day(words.when_of(item)).split(" ", 1)[0], "row-day num")
        with box("div", "row-main line"):
            text("p", words.short(item.text), "memory")
            with box("div", "meta"):
                if row.state == ENDED:
                    text("span", f"no longer true since {words.moment_of(item.until)}", "chip warn")
                elif row.state == LATER:
                    text("span", f"true from {words.moment_of(item.since)}", "chip")
                elif row.state == FORGOTTEN:
                    text("span", words.gone(item), "chip bad")
                text("span", item.scope)
                distrust(item)
                if item.kind != "episode":
                    text("span", item.kind, "chip")
        link(
            f"#{item.id}", words.url(f"/item/{item.id}", scope=item.scope), "row-id small", aria_label=f"Item {item.id}"
        )

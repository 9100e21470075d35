"""Budget: how many bytes are held, by what, and what fitting into fewer would cost."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from nicegui import ui

from loci.app.web import dryrun, words
from loci.app.web.desk import Desk, Work
from loci.app.web.dryrun import Trial
from loci.app.web.frame import Notice, box, button, field, page, text, working
from loci.app.web.reading import Stock
from loci.records import Item

_LISTED = 100
_SCOPES = 10


def add(desk: Desk) -> None:
    """Serve the page."""

    @ui.page("/budget")
    async def budget(scope: str = "") -> None:
        with page(desk, "Budget", "/budget", scope) as (notice, path):
            place = box("div")
            Dry(desk, notice).draw()

        async def fill() -> None:
            with place, working(Work("Counting")):
                found = await notice.attempt(desk.run(_read, desk, path))
            if found is not None:
                with place:
                    _show(desk, path, *found)

        ui.timer(0.01, fill, once=True)


def _read(desk: Desk, scope: str) -> tuple[int | None, Stock, int]:
    return desk.reading.held(), desk.reading.stock(scope), len(desk.memory.jobs(scope=scope, waiting=True))


def _show(desk: Desk, scope: str, held: int | None, stock: Stock, jobs: int) -> None:
    with box("div", "figures"):
        for figure, said in (
            ("" if held is None else words.size(held), "held by the whole store, indexes included"),
            (f"{stock.items:,}", f"items in {scope}"),
            (
                words.size(held / stock.items) if held and stock.items and scope == "/" else "",
                "for an item, on average",
            ),
            (f"{jobs:,}" if jobs else "", "jobs waiting; run them with Memory.work()"),
        ):
            if figure:
                with box("div", "figure"):
                    text("b", figure, "num")
                    text("span", said, "small soft")
    if stock.items:
        text("h2", "Items by kind")
        _shares(stock.kinds)
    if len(stock.scopes) > 1:
        text("h2", "Items by scope" if len(stock.scopes) <= _SCOPES else f"The {_SCOPES} largest scopes")
        _shares(dict(list(stock.scopes.items())[:_SCOPES]))


def _shares(counts: Mapping[str, int]) -> None:
    most = max(counts.values())
    with box("div", "share num"):
        for name, number in counts.items():
            text("span", name)
            box("i", aria_hidden="true").style(f"width:{100 * number / most:.1f}%")
            text("span", f"{number:,}")


class Dry:
    """The dry run: a size, a button, what would go."""

    def __init__(self, desk: Desk, notice: Notice) -> None:
        self._desk, self._notice = desk, notice

    def draw(self) -> None:
        """The form, clearly marked as a trial."""
        with box("section", "dry", aria_label="Dry run"):
            text("h2", "What would fitting into fewer bytes drop?")
            text("p", "A dry run: a copy is consolidated and thrown away. This memory is only read.", "soft small")
            with box("div", "actions more"):
                self._size = field("Fit into", kind="w-mid", hint="64MB")
                self._go = button("Try on a copy", self._try, kind="primary")
            self._size.on("keydown.enter", self._try)
            self._place = box("div")

    async def _try(self) -> None:
        self._notice.clear()
        self._place.clear()
        size = (self._size.value or "").strip()
        if not size:
            self._notice.problem("The size is empty; give bytes such as 64MB, then press Try on a copy")
            return
        work = Work("Copying")
        with self._place, working(work, self._go):
            done = await self._notice.attempt(
                self._desk.run(dryrun.trial, self._desk.reading, self._desk.scheme, size, work)
            )
        if done is not None:
            with self._place:
                self._show(done, size)

    def _show(self, done: Trial, size: str) -> None:
        report = done.report
        went = len(done.merged) + len(done.dropped)
        met = (
            "It would fit."
            if report.met
            else "It would not fit: the empty store itself, what is pinned and what past questions needed take more."
        )
        said = f"{words.count(went, 'item')} would go. {words.size(report.bytes_before)} → {words.size(report.bytes_after)}. {met}"
        text("p", said, "more").props["role"] = "status"
        replayed = f"{words.count(report.questions, 'past question')} replayed"
        steps = [
            f"{step.what} {step.items:,}: recall {step.before:.2f} → {step.after:.2f}"
            f"{'' if step.committed else ', refused'}"
            for step in report.steps
        ]
        text("p", "; ".join([replayed, *steps]), "soft small num")
        if not 0.98 < done.copied / done.held < 1.02:
            said = f"The copy, a file without vectors, holds {words.size(done.copied)} where the store holds {words.size(done.held)}; the budget was scaled alike."
            text("p", said, "soft small")
        self._gone("Merged into a near duplicate", done.merged)
        self._gone("Dropped, worth least for their bytes", done.dropped)
        text(
            "p",
            f"To do it: loci consolidate {shlex.quote(self._desk.name)} --budget {shlex.quote(size)} --scope /",
            "mono more",
        )

    @staticmethod
    def _gone(title: str, items: list[Item]) -> None:
        if not items:
            return
        text("h3", f"{title}: {words.count(len(items), 'item')}").props["aria-level"] = "3"
        with box("ul", "rows", aria_label=title):
            for item in items[:_LISTED]:
                with box("li"):
                    text("span", f"#{item.id}", "soft small num")
                    text("p", words.short(item.text, 200), "memory row-main")
        if len(items) > _LISTED:
            text("p", f"and {len(items) - _LISTED:,} more", "soft small")

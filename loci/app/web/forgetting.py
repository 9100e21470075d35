"""Forgetting: a dialog that says what goes with it, the way back inside the window, and the proof of an erasure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from loci.app.web import words
from loci.app.web.desk import Desk, Work
from loci.app.web.frame import Notice, box, button, link, page, text, working
from loci.app.web.reading import Line, cascade
from loci.records import Item, Receipt

_LISTED = 50
Again = Callable[[], Awaitable[None]]


class Forgetting:
    """The dialog that asks before an item is forgotten."""

    def __init__(self, desk: Desk, notice: Notice, item: Item, again: Again, erased: Again) -> None:
        self._desk, self._notice, self._item = desk, notice, item
        self._again, self._erased = again, erased

    async def open(self) -> None:
        """Look what would go with it, then ask."""
        self._notice.clear()
        item = self._item
        falls = await self._notice.attempt(self._desk.run(cascade, self._desk.reading, [item.id], item.scope))
        if falls is None:
            return
        with ui.dialog() as dialog, ui.card().classes("dialog"):
            dialog.props("aria-label=Forget")
            text("h2", f"Forget item {item.id}?")
            text("p", words.short(item.text, 300), "memory")
            if falls:
                text("p", f"With it {words.count(len(falls), 'item goes', 'items go')} that rest on it alone:", "more")
                _list(falls)
            else:
                text("p", "Nothing rests on it alone; only this item goes.", "soft more")
            self._for_good = ui.checkbox("Erase for good: bytes and all, with proof; there is no way back")
            with box("div", "actions"):
                button("Cancel", dialog.close)

                async def go() -> None:
                    dialog.close()
                    await self._go()

                button("Forget", go, kind="danger", label=f"Forget item {item.id} now")
        dialog.open()

    async def _go(self) -> None:
        erase = bool(self._for_good.value)
        item = self._item
        with working(Work("Erasing and looking through the bytes" if erase else "Forgetting")):
            done = await self._notice.attempt(self._desk.run(self._desk.forget, [item.id], item.scope, erase=erase))
        if done is None:
            return
        went, receipts = done
        named = ", ".join(f"#{id_}" for id_ in went)
        if erase:
            proved(self._notice, f"Erased {named}.", receipts)
            await self._erased()
        else:
            place = self._notice.done(f"Forgot {named}. Until it is erased it can be brought back.")
            await (self._again() if self._desk.at_hand else self._erased())  # a service shows nothing of it any more
            with place:
                button("Undo", self._undo, kind="quiet", label=f"Bring item {item.id} back")

    async def _undo(self) -> None:
        came = await self._notice.attempt(self._desk.run(self._desk.restore, self._item.id, self._item.scope))
        if came is not None:
            self._notice.done(f"Restored {', '.join(f'#{id_}' for id_ in came)}.")
            await self._again()


def proved(notice: Notice, said: str, receipts: list[Receipt]) -> None:
    """Say what was erased and what the search through the bytes found."""
    lines = [str(receipt) for receipt in receipts]
    if all(receipt.clean for receipt in receipts):
        notice.done(f"{said} Verified:", *lines)
    else:
        notice.problem(f"{said} Not all is gone: " + "; ".join(lines))


def back(desk: Desk, notice: Notice, item: Item, again: Again, erased: Again) -> None:
    """Buttons for a forgotten item: bring it back, or erase it now."""

    async def restore() -> None:
        came = await notice.attempt(desk.run(desk.restore, item.id, item.scope))
        if came is not None:
            notice.done(f"Restored {', '.join(f'#{id_}' for id_ in came)}.")
            await again()

    async def erase() -> None:
        receipts = await notice.attempt(desk.run(desk.erase, item.id))
        if receipts is not None:
            proved(notice, f"Erased #{item.id}.", receipts)
            await erased()

    async def sure() -> None:
        with ui.dialog() as dialog, ui.card().classes("dialog"):
            dialog.props("aria-label=Erase")
            text("h2", f"Erase item {item.id} for good?")
            text("p", words.short(item.text, 300), "memory")
            text("p", "Its bytes leave the file, and those of what rests on it alone. There is no way back.", "more")
            with box("div", "actions"):
                button("Cancel", dialog.close)

                async def go() -> None:
                    dialog.close()
                    await erase()

                button("Erase", go, kind="danger", label=f"Erase item {item.id} now")
        dialog.open()

    button("Restore", restore, kind="quiet", label=f"Restore item {item.id}")
    button("Erase…", sure, kind="quiet danger", label=f"Erase item {item.id} for good")


def add(desk: Desk) -> None:
    """Serve the page of what was forgotten."""

    @ui.page("/forgotten")
    async def forgotten(scope: str = "") -> None:
        with page(desk, "Forgotten", "/forgotten", scope) as (notice, path):
            text("p", "What was forgotten is recalled no more. Until it is erased it can be brought back.", "soft")
            place = box("div", "more")

        async def fill() -> None:
            place.clear()
            with place, working(Work("Reading")):
                line = await notice.attempt(desk.run(desk.reading.line, path, None, forgotten=True, count=_LISTED))
            if line is not None:
                with place:
                    _forgotten(desk, notice, line, fill)

        ui.timer(0.01, fill, once=True)


def _forgotten(desk: Desk, notice: Notice, line: Line, again: Again) -> None:
    if not line.total:
        with box("div", "empty"):
            text("strong", "Nothing waits to be erased")
            said = (
                "A service does not list what it has forgotten." if not desk.at_hand else "Forget an item on its page."
            )
            text("p", said)
        return
    with box("ul", "rows", aria_label="Forgotten items"):
        for row in line.rows:
            with box("li"), box("div", "row-main"):
                text("p", words.short(row.item.text), "memory")
                with box("div", "meta"):
                    target = words.url(f"/item/{row.item.id}", scope=row.item.scope)
                    link(f"#{row.item.id}", target, aria_label=f"Item {row.item.id}")
                    text("span", words.gone(row.item), "chip bad")
                    text("span", row.item.scope)
                if not desk.read_only:
                    with box("div", "hit-foot"):
                        back(desk, notice, row.item, again, again)
    if line.total > len(line.rows):
        text("p", f"{len(line.rows)} of {line.total:,}, newest first", "soft small more")


def _list(items: list[Item]) -> None:
    with box("ul", "rows", aria_label="What goes with it", tabindex="0"):
        for item in items[:_LISTED]:
            with box("li"):
                text("span", f"#{item.id}", "soft small")
                text("p", words.short(item.text, 200), "memory row-main")
    if len(items) > _LISTED:
        text("p", f"and {len(items) - _LISTED:,} more", "soft small")

"""One item: its text, times, scope and source, what became of it, what it rests on and what rests on it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from nicegui import ui

from loci.app.web import graph, words
from loci.app.web.desk import Desk, Work
from loci.app.web.forgetting import Again, Forgetting, back
from loci.app.web.frame import Notice, box, button, link, page, text, working
from loci.app.web.graph import Edge
from loci.core.errors import UnknownItem
from loci.records import Event, Item

_AROUND = 40  # neighbours that are shown


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the page shows of an item."""

    item: Item
    events: list[Event]
    edges: list[Edge]


def add(desk: Desk) -> None:
    """Serve the page."""

    @ui.page("/item/{id_}")
    async def item(id_: int, scope: str = "") -> None:
        with page(desk, f"Item {id_}", "/item", scope) as (notice, path):
            place = box("div")

        async def fill() -> None:
            place.clear()
            with place, working(Work("Reading")):
                seen = await notice.attempt(desk.run(look, desk, id_, path))
            if seen is not None:
                with place:
                    _show(desk, notice, seen, fill, erased)

        async def erased() -> None:
            place.clear()
            with place, box("div", "empty"):
                text("strong", "This item is no longer here")
                link("Back to the timeline", words.url("/timeline", scope=scope))

        ui.timer(0.01, fill, once=True)


def look(desk: Desk, id_: int, scope: str) -> Seen:
    """Read an item with its history and neighbours."""
    found = desk.reading.items([id_], scope)
    if id_ not in found:
        raise UnknownItem(
            f"item {id_} is not in scope {scope!r}, or was erased; look in a wider scope, / is everything"
        )
    item = found[id_]
    edges = []
    if item.gone is None:
        links = desk.memory.links(id_, scope=scope)
        near = {end for one in links for end in (one.src, one.dst)} - {id_}
        derived = desk.reading.rests([id_], scope).get(id_, [])
        around = desk.reading.items([*item.sources, *derived, *near], scope)
        edges += [Edge(around[s], "left", "derived from", "source of") for s in item.sources if s in around]
        edges += [Edge(around[d], "right", "basis of", "source of") for d in derived if d in around]
        for one in links:
            other, side = (one.dst, "right") if one.src == id_ else (one.src, "left")
            if other in around and other != id_:
                edges.append(Edge(around[other], side, one.rel))
    return Seen(item, desk.memory.history(id_, scope=scope), edges[:_AROUND])


def _show(desk: Desk, notice: Notice, seen: Seen, again: Again, erased: Again) -> None:
    item = seen.item
    with box("div", f"item-text {'gone' if item.gone else ''}"):
        text("p", item.text, "memory")
    if item.gone is not None:
        rest = "it waits in quarantine until it is released" if item.held else "it can be restored until it is erased"
        text("p", f"Forgotten {words.moment_of(item.gone)}: it is recalled no more, and {rest}.", "more soft")
    if not desk.read_only:
        with box("div", "actions more"):
            if item.gone is None:
                forgetting = Forgetting(desk, notice, item, again, erased)
                button("Forget…", forgetting.open, kind="danger", label=f"Forget item {item.id}")
            else:
                back(desk, notice, item, again, erased)
    with box("div", "two"):
        with box("section", aria_label="What is known of it"):
            text("h2", "What is known of it")
            _facts(item)
        with box("section", aria_label="What became of it"):
            text("h2", "What became of it")
            with box("ol", "history"):
                for event in seen.events:
                    with box("li"):
                        text("span", words.moment_of(event.time), "soft")
                        text("span", words.event_of(event))
    if item.gone is None:
        text("h2", "Around it")
        graph.draw(item, seen.edges)


def _facts(item: Item) -> None:
    given = [
        ("happened", words.moment_of(item.at)), ("became known", words.moment_of(item.known)), ("holds", _holds(item)),
        ("kind", item.kind), ("scope", item.scope), ("session", item.session), ("source", item.source),
        ("said by", item.principal), ("trust", words.trust_of(item)),
        ("learned value", f"{item.value:+.1f} from {words.count(item.uses, 'judgement')}" if item.uses else None),
        ("pinned", "yes, no budget drops it" if item.pinned else None),
        ("meta", json.dumps(dict(item.meta), ensure_ascii=False, indent=1) if item.meta else None),
    ]  # fmt: skip
    with box("dl", "facts"):
        for name, value in given:
            if value:
                text("dt", name)
                text("dd", value, "mono" if name == "meta" else "")
        if item.sources:
            text("dt", "derived from")
            with box("dd"):
                for source in item.sources:
                    link(f"#{source}", words.url(f"/item/{source}", scope="/"), aria_label=f"Item {source}")
                    text("span", " ")


def _holds(item: Item) -> str:
    if item.since is None and item.until is None:
        return "always"
    since = "always" if item.since is None else words.moment_of(item.since)
    return f"from {since}" if item.until is None else f"from {since} until {words.moment_of(item.until)}"

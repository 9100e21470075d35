"""The graph around an item: what it was derived from, what was derived from it, what it is linked to.

Drawn as SVG whose nodes are plain links, so that it works by keyboard, in both lights and without a script; the same is
said again as a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loci.app.web import words
from loci.app.web.frame import box, link, text
from loci.records import Item

_WIDTH, _NODE, _TALL, _GAP = 980, 250, 52, 16
_MOST = 8  # nodes of one column
_LINE = 32  # characters of a line in a node


@dataclass(frozen=True, slots=True)
class Edge:
    """A neighbour and how it stands to the item: a source, derived from it, or a link with its relation."""

    item: Item
    side: str  # "left" or "right" of the item
    rel: str  # how the list says it
    arrow: str = ""  # how the arrow says it, from left to right; empty: the same


def draw(centre: Item, edges: Sequence[Edge]) -> None:
    """The picture, then the list that says the same."""
    if not edges:
        text("p", "Nothing was derived from it, and it is linked to nothing.", "soft")
        return
    left, right = ([edge for edge in edges if edge.side == side] for side in ("left", "right"))
    rows = max(min(len(left), _MOST), min(len(right), _MOST), 1)
    tall = rows * (_TALL + _GAP) + _GAP
    with box("div", "graph"), box("svg", viewBox=f"0 0 {_WIDTH} {tall}", role="group", aria_label="Graph"):
        middle, beside = _places(left, right, (tall - _TALL) / 2)
        for column, x in zip((left, right), beside, strict=True):
            shown = column[:_MOST]
            for place, edge in enumerate(shown):
                y = (tall - len(shown) * (_TALL + _GAP) + _GAP) / 2 + place * (_TALL + _GAP)
                _arrow(edge, (x, y), middle)
                _node(edge.item, x, y)
        _node(centre, *middle, kind="centre")
    _listed(edges)


def _places(left: Sequence[Edge], right: Sequence[Edge], y: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the item stands, and the columns beside it; with one column only, the two share the width."""
    if left and right:
        return ((_WIDTH - _NODE) / 2, y), (4.0, _WIDTH - _NODE - 4.0)
    near, far = 130.0, _WIDTH - _NODE - 130.0
    return (far if left else near, y), (near, far)


def _node(item: Item, x: float, y: float, kind: str = "") -> None:
    first, second = _lines(item.text)
    with box(
        "a",
        kind,
        href=words.url(f"/item/{item.id}", scope=item.scope),
        aria_label=f"Item {item.id}: {first} {second}".strip(),
    ):
        box("rect", x=f"{x:.1f}", y=f"{y:.1f}", width=str(_NODE), height=str(_TALL), rx="8")
        for line, offset in ((first, 21), (second, 40)):
            if line:
                _words(line, x + 12, y + offset + (0 if second else 10))


def _words(said: str, x: float, y: float, kind: str = "", anchor: str = "start") -> None:
    element = text("text", said, kind)
    for name, value in (("x", f"{x:.1f}"), ("y", f"{y:.1f}"), ("text-anchor", anchor)):
        element.props[name] = value


def _arrow(edge: Edge, at: tuple[float, float], middle: tuple[float, float]) -> None:
    """From the neighbour's side to the item's, or back, with the relation's name over it."""
    out = edge.side == "right"
    (x1, y1), (x2, y2) = ((middle[0] + _NODE, middle[1]), at) if out else ((at[0] + _NODE, at[1]), middle)
    y1, y2 = y1 + _TALL / 2, y2 + _TALL / 2
    bend = (x1 + x2) / 2
    box("path", d=f"M{x1:.1f} {y1:.1f} C{bend:.1f} {y1:.1f} {bend:.1f} {y2:.1f} {x2 - 6:.1f} {y2:.1f}")
    box("path", "tip", d=f"M{x2 - 8:.1f} {y2 - 4:.1f} L{x2:.1f} {y2:.1f} L{x2 - 8:.1f} {y2 + 4:.1f} z")
    end = y2 if out else y1
    _words(
        words.short(edge.arrow or edge.rel, 18),
        x2 - 10 if out else x1 + 6,
        end - 7,
        "soft-text",
        "end" if out else "start",
    )


def _lines(said: str) -> tuple[str, str]:
    """A text on two lines, broken between words where that is possible."""
    flat = " ".join(said.split())
    if len(flat) <= _LINE:
        return flat, ""
    cut = flat.rfind(" ", 0, _LINE + 1)
    cut = cut if cut > _LINE // 2 else _LINE
    return flat[:cut], words.short(flat[cut:].strip(), _LINE)


def _listed(edges: Sequence[Edge]) -> None:
    with box("ul", "rows more", aria_label="Neighbours"):
        for edge in edges:
            with box("li", "edge"):
                text("span", edge.rel, "chip")
                with box("div", "row-main"):
                    text("p", words.short(edge.item.text, 200), "memory")
                target = words.url(f"/item/{edge.item.id}", scope=edge.item.scope)
                link(f"#{edge.item.id}", target, "row-id small", aria_label=f"Item {edge.item.id}")

"""Draws loss against bytes from the kept rows; measures nothing. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loci.core.errors import need
from loci.lab.pareto import Row, front, kept, state, total

SUFFIXES = (".svg", ".png", ".pdf")
MARKS = {"torch": "s", "optimizer": "o", "local-trainer": "^"}
PANELS: tuple[tuple[str, Callable[[Row], int]], ...] = (
    ("bytes of training: weights, gradients, state, saved for backward", total),
    ("of these, bytes of optimizer state", state),
)


def draw(path: Path, *, rows: Sequence[Row] | None = None) -> list[Row]:
    """Draw rows (the kept ones unless given) into an SVG, PNG or PDF; returns those on the front of all bytes."""
    shown = [row for row in (kept() if rows is None else rows) if row["loss"] is not None]
    if not shown:
        raise ValueError("there are no measured rows to draw; run scripts/pareto")
    with page(path, size=(13, 6.5)) as figure:
        for axes, (title, size) in zip(figure.subplots(1, 2, sharey=True), PANELS, strict=True):
            _panel(axes, shown, size)
            axes.set_xlabel(title)
        figure.axes[0].set_ylabel(shown[0]["unit"].split(",")[0])
        figure.axes[0].legend(loc="lower left", frameon=False)
        figure.suptitle(
            f"{shown[0]['unit'].split(', ')[-1]}; mean and range of {len(shown[0]['seeds'])} seeds; filled: on the front"
        )
    return front(shown)


@contextmanager
def page(path: Path, *, size: tuple[float, float]) -> Iterator[Any]:
    """A figure of `size` in inches, saved in the end; the same drawing gives the same file. ValueError for another suffix."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"plot={str(path)!r} has no suffix that says its form; give one of {', '.join(SUFFIXES)}")
    need("matplotlib", extra="dev", who="The picture")
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    with rc_context({"svg.hashsalt": "loci", "font.size": 8}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def labelled(axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
    """Names in a column beside the panel, evenly spaced in the order given, each with a line to its point."""
    for place, (x, y, name) in enumerate(points):
        axes.annotate(
            name, (x, y), xytext=(1.03, 0.02 + 0.96 * place / max(1, len(points) - 1)), textcoords="axes fraction",
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.5, "relpos": (0, 0.5), "shrinkA": 1},
        )  # fmt: skip


def _panel(axes: Any, rows: Sequence[Row], size: Callable[[Row], int]) -> None:
    best = front(rows, size)
    axes.step([size(row) for row in best], [row["loss"] for row in best], where="post", color="0.8", zorder=1)
    for kind in dict.fromkeys(row["of"].split("/")[0] for row in rows):
        for place, row in enumerate(row for row in rows if row["of"].startswith(f"{kind}/")):
            face = "C0" if row in best else "white"
            axes.errorbar(
                size(row), row["loss"], yerr=_range(row), fmt=MARKS[kind], color="C0", markerfacecolor=face,
                linewidth=0.8, markersize=5, label=kind if place == 0 else None,
            )  # fmt: skip
    axes.set_xscale("symlog", linthresh=1e4, linscale=0.5) if min(map(size, rows)) == 0 else axes.set_xscale("log")
    axes.grid(visible=True, color="0.93")
    axes.set_axisbelow(True)
    ordered = sorted(rows, key=lambda row: float(row["loss"]))
    labelled(axes, [(size(row), row["loss"], f"{row['of'].split('/')[1]}  {row['loss']:.3f}") for row in ordered])


def _range(row: Row) -> list[list[float]]:
    losses = [loss for loss in row["seeds"].values() if loss is not None]
    return [[max(0.0, row["loss"] - min(losses))], [max(0.0, max(losses) - row["loss"])]]

"""Draws what is recalled against bytes of state from the kept rows; measures nothing. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loci.lab.capacity import TASKS, Row, front, kept, recalled
from loci.lab.plot import labelled, page

TITLES = {"mqar": "8 pairs, all asked for (MQAR)", "needle": "one symbol, among 48 of noise (needle)"}


def draw(path: Path, *, rows: Sequence[Row] | None = None) -> list[Row]:
    """Draw rows (the kept ones unless given) into an SVG, PNG or PDF; returns those on the front of a task, the first's first."""
    shown = list(kept() if rows is None else rows)
    if not shown:
        raise ValueError("there are no measured rows to draw; run scripts/capacity")
    with page(path, size=(14, 8.5)) as figure:
        for axes, task in zip(figure.subplots(1, len(TASKS), sharey=True), TASKS, strict=True):
            _panel(axes, shown, task)
            axes.set_title(TITLES[task])
            axes.set_xlabel("bytes of state a text")
        figure.axes[0].set_ylabel("percent of answers that are right")
        seeds = sorted({seed for row in shown for seed in row["recalled"][TASKS[0]]})
        one = "mean and range over seeds" if len(seeds) > 1 else "seed"
        figure.suptitle(
            f"{round(shown[0]['parameters'], -3) // 1000}k parameters each, at most {shown[0]['steps']} steps; {one} {', '.join(seeds)}; "
            f"a line joins two sizes of one mixer; filled: on the front"
        )
    return [row for task in TASKS for row in front(shown, task)]


def _panel(axes: Any, rows: Sequence[Row], task: str) -> None:
    best = front(rows, task)
    axes.step(
        [row["state_bytes"] for row in best], [recalled(row, task) for row in best], where="post", color="0.8", zorder=1
    )
    for place, of in enumerate(dict.fromkeys(row["of"] for row in rows)):
        own = [row for row in rows if row["of"] == of]
        axes.plot(
            [row["state_bytes"] for row in own], [recalled(row, task) for row in own], f"C{place % 10}-", linewidth=0.6
        )
        for row in own:
            seeds, mean = row["recalled"][task].values(), recalled(row, task)
            axes.errorbar(
                row["state_bytes"], mean, yerr=[[mean - min(seeds)], [max(seeds) - mean]], fmt="o", color=f"C{place % 10}",
                markerfacecolor=f"C{place % 10}" if row in best else "white", linewidth=0.8, markersize=4,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.grid(visible=True, color="0.93")
    axes.set_axisbelow(True)
    ordered = sorted(rows, key=lambda row: (recalled(row, task), -row["state_bytes"]))
    labelled(axes, [(row["state_bytes"], recalled(row, task), _name(row, task)) for row in ordered])


def _name(row: Row, task: str) -> str:
    return f"{row['of'].split('/')[1]}, {row['size']}  {recalled(row, task):.0f}"

"""The picture of a step: bytes alive over its operations as a stacked area, by what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loci.budget.timeline import KINDS, Timeline
from loci.core.errors import need
from loci.core.sizes import show

COLOURS = ("#3d5a80", "#98c1d9", "#e0a458", "#6a994e", "#bc4749")  # in the order of KINDS


def draw(steps: Mapping[str, Timeline], path: Path, *, budget: int | None = None) -> None:
    """One panel a plan, on one scale; the budget as a line. The file's name says PNG or SVG."""
    if path.suffix not in {".png", ".svg"}:
        raise ValueError(f"{path.name} is neither .png nor .svg; choose one of them")
    need("matplotlib", extra="plot", who="A picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4 * len(steps)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(steps), 1, squeeze=False, sharey=True)[:, 0]
    for panel, (name, step) in zip(panels, steps.items(), strict=True):
        _panel(panel, name, step, budget)
    panels[-1].set_xlabel("operations of two steps: a usual one, then one with what is done now and then")
    panels[0].legend(loc="upper left", ncols=len(KINDS), fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def _panel(panel: Any, name: str, step: Timeline, budget: int | None) -> None:
    curves, peak = step.curves() / 1e9, step.peak()
    x = np.arange(curves.shape[1])
    panel.stackplot(x, curves, labels=KINDS, colors=COLOURS, step="post", linewidth=0)
    at = int(step.live().argmax())
    panel.plot(x[at], peak.bytes / 1e9, "v", color="black", markersize=5)
    panel.set_title(f"{name}: {show(peak.bytes)} at its peak, in {peak.phase}", fontsize=10)
    for place in range(1, len(step.phases)):
        if step.phases[place] != step.phases[place - 1]:
            panel.axvline(place, color="grey", linewidth=0.4)
    if budget is not None:
        panel.axhline(budget / 1e9, color="black", linestyle="--", linewidth=1)
    panel.set_xlim(0, max(len(x) - 1, 1))
    panel.set_ylim(0, max(peak.bytes, budget or 0) / 1e9 * 1.15)
    panel.set_ylabel("GB alive")

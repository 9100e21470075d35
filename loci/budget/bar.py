"""A training's progress on stderr, where someone watches: its loss, and the bytes alive against those foreseen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from loci.budget.plan import Plan
from loci.core.sizes import show


@dataclass(frozen=True, slots=True)
class Progress:
    """One step: its number, its loss, the peak of bytes so far and the peak that was foreseen; a `note` when plans change."""

    step: int
    steps: int
    loss: float
    peak: int
    foreseen: int
    plan: Plan
    note: str = ""


Report = Callable[[Progress], None]


@contextmanager
def bar(steps: int) -> Iterator[Report]:
    """A bar of so many steps; of several processes the first one has it."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    quiet = not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0"
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=quiet) as shown:
        task = shown.add_task("", total=steps)

        def report(now: Progress) -> None:
            shown.update(
                task,
                completed=now.step,
                description=f"loss {now.loss:.3f}, {show(now.peak)} of {show(now.foreseen)} foreseen",
            )
            if now.note:
                shown.console.print(now.note)

        yield report

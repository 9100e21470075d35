"""The picture no paper shows: what is recalled against the bytes of state, every mixer in one model of as many parameters.

Each mixer of the catalogue stands in the model of tasks/recollection.py in two sizes, and is trained on MQAR and on a needle
in noise. `scripts/capacity` keeps one row a mixer and size in `capacity.jsonl`. Attention whose window holds the whole text
is the upper bound: it forgets nothing.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias

from loci.core.card import load

Row: TypeAlias = dict[str, Any]

TASKS, SEEDS = ("mqar", "needle"), (0, 1, 2)
PARAMETERS, STEPS = 60_000, 600
SIZES: Mapping[str, Mapping[str, Any]] = {  # to constructors that know them
    "small": {"n": 16, "P": 16, "L": 1, "N": 16, "M": 8, "C": 4, "k": 2, "heads": 4, "feature": 4, "window": 8, "inner": 32},
    "large": {"n": 48, "P": 64, "L": 2, "N": 64, "M": 16, "C": 8, "k": 4, "heads": 1, "feature": 8, "window": 64, "inner": 64},
}  # fmt: skip
GIVEN: Mapping[str, Any] = {"theta": 64.0, "classes": 8}  # of either size
APART = {
    "degree": "window"
}  # whose window is not of moments that are attended to, but of moments learnt from: its default


@dataclass(frozen=True, slots=True)
class Entrant:
    """One mixer in one size."""

    of: str
    size: str
    entry: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its place among the rows."""
        return f"{self.of}, {self.size}"


def entrants() -> list[Entrant]:
    """Every mixer of the catalogue in the sizes that its constructor tells apart."""
    found: list[Entrant] = []
    for name, member in load("loci.state:mixers")().items():
        known, last = inspect.signature(member).parameters, None
        for size, options in SIZES.items():
            own = {key: value for key, value in {**GIVEN, **options}.items() if key in known}
            for key in APART.keys() & known.keys():
                own.pop(APART[key], None)
            if own != last:
                found.append(Entrant(f"mixer/{name}", size, f"{member.__module__}:{member.__qualname__}", own))
            last = own
    return found


def measure(entrant: Entrant, seed: int, *, tasks: Sequence[str] = TASKS, steps: int = STEPS) -> Row:
    """Train and ask once for each task: percent recalled, bytes of state a text, parameters."""
    once = load("loci.lab.tasks.recollection:recollected")
    runs = {
        task: once(entrant.entry, entrant.options, task, seed, parameters=PARAMETERS, steps=steps) for task in tasks
    }
    some = next(iter(runs.values()))
    return {
        "of": entrant.of, "size": entrant.size, "options": dict(entrant.options), "state_bytes": some.state_bytes,
        "parameters": some.parameters, "steps": steps, "unit": "percent of answers that are right",
        "recalled": {task: {str(seed): round(run.recalled, 1)} for task, run in runs.items()},
    }  # fmt: skip


def joined(old: Row | None, new: Row) -> Row:
    """A row with another seed's figures.

    >>> joined({"recalled": {"mqar": {"0": 1.0}}}, {"recalled": {"mqar": {"1": 3.0}}})
    {'recalled': {'mqar': {'0': 1.0, '1': 3.0}}}
    """
    before = {} if old is None else old["recalled"]
    return new | {"recalled": {task: before.get(task, {}) | seeds for task, seeds in new["recalled"].items()}}


def recalled(row: Row, task: str) -> float:
    """The mean over the seeds that were run, percent."""
    seeds = row["recalled"][task].values()
    return math.fsum(seeds) / len(seeds)


def front(rows: Iterable[Row], task: str) -> list[Row]:
    """The rows that no other row beats: every row with fewer bytes of state, or as many, recalls less. Smallest first.

    >>> rows = [{"state_bytes": b, "recalled": {"mqar": {"0": r}}} for b, r in ((9, 50.0), (1, 10.0), (5, 9.0), (8, 50.0))]
    >>> [row["state_bytes"] for row in front(rows, "mqar")]
    [1, 8]
    """
    best, found = -math.inf, []
    for row in sorted(rows, key=lambda row: (row["state_bytes"], -recalled(row, task))):
        if recalled(row, task) > best:
            best = recalled(row, task)
            found.append(row)
    return found


def kept() -> list[Row]:
    """The rows that were measured, by name."""
    text = resources.files("loci.lab").joinpath("capacity.jsonl")
    return [json.loads(line) for line in text.read_text("utf-8").splitlines()] if text.is_file() else []

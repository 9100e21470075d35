"""The picture no paper shows: held-out loss against the bytes of training, every method on one model at its best lr.

The model is the tiny transformer of tasks/language.py. Its lr is the best that a walk on one grid finds on a seed that is
not reported; its bytes are weights, gradients, optimizer state and what is saved for backward at the batch it trains on.
`scripts/pareto` keeps one row a method in `pareto.jsonl`: a planner reads there what a method gives up for its bytes.

A kind of method joins with a function that gives its entrants: see `entrants`.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, TypeAlias

from loci.core.card import load

Row: TypeAlias = dict[str, Any]

GRID = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
TUNED_ON, SEEDS = 100, (0, 1, 2)
STEPS, BATCH = 300, 16
LIMIT = 100.0  # nats; a uniform guess has 4.2, so what passes this has diverged
INNER = (r"(attn|mlp).*weight",)  # what low-rank papers train in a subspace
APART = ("bias", "norm")  # what trust ratios leave out
GIVEN: Mapping[str, Any] = {"rank": 16, "update_proj_gap": 50, "weight_decay": 0.0}  # to constructors that know them
BASELINES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "AdamW": ("AdamW", {"weight_decay": 0.0}),
    "SGD": ("SGD", {}),
    "SGD with momentum": ("SGD", {"momentum": 0.9}),
    "Adafactor": ("Adafactor", {"weight_decay": 0.0}),
}

LOCAL = ("greedy", "man", "local-reconstruction")  # under AdamW; others train models of their own kind


@dataclass(frozen=True, slots=True)
class Run:
    """One training: its held-out loss, NaN when it diverged, and its bytes by what they are for."""

    loss: float
    bytes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Entrant:
    """One method in the picture: `kind/name`, and how it trains at an lr and a seed."""

    of: str
    run: Callable[[float, int], Run]


def entrants() -> list[Entrant]:
    """Everything that is measured: torch's baselines, the optimizers of this house, and trainers that cut the model in two."""
    members = load("loci.weights.optim:optimizers")()
    return [
        *(Entrant(f"torch/{name}", partial(_trained, partial(_torchs, name))) for name in BASELINES),
        *(Entrant(f"optimizer/{name}", partial(_trained, partial(ours, member))) for name, member in members.items()),
        *(Entrant(f"local-trainer/{name}", partial(_locally, name)) for name in LOCAL),
    ]


def ours(member: Any, lr: float, model: Any) -> Any:
    """An optimizer for a model, as its paper uses it: what the constructor takes says how parameters are grouped.

    One with a rank gets it for the inner matrices (its own, where it has a default); one that adapts leaves out biases
    and norms.
    """
    known = inspect.signature(member).parameters
    options = {name: value for name, value in GIVEN.items() if name in known}
    params = model.named_parameters()
    if "rank" in known:
        rank = known["rank"].default or options["rank"]
        params, options["rank"] = load("loci.weights.optim.base:split")(model, INNER, rank=rank), None
    elif "adapt" in known:
        params = load("loci.weights.optim.base:split")(model, APART, adapt=False)
    return member(params, lr=lr, **options)


def measure(entrant: Entrant, *, grid: Sequence[float] = GRID, seeds: Sequence[int] = SEEDS) -> Row:
    """The row of one method: lr by a walk on the grid, then a run for each seed. A loss is null when a run diverged."""
    tried = walk(lambda lr: entrant.run(lr, TUNED_ON).loss, grid)
    lr = min(tried, key=lambda lr: (tried[lr], lr))
    if not math.isfinite(tried[lr]):
        raise ValueError(f"{entrant.of} diverged at every lr down to {min(grid)}; give a grid with smaller ones")
    runs = [entrant.run(lr, seed) for seed in seeds]
    losses = [one.loss for one in runs]
    return {
        "of": entrant.of,
        "lr": lr,
        "loss": _figure(sum(losses) / len(losses)),
        "spread": _figure(max(losses) - min(losses)),
        "bytes": next((one.bytes for one in runs if one.bytes), {}),
        "unit": f"held-out nats a character on tinyshakespeare, {STEPS} steps of batch {BATCH}",
        "seeds": {str(seed): _figure(loss) for seed, loss in zip(seeds, losses, strict=True)},
        "grid": {str(lr): _figure(tried[lr]) for lr in sorted(tried)},
    }


def walk(loss: Callable[[float], float], grid: Sequence[float]) -> dict[float, float]:
    """The losses at the lrs of a grid that were tried: from its middle, down or up as long as the loss falls.

    A loss that is not a number counts as infinite, and from there the walk goes down.

    >>> walk(lambda lr: (lr - 4) ** 2, [1, 2, 3, 4, 5, 6, 7, 8])
    {5: 1, 4: 0, 6: 4, 3: 1}
    """
    tried: dict[float, float] = {}
    best, last = len(grid) // 2, -1
    while best != last:
        last = best
        for place in (best, best - 1, best + 1):
            if 0 <= place < len(grid) and grid[place] not in tried:
                found = loss(grid[place])
                tried[grid[place]] = found if math.isfinite(found) else math.inf
        best = min((place for place, lr in enumerate(grid) if lr in tried), key=lambda place: tried[grid[place]])
    return tried


def total(row: Row) -> int:
    """All bytes of a row."""
    return sum(row["bytes"].values())


def state(row: Row) -> int:
    """The bytes that the optimizer itself keeps."""
    held: int = row["bytes"]["state"]
    return held


def front(rows: Iterable[Row], size: Callable[[Row], int] = total) -> list[Row]:
    """The rows that no other row beats: every row with fewer bytes, or as many, has a higher loss. Smallest first.

    >>> rows = [{"loss": loss, "bytes": {"state": held}} for loss, held in ((2.0, 9), (2.5, 1), (2.6, 5), (None, 0), (2.0, 8))]
    >>> [(row["loss"], total(row)) for row in front(rows)]
    [(2.5, 1), (2.0, 8)]
    """
    best, found = math.inf, []
    for row in sorted((row for row in rows if row["loss"] is not None), key=lambda row: (size(row), row["loss"])):
        if row["loss"] < best:
            best = row["loss"]
            found.append(row)
    return found


def kept() -> list[Row]:
    """The rows that were measured, by name."""
    text = resources.files("loci.lab").joinpath("pareto.jsonl")
    return [json.loads(line) for line in text.read_text("utf-8").splitlines()] if text.is_file() else []


def _trained(build: Callable[[float, Any], Any], lr: float, seed: int) -> Run:
    language = "loci.lab.tasks.language"
    end = load(f"{language}:trained")(partial(build, lr), seed, steps=STEPS, batch=BATCH, limit=LIMIT)
    return Run(end.loss, load(f"{language}:parts")(end, batch=BATCH) if math.isfinite(end.loss) else {})


def _locally(name: str, lr: float, seed: int) -> Run:
    locally = load("loci.lab.tasks.local_language:trained")
    return Run(*locally(name, lr, seed, steps=STEPS, batch=BATCH, limit=LIMIT))


def _torchs(name: str, lr: float, model: Any) -> Any:
    member, options = BASELINES[name]
    return load(f"torch.optim:{member}")(model.parameters(), lr=lr, **options)


def _figure(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None

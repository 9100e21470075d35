"""Claims: what a paper promises, as an experiment that can fail, at equal bytes, with a control.

Threshold and seeds stand in the claim's file before its first reported run and are never tuned to pass. A claim whose
control also holds shows nothing, so it counts as not held. Verdicts are kept in `verdicts.jsonl` as they came out.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["held", "not held", "not testable here"]


class NotTestable(Exception):
    """The claim cannot be tested on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One run: the measured value in its unit, the bytes that the method kept, and how long it took."""

    value: float
    unit: str
    bytes: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One promise. `run` and `control` measure the same thing; `holds` is the threshold, fixed beforehand."""

    of: str  # "scheme/hipporag2"
    says: str  # the promise, with its threshold
    source: str  # where the paper says so
    run: Callable[[int], Evidence]
    control: Callable[[int], Evidence]
    holds: Callable[[Evidence, Evidence], bool]
    seeds: Sequence[int] = (0, 1, 2)
    tier: Literal["default", "long", "gpu"] = "default"


def claims() -> dict[str, Claim]:
    """Every claim by what it is of; importing the package finds them."""
    package = importlib.import_module("loci.lab.claims")
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        claim: Claim = importlib.import_module(f"loci.lab.claims.{module.name}").CLAIM
        found[claim.of] = claim
    return dict(sorted(found.items()))


def find(name: str) -> Claim:
    """The claim of a method, by `kind/name` or by name alone."""
    known = claims()
    fits = [claim for of, claim in known.items() if name in (of, of.split("/")[1])]
    if len(fits) != 1:
        raise ValueError(f"name={name!r} fits {len(fits)} claims; choose one of {', '.join(known)}")
    return fits[0]


def judge(claim: Claim) -> dict[str, Any]:
    """Run a claim and its control on every seed; the verdict with its figures, as one row."""
    row: dict[str, Any] = {"of": claim.of, "says": claim.says, "source": claim.source, "tier": claim.tier}
    try:
        pairs = [(_timed(claim.run, seed), _timed(claim.control, seed)) for seed in claim.seeds]
    except NotTestable as why:
        return row | {"verdict": "not testable here", "why": str(why)}
    held = all(claim.holds(got, control) for got, control in pairs)
    trivial = all(claim.holds(control, control) for _, control in pairs)
    figures = [
        {"seed": seed, "got": asdict(got), "control": asdict(control)}
        for seed, (got, control) in zip(claim.seeds, pairs, strict=True)
    ]
    return row | {"verdict": "held" if held and not trivial else "not held", "runs": figures}


def _timed(measure: Callable[[int], Evidence], seed: int) -> Evidence:
    start = time.perf_counter()
    got = measure(seed)
    return Evidence(got.value, got.unit, got.bytes, round(time.perf_counter() - start, 2))


def verdicts() -> dict[str, dict[str, Any]]:
    """The kept verdicts by what they are of."""
    text = resources.files("loci.lab").joinpath("verdicts.jsonl")
    lines = text.read_text("utf-8").splitlines() if text.is_file() else []
    return {row["of"]: row for row in map(json.loads, lines)}


def keep(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write verdicts into a file, one a line, sorted; those of other claims stay."""
    held = {row["of"]: row for row in map(json.loads, path.read_text("utf-8").splitlines())} if path.exists() else {}
    held |= {row["of"]: row for row in rows}
    path.write_text("".join(json.dumps(held[of], ensure_ascii=False) + "\n" for of in sorted(held)), "utf-8")


def show(name: str) -> dict[str, Any] | None:
    """The kept verdict of a claim, None when it was never judged."""
    return verdicts().get(find(name).of)


def run(name: str) -> dict[str, Any]:
    """Judge a claim now."""
    return judge(find(name))

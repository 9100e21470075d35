"""Will it fit, and what is given up? Every plan's peak of bytes, foreseen without a GPU, and the best within a budget.

>>> import loci
>>> found = loci.fit("gpt:nano", "16MB", batch=(8, 64), device="cpu", optimizer=["adamw", "galore"])
>>> found.best.plan.optimizer, found.best.bytes <= 16_000_000
('adamw', True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch._subclasses.fake_tensor import FakeTensor

from loci.budget.blocks import blocks, numbers, weight_bytes
from loci.budget.choice import Forecast, Progress, forecasts
from loci.budget.device import Device
from loci.budget.device import device as named
from loci.budget.forecast import Forecasts
from loci.budget.plan import PRECISIONS, Plan, Precision, candidates, member
from loci.budget.simulate import fake, simulate
from loci.budget.subject import Subject, Target, rows_of, subject
from loci.budget.timeline import Timeline
from loci.core import sizes
from loci.core.errors import BudgetExceeded


@dataclass(frozen=True)
class Fit:
    """All plans for one subject, the best first: least loss given up, then what the device is fast at, then least arithmetic."""

    subject: Subject
    device: Device
    budget: int | None
    forecasts: tuple[Forecast, ...]
    parameters: int  # how many numbers the model has
    options: Mapping[str, Any]

    @cached_property
    def fitting(self) -> tuple[Forecast, ...]:
        """Those within the budget, the best first; all of them where there is no budget."""
        return tuple(found for found in self.forecasts if self.budget is None or found.bytes <= self.budget)

    @property
    def best(self) -> Forecast | None:
        """The best plan that fits, None where none does."""
        return self.fitting[0] if self.fitting else None

    @cached_property
    def smallest(self) -> Forecast:
        """The plan with the lowest peak."""
        return min(self.forecasts, key=lambda found: found.bytes)

    @cached_property
    def advice(self) -> str:
        """What to do: the plan to take, or the smallest budget that would do and the cheapest change."""
        if self.best is not None:
            return f"train with {self.best.plan}: {sizes.show(self.best.bytes)}"
        assert self.budget is not None
        told = (
            f"nothing fits {sizes.show(self.budget)}; the smallest budget that would do is "
            f"{self.smallest.bytes} bytes ({sizes.show(self.smallest.bytes)}), with {self.smallest.plan}"
        )
        return told + self._shorter()

    def _shorter(self) -> str:
        if self.subject.resized is None or self.subject.window is None:
            return "; or give a smaller batch"
        rows, tokens = self.subject.rows, self.subject.window
        while tokens > 32:
            tokens //= 2
            less = Forecasts(
                self.subject.resized(rows, tokens), self.device, {self.smallest.plan.optimizer: dict(self.options)}
            )
            peak = less.peak(self.smallest.plan)
            if peak.bytes <= (self.budget or 0):
                return f"; or cut rows to {tokens} tokens: {sizes.show(peak.bytes)} with the same plan"
        return "; no shorter rows would do"

    def timeline(self, plan: Plan | None = None) -> Timeline:
        """The bytes over one step of a plan, simulated whole; the best that fits unless given."""
        return simulate(self.subject, plan or self._chosen().plan, self.device, options=dict(self.options))

    def plot(self, path: str | Path, *, plans: Sequence[Plan] | None = None) -> None:
        """Draw the bytes over one step as a stacked area, one panel a plan, as PNG or SVG by the file's name."""
        from loci.budget.picture import draw

        shown = list(plans or [found.plan for found in (self.fitting or (self.smallest,))[:1]])
        draw({str(plan): self.timeline(plan) for plan in shown}, Path(path), budget=self.budget)

    def train(self, data: Any, **options: Any) -> Any:
        """Train under the best plan that fits; see `loci.budget.train.train` for what can be said."""
        from loci.budget.train import train

        return train(self, data, **options)

    def _chosen(self) -> Forecast:
        if self.best is None:
            assert self.budget is not None
            raise BudgetExceeded(self.advice, needed=self.smallest.bytes, limit=self.budget)
        return self.best

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "target": self.subject.name,
            "device": self.device.name,
            "parameters": self.parameters,
            "budget": self.budget,
            "best": None if self.best is None else self.best.row() | {"fits": True},
            "advice": self.advice,
            "plans": [found.row() | {"fits": found in self.fitting} for found in self.forecasts],
        }


def fit(
    target: Target,
    budget: int | str | None = None,
    *,
    batch: tuple[int, int] | None = None,
    device: str | None = None,
    optimizer: Sequence[str] | None = None,
    precision: Sequence[Precision] | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Foresee the peak of bytes of every plan for a target, and order them.

    `target` is a preset (`gpt:350m`), a Hugging Face config.json, `package.module:function`, or a function that returns
    a model, a batch and loss(model, batch). `batch` is rows x tokens. `device` is planned for, cuda unless given, and
    need not be there. `options` go to the optimizer's constructor (lr, rank, ...), when one optimizer is asked for.
    ValueError for an unknown name, or a budget that is below the weights alone.
    """
    limit = None if budget is None else sizes.parse(budget)
    place = named(device or "cuda")
    what = subject(target, batch=batch)
    for name in optimizer or ():
        member(name)
    for dtype in precision or ():
        if dtype not in PRECISIONS:
            raise ValueError(f"precision={dtype!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    if options and (optimizer is None or len(optimizer) != 1):
        raise ValueError(f"options={dict(options)} are for one optimizer; name it with optimizer=[...]")
    with fake(place):
        model, made, _ = what.make()
        if not all(isinstance(param, FakeTensor) for param in model.parameters()):
            raise ValueError(f"{what.name}() returned a model that was made before; build it inside, anew in each call")
        rows, count, repeats = rows_of(made), numbers(model), bool(blocks(model))
        least = min(weight_bytes(model, half=dtype == "bf16") for dtype in precision or PRECISIONS)
    if limit is not None and limit < least:
        raise ValueError(
            f"budget={sizes.show(limit)} is below the {sizes.show(least)} of the {count:,} weights alone; raise it to more "
            "than that, or take a smaller model"
        )
    plans = list(candidates(rows, optimizer=optimizer, precision=precision, blocks=repeats))
    given = {name: dict(options) for name in optimizer or ()} if options else {}
    found = forecasts(Forecasts(what, place, given), plans, progress)
    return Fit(what, place, limit, found, count, dict(options or {}))

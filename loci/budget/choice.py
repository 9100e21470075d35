"""Weighing plans: what each gives up, and the order in which they are preferred."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loci.budget.forecast import Forecasts
from loci.budget.plan import Plan, Precision, describe, is_zeroth_order, losses
from loci.budget.timeline import Kind, Peak

Progress = Callable[[int, int], None]
PRECISION: Mapping[Precision, str] = {
    "bf16": "weights themselves in bfloat16, where small updates round away",
    "bf16-mixed": "products in bfloat16",
    "fp16-mixed": "products in float16; a step is left out when a gradient overflows",
}
FIRST: Mapping[str, tuple[Precision, ...]] = {  # between plans that are equal otherwise: what the device is fast at
    "cuda": ("bf16-mixed", "fp16-mixed", "fp32", "bf16"),
    "cpu": ("fp32", "bf16-mixed", "fp16-mixed", "bf16"),
}
UNMEASURED = 10.0  # nats: a method whose loss was never measured comes after all that were


@dataclass(frozen=True, slots=True)
class Forecast:
    """One plan: its peak in bytes and what it is made of, its arithmetic against the plain plan's, what it gives up."""

    plan: Plan
    peak: Peak
    work: float  # floating-point operations of a step, 1 for the plain one
    gives_up: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The peak of a step."""
        return self.peak.bytes

    @property
    def split(self) -> dict[Kind, int]:
        """The peak by what the bytes are for."""
        return self.peak.split

    def row(self) -> dict[str, Any]:
        """As one row of a table."""
        plan = self.plan
        return {
            "optimizer": plan.optimizer,
            "precision": plan.precision,
            "checkpointing": plan.checkpointing,
            "micro_batches": plan.micro_batches,
            "fused": plan.fused,
            "bytes": self.bytes,
            "split": {str(kind): size for kind, size in self.split.items()},
            "phase": self.peak.phase,
            "work": round(self.work, 3),
            "gives_up": list(self.gives_up),
        }


def forecasts(of: Forecasts, plans: Sequence[Plan], progress: Progress | None) -> tuple[Forecast, ...]:
    """Every plan foreseen, in the order of preference."""
    plain = of.flops(Plan("sgd"))
    found = []
    for done, plan in enumerate(plans, 1):
        try:
            work = of.flops(plan) / plain if plain else 1.0
            found.append(Forecast(plan, of.peak(plan), work, gives_up(plan, work)))
        except (ValueError, RuntimeError):
            if plan.micro_batches == 1:
                raise
            # else the model takes no part so small, as batch norms take no single row: that is no way to train it
        if progress is not None:
            progress(done, len(plans))
    order = FIRST[of.device.name]
    return tuple(sorted(found, key=lambda one: preference(one, order)))


def preference(one: Forecast, order: Sequence[Precision]) -> tuple[Any, ...]:
    """Lower is better: loss given up as measured, 16-bit weights, what the device is fast at, arithmetic, then the rest."""
    plan = one.plan
    return (
        losses().get(plan.optimizer, UNMEASURED),
        plan.precision == "bf16",
        order.index(plan.precision),
        round(one.work, 2),
        plan.fused,
        plan.micro_batches,
        plan.optimizer,
    )


def gives_up(plan: Plan, work: float) -> tuple[str, ...]:
    """What a plan costs besides bytes, in plain words."""
    told = []
    if plan.optimizer != "adamw":
        loss = losses().get(plan.optimizer)
        lost = "its loss was not measured" if loss is None else f"{loss:+.2f} nats against AdamW on a tiny transformer"
        told.append(f"{plan.optimizer}: {describe(plan.optimizer)} ({lost})")
    if plan.precision in PRECISION:
        told.append(PRECISION[plan.precision])
    if plan.checkpointing:
        told.append(f"blocks run twice: {work - 1:+.0%} arithmetic")
    if plan.micro_batches > 1:
        told.append(f"{plan.micro_batches} passes of a part each")
    if plan.fused:
        told.append("no clipping by the norm of all gradients")
    if is_zeroth_order(plan.optimizer):
        told.append("many more steps; for fine-tuning")
    return tuple(told)

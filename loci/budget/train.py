"""Training under the plan that `fit` chose, within its bytes, until it is done.

A step that runs out of memory changes nothing: it is explained by what was alive, and the next plan goes on from there.
With a folder for checkpoints a run that was cut goes on to the bit.
"""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from loci.budget import checkpoint
from loci.budget.bar import Progress, Report, bar
from loci.budget.choice import Forecast
from loci.budget.fit import Fit
from loci.budget.meter import ByteMeter
from loci.budget.plan import Plan
from loci.budget.processes import Processes
from loci.budget.rows import batches
from loci.budget.training import Training
from loci.core.errors import BudgetExceeded, OverBudget
from loci.core.sizes import show


@dataclass(slots=True)
class Trained:
    """What a run came to: the model, each step's loss, the plan at the end, measured and foreseen peak, notes."""

    model: torch.nn.Module
    losses: list[float]
    plan: Plan
    peak: int
    foreseen: int
    notes: list[str] = field(default_factory=list)


def train(
    fit: Fit,
    data: Any,
    *,
    steps: int = 100,
    seed: int = 0,
    plan: Plan | None = None,
    checkpoints: str | Path | None = None,
    every: int = 100,
    report: Report | None = None,
) -> Trained:
    """Train for `steps` steps in all, those of an earlier run in the same folder of `checkpoints` included.

    `data` is a list of batches, a function batch(number), tokens or the path of a text. Under torchrun the weights are
    sharded over the processes (FSDP2) and each takes its part of the rows. A budget is kept: on the CPU a step that
    would pass it is stopped, on a GPU the allocator is told. `report` is called after every step; without one, a bar
    on stderr shows loss and bytes where someone watches. Raises BudgetExceeded when no plan is left.
    """
    if steps < 0 or every < 1:
        raise ValueError(f"steps={steps}, every={every}: give at least 0 steps and a checkpoint every 1 or more")
    run = _Run(fit, Path(checkpoints) if checkpoints is not None else None, steps)
    watching = bar(steps) if report is None else nullcontext(report)
    with Processes.of(fit.device.name) as run.processes, watching as run.report:
        batch = batches(data, rows=fit.subject.rows, window=fit.subject.window, tokens=fit.subject.tokens, seed=seed)
        run.start(plan, seed)
        while len(run.losses) < steps:
            done = run.advance(batch(len(run.losses)))
            if done and run.folder is not None and (len(run.losses) % every == 0 or len(run.losses) == steps):
                run.save()
    return Trained(run.training.model, run.losses, run.training.plan, run.peak, run.foreseen.bytes, run.notes)


class _Run:
    """The state of one run: the training at hand, the losses so far, and the plans that failed."""

    training: Training
    foreseen: Forecast
    processes: Processes
    report: Report

    def __init__(self, fit: Fit, folder: Path | None, steps: int) -> None:
        self.fit, self.folder, self.steps = fit, folder, steps
        self.losses: list[float] = []
        self.notes: list[str] = []
        self.peak = 0

    def start(self, plan: Plan | None, seed: int) -> None:
        """Build the training, or take it up where the folder's newest checkpoint left it."""
        if self.fit.device.name == "cuda" and not torch.cuda.is_available():
            raise ValueError("this was planned for cuda, which is not here; plan with device='cpu' to train here")
        if plan is None and self.fit.best is None:
            assert self.fit.budget is not None
            raise BudgetExceeded(self.fit.advice, needed=self.fit.smallest.bytes, limit=self.fit.budget)
        held = checkpoint.last(self.folder, device=self.fit.device.name) if self.folder is not None else None
        torch.manual_seed(seed)
        if held is not None:
            self.build(plan if plan is not None and _alike(plan, held["plan"]) else held["plan"])
            checkpoint.load(self.training, held)
            self.losses = list(held["losses"])
        else:
            self.build(plan or self.fit.fitting[0].plan)
            self.save()

    def build(self, plan: Plan) -> None:
        """A fresh training under a plan."""
        known = {one.plan: one for one in self.fit.forecasts}
        if plan not in known:
            raise ValueError(f"plan {plan} is none of those that were weighed; choose one of fit.forecasts")
        self.foreseen = known[plan]
        self.training = Training(
            self.fit.subject,
            plan,
            device=self.fit.device.name,
            options=dict(self.fit.options),
            shard=self.processes.shard,
        )
        self.peak = 0

    def save(self) -> None:
        """Keep the training in the folder, if there is one."""
        if self.folder is not None:
            checkpoint.save(self.folder, self.training, step=len(self.losses), losses=self.losses)

    def advance(self, batch: Any) -> bool:
        """One step, or another plan if this one runs out of memory; whether it was a step."""
        batch = self.training.batch = tree_map(_alone, self.processes.part(batch))
        meter = self.processes.meter(self.fit.budget)
        trouble = ""
        try:
            with self.training.metered(meter) if meter is not None else nullcontext():
                loss = float(self.processes.mean(self.training.step(batch)))
        except (OverBudget, RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not _is_memory(error):
                raise
            trouble = f"{error}".partition("\n")[0] or type(error).__name__
        if trouble:  # the error is gone by here, and with it the tensors of the failed step
            self.change(trouble, meter)
            return False
        self.peak = max(self.peak, self.processes.peak(meter))
        self.losses.append(loss)
        self.tell(loss)
        return True

    def change(self, trouble: str, meter: ByteMeter | None) -> None:
        """Explain what was alive and go on under the next plan, from weights that no half step touched."""
        gc.collect()  # what knows itself by a circle, as recomputed blocks and a training with its hooks do
        failed, limit = self.training.plan, self.fit.budget or self.foreseen.bytes
        at_peak = meter.timeline().peak().split if meter is not None else self.foreseen.split
        told = ", ".join(f"{kind} {show(size)}" for kind, size in at_peak.items() if size)
        story = f"step {len(self.losses) + 1} ran out of memory under {failed} ({told}; {trouble})"
        needed = max(self.fit.smallest.bytes, meter.high if meter is not None else 0)
        if self.processes.count > 1:
            raise BudgetExceeded(f"{story}; start all processes again with a leaner plan=", needed=needed, limit=limit)
        left = [one for one in self.fit.fitting if one.bytes < self.foreseen.bytes]
        if not left:
            raise BudgetExceeded(f"{story}; no leaner plan is left", needed=needed, limit=limit)
        following = ([one for one in left if _alike(one.plan, failed)] or left)[0]
        whole = self.training.untouched()
        held = whole or (checkpoint.last(self.folder, device=self.fit.device.name) if self.folder else None)
        if held is None:
            raise BudgetExceeded(
                f"{story}, inside the update, so its weights are half updated; give checkpoints= to go on from whole ones",
                needed=following.bytes,
                limit=limit,
            )
        if whole is None:
            self.losses = list(held["losses"])
        same = _alike(following.plan, held["plan"])
        if whole is not None and same:
            torch.set_rng_state(whole["random"]["cpu"])
            self.training.replan(following.plan)
            self.foreseen, self.peak = following, 0
        else:
            self.rebuild(following.plan, held, optimizer=same)
        back = "" if whole is not None else f" from step {len(self.losses)}"
        self.notes.append(
            f"{story}. Going on{back} with {following.plan}" + ("" if same else "; its optimizer starts anew")
        )
        self.tell(float("nan"), self.notes[-1])

    def rebuild(self, plan: Plan, held: dict[str, Any], *, optimizer: bool) -> None:
        """Let the training at hand go before another is built that takes up what is held."""
        if not optimizer:
            del held["optimizer"]
        del self.training
        gc.collect()
        self.build(plan)
        checkpoint.load(self.training, held, optimizer=optimizer)

    def tell(self, loss: float, note: str = "") -> None:
        """Report to whoever listens."""
        self.report(
            Progress(len(self.losses), self.steps, loss, self.peak, self.foreseen.bytes, self.training.plan, note)
        )


def _alike(one: Plan, other: Plan) -> bool:
    """Whether weights and state of one plan can go on under the other."""
    return (one.optimizer, one.precision) == (other.optimizer, other.precision)


def _alone(leaf: Any) -> Any:
    """A tensor in bytes of its own, where it is a small part of a large one."""
    part = isinstance(leaf, torch.Tensor) and leaf.untyped_storage().nbytes() > leaf.nbytes
    return leaf.clone() if part else leaf


def _is_memory(error: Exception) -> bool:
    return isinstance(error, OverBudget | torch.OutOfMemoryError | MemoryError) or "t allocate memory" in str(error)

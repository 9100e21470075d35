"""What every plan would hold at its peak, from few simulations.

The forward and backward passes do not know the optimizer, and the optimizer's step does not know the batch. So passes
are simulated once for each precision, recomputation and micro-batch, steps once for each optimizer and precision, and
a plan is put together from the two:

    peak = max(passes + state, parameters + gradients + state + the step's own)

With updates fused into backward, gradients are taken out of the passes as they are complete, and the step's own bytes
for that parameter put in. `simulate` runs a whole plan, and is the oracle of the composition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from loci.budget.device import Device
from loci.budget.meter import ByteMeter
from loci.budget.plan import Plan, is_zeroth_order
from loci.budget.simulate import dearest, fake, prepare, simulate
from loci.budget.subject import Subject, rows_of
from loci.budget.timeline import KINDS, Peak, Timeline


@dataclass(frozen=True, slots=True)
class Passes:
    """Forward and backward of one step: its timeline, its floating-point operations, and when each gradient is complete.

    `done`: number of the parameter, event after which its gradient is complete, bytes of the gradient.
    """

    timeline: Timeline
    flops: int
    done: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer's step: bytes of its state, the peak of its temporaries, and that of each parameter alone."""

    state: int
    extra: int
    alone: tuple[int, ...]


class Forecasts:
    """Forecasts for one subject on one device; simulations are kept."""

    def __init__(self, subject: Subject, device: Device, options: dict[str, dict[str, Any]] | None = None) -> None:
        self.subject, self.device, self.options = subject, device, options or {}
        self.passes, self.update = cache(self._passes), cache(self._update)

    def peak(self, plan: Plan) -> Peak:
        """The peak of a plan's dearest step, workspaces of the device included."""
        if is_zeroth_order(plan.optimizer):
            found = simulate(self.subject, plan, self.device, options=self.options.get(plan.optimizer)).peak()
        else:
            passes = self.passes(_bare(plan))
            update = self.update(plan.optimizer, plan.precision, plan.fused)
            found = fused(passes, update) if plan.fused else apart(passes, update)
        return found.plus("temporaries", self.device.workspace)

    def flops(self, plan: Plan) -> int:
        """Floating-point operations of the matrix products in the passes of one step."""
        if is_zeroth_order(plan.optimizer):
            return 2 * self.passes(Plan(precision=plan.precision)).flops // 3
        return self.passes(_bare(plan)).flops * plan.micro_batches // min(plan.micro_batches, 2)

    def _passes(self, plan: Plan) -> Passes:
        with fake(self.device):
            training = prepare(self.subject, plan, self.device, None)
            done: list[tuple[int, int, int]] = []
            meter = ByteMeter(count=self.device.count)
            for number, param in enumerate(p for p in training.model.parameters() if p.requires_grad):
                param.register_post_accumulate_grad_hook(_noting(done, number, meter, self.device))
            training.apply = lambda: None  # type: ignore[method-assign]
            batch, shown = training.batch, min(plan.micro_batches, 2)
            if plan.micro_batches > 2:  # all after the second hold what the second holds
                rows = rows_of(batch) // plan.micro_batches * shown
                batch = tree_map(lambda leaf: leaf[:rows] if _is_batched(leaf) else leaf, batch)
                training.plan = replace(plan, micro_batches=shown)
            with training.metered(meter):
                training.step(batch)
            return Passes(meter.timeline(), meter.flops, tuple(done))

    def _update(self, optimizer: str, precision: Any, one_by_one: bool) -> Update:
        plan = Plan(optimizer, precision)
        with fake(self.device):
            training = prepare(self.subject, plan, self.device, self.options.get(optimizer))
            params = [param for param in training.model.parameters() if param.requires_grad]
            meter = ByteMeter(count=self.device.count)
            with training.metered(meter):
                for param in params:
                    param.grad = torch.empty_like(param)
                for _ in range(2):
                    training.optimizer.step()
                dearest(training.optimizer)
                extra = _extra(training.optimizer.step, meter)
                alone = tuple(_alone(training.optimizer, param, meter) for param in params) if one_by_one else ()
            state = sum({_key(t): self.device.count(t.untyped_storage().nbytes()) for t in training._state()}.values())
        return Update(state, extra, alone)


def apart(passes: Passes, update: Update) -> Peak:
    """The peak where the step follows the passes."""
    during = passes.timeline.peak().plus("optimizer", update.state)
    after = _end(passes.timeline).plus("optimizer", update.state).plus("temporaries", update.extra)
    return max(during, after, key=lambda peak: peak.bytes)


def fused(passes: Passes, update: Update) -> Peak:
    """The peak where each parameter is stepped, and its gradient freed, as soon as the gradient is complete."""
    curves = passes.timeline.curves()
    best, freed = Peak(0, dict.fromkeys(KINDS, 0), ""), 0
    events = list(passes.done)
    bounds = [0, *(event for _, event, _ in events), curves.shape[1]]
    for place, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        if end > start:
            at = start + int(curves[:, start:end].sum(axis=0).argmax())
            best = max(best, _moment(curves, at, passes.timeline, freed, 0), key=lambda peak: peak.bytes)
        if place < len(events):
            number, event, size = events[place]
            moment = _moment(curves, event - 1, passes.timeline, freed, update.alone[number])
            best = max(best, moment, key=lambda peak: peak.bytes)
            freed += size
    return best.plus("optimizer", update.state)


def _moment(curves: Any, at: int, timeline: Timeline, freed: int, extra: int) -> Peak:
    split = {kind: int(curves[place, at]) for place, kind in enumerate(KINDS)}
    split["gradients"] -= freed
    split["temporaries"] += extra
    return Peak(sum(split.values()), split, timeline.phases[at])


def _end(timeline: Timeline) -> Peak:
    """The moment at which all gradients are complete."""
    at = max(place for place, phase in enumerate(timeline.phases) if phase != "step")
    return _moment(timeline.curves(), at, timeline, 0, 0)


def _alone(optimizer: Any, param: Tensor, meter: ByteMeter) -> int:
    """The temporaries of stepping one parameter."""
    group = next(group for group in optimizer.param_groups if any(held is param for held in group["params"]))
    with torch.no_grad():
        return _extra(lambda: optimizer.update([(group, [param])]), meter)


def _extra(run: Callable[[], object], meter: ByteMeter) -> int:
    """The most bytes alive during a run, over those before it."""
    before = meter.high = meter.live
    run()
    return meter.high - before


def _noting(done: list[tuple[int, int, int]], number: int, meter: ByteMeter, device: Device) -> Any:
    def note(param: Tensor) -> None:
        assert param.grad is not None
        done.append((number, len(meter), device.count(param.grad.untyped_storage().nbytes())))

    return note


def _bare(plan: Plan) -> Plan:
    """The part of a plan that passes depend on, under an optimizer without a state."""
    return Plan("sgd", plan.precision, plan.checkpointing, plan.micro_batches)


def _is_batched(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata

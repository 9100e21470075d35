"""What every plan would hold at its peak, from few simulations.

The passes of one part of a batch do not know the optimizer, and the optimizer's step does not know the batch. So passes
are simulated once for each precision, recomputation and size of a part, steps once for each optimizer and dtype, and a
plan is put together from them:

    peak = max(passes + state,  passes over gradients that are there already + state,  step + state)

Gradients that are complete are taken out of the passes where each is freed at once: fused into backward, or added to
the one that is there. `simulate` runs a whole plan, and is the oracle of the composition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from loci.budget.blocks import shapes_only
from loci.budget.device import Device
from loci.budget.meter import ByteMeter
from loci.budget.plan import Plan, Precision, is_zeroth_order
from loci.budget.simulate import dearest, fake, imagined, prepare, simulate, warm
from loci.budget.subject import Made, Subject, slices
from loci.budget.timeline import KINDS, Peak, Timeline
from loci.budget.training import build, state


@dataclass(frozen=True, slots=True)
class Passes:
    """Forward and backward of one part: its timeline, its floating-point operations, and when each gradient is complete.

    `done`: number of the parameter, event after which its gradient is complete, bytes of the gradient. `loss`: the bytes
    of the loss, which is kept for each part.
    """

    timeline: Timeline
    flops: int
    done: tuple[tuple[int, int, int], ...]
    loss: int


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer's step: bytes of its state, the peak of its temporaries, and that of each parameter stepped alone."""

    state: int
    extra: int
    alone: tuple[int, ...]


class Forecasts:
    """Forecasts for one subject on one device; simulations are kept."""

    def __init__(self, subject: Subject, device: Device, options: dict[str, dict[str, Any]] | None = None) -> None:
        self.subject, self.device, self.options = subject, device, options or {}
        self._passed, self._updated = cache(self._passes), cache(self._update)

    def peak(self, plan: Plan) -> Peak:
        """The peak of a plan's dearest step, workspaces of the device included."""
        if is_zeroth_order(plan.optimizer):
            part = replace(self.subject, make=partial(_first_part, self.subject.make, plan.micro_batches))
            alone = replace(plan, micro_batches=1)  # parts come after each other and leave nothing
            found = simulate(part, alone, self.device, options=self.options.get(plan.optimizer)).peak()
        else:
            passes = self._passed(plan.precision, plan.checkpointing, plan.micro_batches)
            update = self._updated(plan.optimizer, plan.precision == "bf16")
            found = fused(passes, update) if plan.fused else apart(passes, update, parts=plan.micro_batches)
        return found.plus("temporaries", self.device.workspace)

    def flops(self, plan: Plan) -> int:
        """Floating-point operations of the matrix products in the passes of one step; two of three passes without backward."""
        passes = self._passed(plan.precision, plan.checkpointing, plan.micro_batches)
        return passes.flops * plan.micro_batches * 2 // (3 if is_zeroth_order(plan.optimizer) else 2)

    def _passes(self, precision: Precision, checkpointing: bool, parts: int) -> Passes:  # noqa: FBT001 - keys of a cache
        with fake(self.device):
            training = prepare(self.subject, Plan("sgd", precision, checkpointing), self.device, None)
            done: list[tuple[int, int, int]] = []
            meter = imagined(self.device)
            for number, param in enumerate(_trained(training.model)):
                param.register_post_accumulate_grad_hook(_noting(done, number, meter, self.device))  # type: ignore[no-untyped-call]
            training.apply = lambda: None  # type: ignore[method-assign]
            with training.metered(meter):
                loss = training.step(slices(training.batch, parts)[0])
            return Passes(meter.timeline(), meter.flops, tuple(done), self.device.count(loss.element_size()))

    def _update(self, optimizer: str, half: bool) -> Update:  # noqa: FBT001 - keys of a cache
        with fake(self.device):
            model = prepare(self.subject, Plan("sgd", "bf16" if half else "fp32"), self.device, None).model
        shapes_only(model)  # meta tensors do for a step what fake ones do, ten times faster; passes need autocast
        foreach = True if self.device.name == "cuda" else None
        stepped = build(Plan(optimizer), model, self.options.get(optimizer, {}), foreach=foreach)
        params, meter = _trained(model), imagined(self.device)
        meter.hold("parameters", params)
        with meter:
            for param in params:
                param.grad = torch.empty_like(param)
            for _ in range(warm(stepped)):
                stepped.step()
            steady = _extra(stepped.step, meter)
            dearest(stepped)
            extra = max(steady, _extra(stepped.step, meter))
            alone = _each(stepped, params, meter)  # last, for it steps some parameters and not others
        held = {id(part.untyped_storage()): part.untyped_storage().nbytes() for part in state(stepped)}
        return Update(sum(map(self.device.count, held.values())), extra, alone)


def _first_part(make: Callable[[], Made], parts: int) -> Made:
    model, batch, loss = make()
    return model, slices(batch, parts)[0], loss


def apart(passes: Passes, update: Update, *, parts: int) -> Peak:
    """The peak where the step follows the passes, of which the later ones find gradients there."""
    none = [0] * len(passes.done)
    during, kept = [_highest(passes, none, free=False)], (parts - 1) * passes.loss
    if parts > 1:  # what the first part left is there, and a new gradient lives until it is added
        later = _highest(passes, none, free=True)
        new = later.plus("temporaries", later.split["gradients"]).plus("gradients", -later.split["gradients"])
        during.append(new.plus("gradients", sum(size for *_, size in passes.done)).plus("activations", kept))
    after = _end(passes.timeline).plus("temporaries", update.extra).plus("activations", kept)
    return max(*during, after, key=lambda peak: peak.bytes).plus("optimizer", update.state)


def fused(passes: Passes, update: Update) -> Peak:
    """The peak where each parameter is stepped, and its gradient freed, as soon as the gradient is complete."""
    if not update.alone:
        raise ValueError("this optimizer cannot step one parameter alone; plan without a fused backward")
    extra = [update.alone[number] for number, *_ in passes.done]
    return _highest(passes, extra, free=True).plus("optimizer", update.state)


def _highest(passes: Passes, extra: Sequence[int], *, free: bool) -> Peak:
    """The peak over the passes; `extra` bytes are alive as each gradient is complete, which is then freed if asked."""
    curves = passes.timeline.curves()
    events = [event for _, event, _ in passes.done]
    best, freed = Peak(0, dict.fromkeys(KINDS, 0), ""), 0
    for place, (start, end) in enumerate(pairwise([0, *events, curves.shape[1]])):
        if end > start:
            at = start + int(curves[:, start:end].sum(axis=0).argmax())
            best = max(best, _moment(passes.timeline, curves, at, freed), key=lambda peak: peak.bytes)
        if place < len(events):
            complete = _moment(passes.timeline, curves, end - 1, freed).plus("temporaries", extra[place])
            best = max(best, complete, key=lambda peak: peak.bytes)
            freed += passes.done[place][2] if free else 0
    return best


def _moment(timeline: Timeline, curves: Any, at: int, freed: int) -> Peak:
    split = {kind: int(curves[place, at]) for place, kind in enumerate(KINDS)}
    split["gradients"] -= freed
    return Peak(sum(split.values()), split, timeline.phases[at])


def _end(timeline: Timeline) -> Peak:
    """The moment at which all gradients are complete."""
    at = timeline.phases.index("step") - 1
    moment = _moment(timeline, timeline.curves(), at, 0)
    return Peak(moment.bytes, moment.split, "step")


def _each(optimizer: Any, params: list[Tensor], meter: ByteMeter) -> tuple[int, ...]:
    """The temporaries of stepping each parameter alone; those of one shape and group take the same."""
    if not hasattr(optimizer, "update"):
        return ()
    groups = {param: group for group in optimizer.param_groups for param in group["params"]}
    known: dict[Any, int] = {}
    for param in params:
        key = (id(groups[param]), param.shape)
        if key not in known:
            with torch.no_grad():
                known[key] = _extra(lambda param=param: optimizer.update([(groups[param], [param])]), meter)  # type: ignore[misc]
    return tuple(known[id(groups[param]), param.shape] for param in params)


def _extra(run: Callable[[], object], meter: ByteMeter) -> int:
    """The most bytes alive during a run, over those before it."""
    before = meter.high = meter.live
    run()
    return meter.high - before


def _noting(
    done: list[tuple[int, int, int]], number: int, meter: ByteMeter, device: Device
) -> Callable[[Tensor], None]:
    def note(param: Tensor) -> None:
        assert param.grad is not None
        done.append((number, len(meter), device.count(param.grad.untyped_storage().nbytes())))

    return note


def _trained(model: torch.nn.Module) -> list[Tensor]:
    return [param for param in model.parameters() if param.requires_grad]

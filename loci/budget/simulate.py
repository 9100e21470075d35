"""A training step on fake tensors: shapes and lifetimes without numbers, so nothing is allocated or computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from loci.budget.blocks import convert
from loci.budget.device import Device
from loci.budget.meter import ByteMeter
from loci.budget.plan import Plan
from loci.budget.subject import Subject
from loci.budget.timeline import Timeline
from loci.budget.training import Training
from loci.budget.workspace import workspace

REFRESH = "update_proj_gap"  # the option of methods that do dear work only now and then


class Imagined(ByteMeter):  # type: ignore[no-untyped-call]
    """The byte meter of a step without numbers: what asks a tensor for one is told that conditions hold, or one.

    `inside` says what the kernel of an operation would hold while it runs, since no kernel runs here.
    """

    def __init__(self, *, count: Callable[[int], int], inside: Callable[[Any, Any, Any], int] | None) -> None:
        super().__init__(count=count)
        self._inside = inside

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what asks for a number; count all else."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1.0 if args[0].is_floating_point() else 1
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if self._inside is not None and (size := self._inside(func, args, out)):
            self.pass_by(size)
        return out


def imagined(device: Device) -> Imagined:
    """A meter for fake steps on that device."""
    return Imagined(count=device.count, inside=workspace if device.name == "cpu" else None)


@contextmanager
def fake(device: Device) -> Iterator[None]:
    """Everything made inside is fake."""
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(device.like())
        stack.callback(setattr, nn.Module, "_apply", nn.Module._apply)
        nn.Module._apply = convert  # type: ignore[method-assign] # torch's own would swap tensors, which fake ones refuse
        yield


def simulate(subject: Subject, plan: Plan, device: Device, *, options: dict[str, Any] | None = None) -> Timeline:
    """The bytes of two late steps, after the optimizer's state is made: a usual one, then one with what is dear now and then."""
    with fake(device):
        training = prepare(subject, plan, device, options)
        meter = imagined(device)
        with training.metered(meter):
            for _ in range(warm(training.optimizer)):
                training.step(training.batch)
            start = len(meter)
            training.step(training.batch)
            dearest(training.optimizer)
            training.step(training.batch)
        return meter.timeline().since(start)


def prepare(subject: Subject, plan: Plan, device: Device, options: dict[str, Any] | None) -> Training:
    """A training whose scaler never leaves a step out: it cannot know that fake gradients are finite."""
    foreach = True if device.name == "cuda" else None  # what torch's own optimizers take there
    training = Training(subject, plan, device=device.kind, options=options, foreach=foreach)
    training.apply = lambda: _always(training)  # type: ignore[method-assign]
    return training


def warm(optimizer: Any) -> int:
    """Steps until the optimizer holds all that it will: one, or as many as the gradients that it remembers."""
    return max(1, *(int(group.get("history", 0)) for group in optimizer.param_groups))


def dearest(optimizer: Any) -> None:
    """Make the next step one at which subspaces are chosen anew."""
    for group in optimizer.param_groups:
        if REFRESH in group:
            group[REFRESH] = 1


def _always(training: Training) -> None:
    if training.scaler.is_enabled():
        training.scaler.unscale_(training.optimizer)
    training.optimizer.step()
    training.scaler.update()

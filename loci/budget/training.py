"""One training step under a plan, as it is predicted on fake tensors and as it runs for real: the same lines."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from loci.budget.blocks import cast_, matrices, recompute
from loci.budget.meter import ByteMeter
from loci.budget.plan import TORCH, Plan, is_zeroth_order, member, takes
from loci.budget.subject import Subject, slices
from loci.core.card import load

MIXED = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}


class Training:
    """A model, its loss and its optimizer under one plan. `step(batch)` is one update; `meter` counts it if given."""

    def __init__(
        self,
        subject: Subject,
        plan: Plan,
        *,
        device: str = "cpu",
        options: dict[str, Any] | None = None,
        foreach: bool | None = None,
        shard: Callable[[nn.Module], None] | None = None,
    ) -> None:
        self.plan, self.device = plan, device
        self.model, self.batch, self.loss = subject.make()
        if plan.precision == "bf16":
            cast_(self.model, torch.bfloat16)  # before it moves: the device never holds it in float32
        if device != "cpu":
            self.model, self.batch = self.model.to(device), tree_map(self._here, self.batch)
        if shard is not None:
            shard(self.model)
        self.meter: ByteMeter | None = None
        self._updating = False  # whether weights may be half updated
        self._random = torch.get_rng_state()
        self._buffers: list[tuple[Tensor, Tensor]] = []  # those that a forward pass may write to, beside their copies
        if is_zeroth_order(plan.optimizer):
            self.model.eval()  # dropout would drown the difference of a step's two losses
        for param in self.model.parameters():
            if param.requires_grad:
                param.register_post_accumulate_grad_hook(self._mark_gradient)  # type: ignore[no-untyped-call]
        self.optimizer = build(plan, self.model, options or {}, foreach=foreach)
        self.scaler = torch.amp.GradScaler(device, enabled=plan.precision == "fp16-mixed")
        self._undo: list[Callable[[], None]] = []
        self.replan(plan)

    def replan(self, plan: Plan) -> None:
        """Take another plan with the same optimizer and precision; weights and state stay."""
        for undo in self._undo:
            undo()
        self.plan, self._undo = plan, []
        if plan.checkpointing:
            self._undo.append(recompute(self.model))
        if plan.fused:
            self._undo.append(load("loci.weights.optim.backward:fuse_into_backward")(self.optimizer).remove)

    def step(self, batch: Any) -> Tensor:
        """One update from a batch; its mean loss before the update, detached."""
        parts = slices(tree_map(self._here, batch), self.plan.micro_batches)
        zeroth = is_zeroth_order(self.plan.optimizer)
        self._random, self._updating = torch.get_rng_state(), zeroth
        self._buffers = [(buffer, buffer.clone()) for buffer in _kept_buffers(self.model)]
        loss = self._from_losses(parts) if zeroth else self._from_gradients(parts)
        if self.meter is not None:
            self.meter.mark("optimizer", state(self.optimizer))
        self._updating, self._buffers = False, []
        return loss

    def _from_losses(self, parts: list[Any]) -> Tensor:
        with self._phase("forward"), torch.no_grad():
            return torch.as_tensor(
                self.optimizer.step(lambda: torch.stack([self._forward(part) for part in parts]).mean())
            )

    def _from_gradients(self, parts: list[Any]) -> Tensor:
        losses = []
        for part in parts:
            with self._phase("forward"):
                loss = self._forward(part)
            losses.append(loss.detach())
            with self._phase("backward"):
                self._updating = self.plan.fused
                torch.autograd.backward(self.scaler.scale(loss / len(parts)))
            del loss
        with self._phase("step"):
            self._updating = True
            self.apply()
            self.optimizer.zero_grad()
        return torch.stack(losses).mean()

    def apply(self) -> None:
        """The optimizer's step, left out by the scaler where a gradient is not finite."""
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def untouched(self) -> dict[str, Any] | None:
        """All as it was before the step that failed, or None when that was cut inside the update."""
        if self._updating:
            return None
        self.optimizer.zero_grad()
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self._buffers = []
        return {
            "plan": self.plan,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": {"cpu": self._random},
        }

    def metered(self, meter: ByteMeter) -> AbstractContextManager[object]:
        """Enter what is held already and count the steps inside the with-block."""
        stack = ExitStack()
        meter.hold("parameters", [*self.model.parameters(), *self.model.buffers()])
        meter.hold("optimizer", state(self.optimizer))
        meter.hold("activations", tree_leaves(self.batch))
        self.meter = meter
        stack.callback(setattr, self, "meter", None)
        stack.enter_context(meter)
        return stack

    def _mark_gradient(self, param: Tensor) -> None:
        if self.meter is not None:
            self.meter.mark("gradients", [param.grad])

    def _here(self, leaf: Any) -> Any:
        return leaf.to(self.device, non_blocking=True) if isinstance(leaf, Tensor) and self.device != "cpu" else leaf

    def _phase(self, name: str) -> AbstractContextManager[None]:
        return self.meter.phase(name) if self.meter is not None else nullcontext()

    def _forward(self, part: Any) -> Tensor:
        dtype = MIXED.get(self.plan.precision)
        if self.plan.precision == "bf16":
            part = tree_map(_halved, part)
        with torch.autocast(self.device, dtype or torch.bfloat16, enabled=dtype is not None):
            return self.loss(self.model, part)


def _halved(leaf: Any) -> Any:
    """A floating tensor in the numbers of 16-bit weights."""
    return leaf.to(torch.bfloat16) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _kept_buffers(model: nn.Module) -> Iterator[Tensor]:
    """The buffers that a state dict keeps, such as running means; the others are constants."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield buffer


def build(plan: Plan, model: nn.Module, options: dict[str, Any], *, foreach: bool | None = None) -> Any:
    """The plan's optimizer. Where it has a rank, matrices inside blocks are projected to a quarter of their width."""
    kind = member(plan.optimizer)
    options = {**(TORCH[plan.optimizer][1] if plan.optimizer in TORCH else {}), **options}
    if takes(plan.optimizer, "foreach"):
        options.setdefault("foreach", foreach)
    if takes(plan.optimizer, "rank"):
        names, width = matrices(model)
        if names:
            own = inspect.signature(kind.__init__).parameters["rank"].default
            rank = options.pop("rank", None) or own or max(1, width // 4)
            exact = [f"^{re.escape(name)}$" for name in names]
            groups = load("loci.weights.optim.base:split")(model, exact, rank=rank)
            return kind(groups, **{**options, "rank": None})  # all else takes the plain rule
    return kind(list(model.named_parameters()), **options)


def state(optimizer: Any) -> Iterator[Tensor]:
    """The tensors of an optimizer's state."""
    for held in optimizer.state.values():
        yield from (part for part in held.values() if isinstance(part, Tensor))

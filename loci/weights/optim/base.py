"""The contract: an optimizer is a `torch.optim.Optimizer`, nothing added. `Composed` is the frame that its members share.

A step on one tensor has three parts, and a method is a choice of them:

    before    what the rule is fed: the gradient, or its projection into a subspace
    rule      an update rule of rules.py: Adam, Momentum, Adafactor, or one of them over 8-bit moments
    after     what becomes of the update: projected back, scaled by a trust ratio, ...

`foreach=False` runs the three per tensor, the obvious form; `foreach=True` runs them over lists of tensors with
PyTorch's horizontally fused kernels, and writes with no more temporaries than it must. The first is the oracle of the
second. `foreach=None` is the fused form, over all tensors on a GPU; elsewhere over small ones together, which takes a
third of the time, and over large ones one by one, which is faster too and lets only one update live at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from loci.weights.optim.rules import Group, Rule, State

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Closure: TypeAlias = Callable[[], Any]
TOGETHER = 2**15  # elements: what a CPU keeps in its cache with all moments


@dataclass(slots=True, eq=False)
class Slot:
    """One parameter in one step, with what `before` fed to the rule."""

    param: Tensor
    grad: Tensor
    state: State
    fed: Tensor


class Admitting(torch.optim.Optimizer):
    """An optimizer that looks at its parameters before it takes them, and takes a group whole or not at all."""

    zeroth_order: ClassVar[bool] = False  # whether it needs losses alone, no gradients

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if defaults["lr"] < 0:
            raise ValueError(f"lr={defaults['lr']} is negative; give a step size of at least 0")
        super().__init__(params, defaults)

    def extend_defaults(self, **options: Any) -> None:
        """Add a subclass's options to its parent's; groups keep their own. Copies and new groups know them too."""
        self.defaults.update(options)
        for group in self.param_groups:
            for name, value in options.items():
                group.setdefault(name, value)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; a ValueError leaves the optimizer as it was."""
        before = len(self.param_groups)
        if isinstance(param_group, dict) and not isinstance(param_group.get("params", ()), Tensor | set):
            param_group = {**param_group, "params": list(param_group["params"])}
            _refuse_twice(self, [item[1] if isinstance(item, tuple) else item for item in param_group["params"]])
        super().add_param_group(param_group)
        try:
            for param in self.param_groups[-1]["params"]:
                self.admit(param, self.param_groups[-1])
        except ValueError:
            del self.param_groups[before:]
            raise

    def admit(self, param: Tensor, group: Group) -> None:
        """Refuse a parameter that this optimizer cannot train under its group's options."""
        if not param.is_floating_point():
            raise ValueError(
                f"{shown(self, param)} is {_dtype(param)}, {type(self).__name__} trains real floating-point tensors; "
                "view complex ones with torch.view_as_real, leave integer ones out"
            )
        if param.dtype == torch.float16 and not self.zeroth_order:
            raise ValueError(
                f"{shown(self, param)} is float16, in which squared gradients underflow; train in bfloat16, or keep "
                "float32 weights under torch.autocast with a GradScaler"
            )


class Composed(Admitting):
    """An optimizer made of `before`, a rule and `after`; a member overrides what its paper changes."""

    decays: ClassVar[Literal["first", "last", "inside"]] = "last"  # where the paper puts weight decay

    def rule(self, group: Group) -> Rule:
        """The update rule of a group."""
        raise NotImplementedError

    def before(self, slot: Slot, group: Group) -> Tensor:
        """What the rule is fed in place of the gradient."""
        return slot.grad

    def after(self, slot: Slot, update: Tensor, group: Group) -> Tensor:
        """What is subtracted, times the step size, given the rule's update."""
        return update

    def step_size(self, group: Group) -> float:
        """The factor of what is subtracted."""
        return float(group["lr"])

    def check(self, param: Tensor, grad: Tensor, state: State, group: Group) -> None:
        """Refuse a gradient that this step cannot take, before anything has changed."""
        if grad.layout != torch.strided:
            raise ValueError(
                f"the gradient of {shown(self, param)} is sparse, {type(self).__name__} takes dense ones; "
                "build the embedding with sparse=False or give it to torch.optim.SparseAdam"
            )

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step on every parameter that has a gradient; returns the closure's loss, if one was given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update([(group, _with_grad(group["params"])) for group in self.param_groups])
        return loss

    def update(self, work: Sequence[tuple[Group, list[Tensor]]]) -> None:
        """Step the given parameters of each group; all are checked before the first one changes."""
        for group, params in work:
            for param in params:
                assert param.grad is not None
                self.check(param, param.grad, self.state.get(param, {}), group)
        for group, params in work:
            for alike in alike_in(params):
                if group["foreach"] is False:
                    self._plain(alike, group)
                elif group["foreach"] or alike[0].is_cuda:
                    self._fused(alike, group)
                else:
                    for few in _small_together(alike):
                        self._fused(few, group)

    def _plain(self, params: list[Tensor], group: Group) -> None:
        for param in params:
            slot = self._slot(param, group)
            update = self.after(slot, self.rule(group).one(slot.fed, slot.state, group), group)
            decay = 1 - float(group["lr"]) * group["weight_decay"]
            if self.decays == "first" and decay != 1:
                param.mul_(decay)
            param.add_(update, alpha=-self.step_size(group))
            if self.decays == "last" and decay != 1:
                param.mul_(decay)

    def _fused(self, params: list[Tensor], group: Group) -> None:
        slots = [self._slot(param, group) for param in params]
        updates = self.rule(group).many([slot.fed for slot in slots], [slot.state for slot in slots], group)
        decay = 1 - float(group["lr"]) * group["weight_decay"]
        if self.decays == "first" and decay != 1:
            torch._foreach_mul_(params, decay)
        self.write(slots, updates, group)
        if self.decays == "last" and decay != 1:
            torch._foreach_mul_(params, decay)

    def write(self, slots: list[Slot], updates: list[Tensor], group: Group) -> None:
        """The fused form of `after` and of the subtraction."""
        updates = [self.after(slot, update, group) for slot, update in zip(slots, updates, strict=True)]
        torch._foreach_add_([slot.param for slot in slots], updates, alpha=-self.step_size(group))

    def _slot(self, param: Tensor, group: Group) -> Slot:
        assert param.grad is not None
        state = self.state[param]
        state["step"] = state.get("step", 0) + 1
        slot = Slot(param, param.grad, state, param.grad)
        slot.fed = self.before(slot, group)
        return slot

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; unlike PyTorch's own, state tensors keep their dtype: 8-bit moments stay 8-bit."""
        super().load_state_dict(state_dict)
        saved = [key for group in state_dict["param_groups"] for key in group["params"]]
        held = [param for group in self.param_groups for param in group["params"]]
        for key, param in zip(saved, held, strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                if isinstance(value, Tensor):
                    self.state[param][name] = value.detach().to(device=param.device, copy=True)


def split(model: nn.Module, match: Sequence[str], **options: Any) -> list[dict[str, Any]]:
    """Two groups of a model's named parameters: the rest, and those whose name one of the regexes finds, with options.

    A parameter under two names comes once, under the first.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))
    >>> rest, matrices = split(model, ["0.weight"], rank=2)
    >>> [name for name, _ in matrices["params"]], matrices["rank"], len(rest["params"])
    (['0.weight'], 2, 3)
    """
    found: list[tuple[str, Tensor]] = []
    rest: list[tuple[str, Tensor]] = []
    for name, param in model.named_parameters():
        (found if any(re.search(regex, name) for regex in match) else rest).append((name, param))
    if not found:
        raise ValueError(f"match={list(match)} finds none of {len(rest)} parameters; see model.named_parameters()")
    return [{"params": rest}, {"params": found, **options}] if rest else [{"params": found, **options}]


def _with_grad(params: list[Tensor]) -> list[Tensor]:
    return [param for param in params if param.grad is not None]


def alike_in(params: list[Tensor]) -> list[list[Tensor]]:
    """Tensors in lists that a fused kernel takes: of one device, one dtype, and one mesh where they are sharded."""
    groups: dict[tuple[Any, ...], list[Tensor]] = {}
    for param in params:
        groups.setdefault((param.device, param.dtype, getattr(param, "device_mesh", None)), []).append(param)
    return list(groups.values())


def _small_together(params: list[Tensor]) -> list[list[Tensor]]:
    """Lists of at most TOGETHER elements, in the order given; a larger tensor is alone."""
    lists: list[list[Tensor]] = []
    room = 0
    for param in params:
        if not lists or param.numel() > room:
            lists.append([])
            room = TOGETHER
        lists[-1].append(param)
        room -= param.numel()
    return lists


def _refuse_twice(optimizer: torch.optim.Optimizer, params: list[Any]) -> None:
    """Tied weights reach an optimizer as one tensor given twice; it would be stepped twice."""
    seen = {id(param) for group in optimizer.param_groups for param in group["params"]}
    for place, param in enumerate(params):
        if id(param) in seen:
            shape = tuple(param.shape) if isinstance(param, Tensor) else param
            raise ValueError(
                f"parameter {place} {shape} is given twice, as tied weights are; give it once: "
                "model.parameters() leaves repeats out"
            )
        seen.add(id(param))


def shown(optimizer: torch.optim.Optimizer, param: Tensor) -> str:
    """The parameter's name if the group knows names, else its place; and its shape."""
    for number, group in enumerate(optimizer.param_groups):
        for place, held in enumerate(group["params"]):
            if held is param:
                names = group.get("param_names")
                name = f"{names[place]!r}" if names else f"{place} of group {number}"
                return f"parameter {name} {tuple(param.shape)}"
    return f"a parameter {tuple(param.shape)}"


def _dtype(param: Tensor) -> str:
    return str(param.dtype).removeprefix("torch.")

"""What a plan does to any model: find its repeated blocks, recompute their activations, change its numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The repeated blocks of a model by name: children of lists whose members are of one class and no mere layers.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ModuleList(nn.TransformerEncoderLayer(8, 2) for _ in range(3)))
    >>> list(blocks(model))
    ['1.0', '1.1', '1.2']
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        children = list(module.children())
        if not isinstance(module, nn.ModuleList | nn.Sequential) or len(children) < 2:
            continue
        if len({type(child) for child in children}) > 1 or not any(True for _ in children[0].children()):
            continue
        if not any(name.startswith(f"{outer}.") for outer in found):  # the outermost lists only
            found |= {f"{name}.{key}".lstrip("."): child for key, child in module.named_children()}
    return found


def matrices(model: nn.Module) -> tuple[list[str], int]:
    """Names of the matrices inside blocks, which low-rank methods project, and the smallest of their sides.

    A model without repeated blocks gives the weights of its linear layers but the last.
    """
    inside = [f"{name}." for name in blocks(model)]
    if inside:
        found = {
            name: param
            for name, param in model.named_parameters()
            if param.dim() == 2 and any(name.startswith(block) for block in inside)
        }
    else:
        layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        found = {f"{name}.weight".lstrip("."): model.get_submodule(name).weight for name in layers[:-1]}  # type: ignore[misc]
    return list(found), min((min(param.shape) for param in found.values()), default=1)


def recompute(model: nn.Module) -> Callable[[], None]:
    """Keep only the inputs of each block for backward, and run the block again there; returns how to undo that."""
    found = blocks(model)
    if not found:
        raise ValueError("the model has no repeated blocks to recompute; plan without checkpointing")
    for block in found.values():
        block.forward = partial(_again, block.forward)

    def undo() -> None:
        for block in found.values():
            del block.forward

    return undo


def _again(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False, **options)


def cast_(model: nn.Module, dtype: torch.dtype) -> None:
    """Change the floating parameters and buffers of a model; as `Module.to` does, on fake tensors too."""
    convert(model, lambda held: held.to(dtype) if held.is_floating_point() else held)


def convert(model: nn.Module, new: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:  # noqa: FBT001, FBT002 - torch's
    """What `Module._apply` does for `to`, `double` and the like, which fails on fake parameters."""
    _replace(model, new)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = new(buffer)
    return model


def shapes_only(model: nn.Module) -> None:
    """Take the numbers out of a model's parameters."""
    _replace(model, lambda param: torch.empty(param.shape, dtype=param.dtype, device="meta"))


def _replace(model: nn.Module, new: Callable[[Tensor], Tensor]) -> None:
    """Put new parameters in the place of old ones, one for those that are tied."""
    made: dict[int, nn.Parameter] = {}
    old = list(model.parameters())  # held, so that no id comes twice
    for module in model.modules():
        for name, param in module._parameters.items():
            if param is not None:
                if id(param) not in made:
                    made[id(param)] = nn.Parameter(new(param.detach()), param.requires_grad)
                module._parameters[name] = made[id(param)]
    del old


def numbers(model: nn.Module) -> int:
    """How many parameters a model has, tied ones once."""
    return sum(param.numel() for param in model.parameters())


def weight_bytes(model: nn.Module, *, half: bool) -> int:
    """Bytes of the parameters and buffers; `half` as if all floating ones were in 16 bits."""
    held = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * (2 if half and t.is_floating_point() else t.element_size()) for t in held)

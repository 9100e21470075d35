"""Post-training quantisation: weights rounded once and for all ranges, activations in ranges seen on calibration data.

    Q = IntegerFormat.calibrated(*rule(values that entered the layer))

>>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
>>> batches = [torch.linspace(-1, 1, 12).reshape(3, 4)]
>>> with quantised(model, batches, weights=IntegerFormat(8, 0), activations=IntegerFormat(8, symmetric=False)) as done:
...     sorted(done.ranges)
['0', '2']
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from loci.budget.precision import clipping
from loci.budget.precision.integer import IntegerFormat
from loci.budget.precision.rounder import Rounder

Rule: TypeAlias = Literal["min-max", "percentile", "mse", "kl"]
RULES: tuple[Rule, ...] = ("min-max", "percentile", "mse", "kl")
KEPT = 2**16  # values of one layer and batch that a rule sees besides the extremes


class quantised:  # noqa: N801 - used as a verb in a with statement
    """A model whose layers compute on integers: weights by their own range, inputs by the range seen on `batches`.

    `ranges` holds each layer's. `remove()`, or the end of the `with`, gives back the model as it was, to the bit.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        *,
        weights: IntegerFormat,
        activations: IntegerFormat,
        rule: Rule = "min-max",
        of: tuple[type[nn.Module], ...] = (nn.Linear, nn.modules.conv._ConvNd),
    ) -> None:
        if rule not in RULES:
            raise ValueError(f"rule={rule!r} is unknown; choose one of {', '.join(RULES)}")
        if activations.axis is not None:
            raise ValueError(
                f"activations have axis={activations.axis}, one range for all is calibrated; use axis=None"
            )
        layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, of)}
        if not layers:
            raise ValueError(
                f"{type(model).__name__} has no layer of {[kind.__name__ for kind in of]}; name its own in of="
            )
        seen = _seen(model, batches, layers)
        self.ranges = {name: limits(values, rule, activations) for name, values in seen.items()}
        Q = {name: Rounder(activations.calibrated(*ends)) for name, ends in self.ranges.items()}
        self._hooks = [layers[name].register_forward_pre_hook(_entering(Q[name])) for name in Q]
        self._held = [(param, param.detach().clone()) for layer in layers.values() for param in _matrices(layer)]
        with torch.no_grad():
            for param, held in self._held:
                param.copy_(weights.round(held))

    def remove(self) -> None:
        """Give back weights and calls."""
        for hook in self._hooks:
            hook.remove()
        with torch.no_grad():
            for param, held in self._held:
                param.copy_(held)
        self._hooks, self._held = [], []

    def __enter__(self) -> Self:
        """The same object."""
        return self

    def __exit__(self, *error: object) -> None:
        """Remove."""
        self.remove()


def limits(values: np.ndarray[Any, Any], rule: Rule, format: IntegerFormat) -> tuple[float, float]:  # noqa: A002
    """The range that a rule of clipping.py gives for values and a format."""
    match rule:
        case "min-max":
            return clipping.min_max(values)
        case "percentile":
            return clipping.percentile(values)
        case "mse":
            return clipping.mse(values, format)
        case "kl":
            return clipping.kl(values, format.bits)


@torch.no_grad()
def _seen(model: nn.Module, batches: Iterable[Any], layers: dict[str, nn.Module]) -> dict[str, np.ndarray[Any, Any]]:
    """What entered each layer, thinned evenly, extremes kept; modes of training are as they were."""
    kept: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: kept[name].append(_thinned(args[0])))
        for name, layer in layers.items()
    ]
    training = {part: part.training for part in model.modules()}
    model.eval()
    try:
        for batch in batches:
            model(*batch) if isinstance(batch, tuple) else model(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for part, was in training.items():
            part.training = was
    return {name: torch.cat(values).double().cpu().numpy() for name, values in kept.items() if values}


def _thinned(x: Tensor) -> Tensor:
    flat = x.detach().flatten().float()
    if flat.numel() <= KEPT:
        return flat.clone()
    return torch.cat([flat[:: -(-flat.numel() // KEPT)], flat.aminmax().min[None], flat.aminmax().max[None]])


def _matrices(layer: nn.Module) -> list[nn.Parameter]:
    """Weights of two axes or more; biases stay, as integer kernels add them in 32 bits."""
    return [param for param in layer.parameters(recurse=False) if param.ndim > 1 and param.is_floating_point()]


def _entering(Q: Rounder) -> Any:
    return lambda _, args: (Q(args[0]), *args[1:])

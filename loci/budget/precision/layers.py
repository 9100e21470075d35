"""Quantised layers: any module's own layers, with Q on their weights, on what enters and leaves them, and on gradients.

    y = Q_a(layer(Q_a(x); Q_w(w))),   dL/dy <- Q_g(dL/dy);   Q_a and Q_w are straight-through

No layer is copied: weights become parametrizations (the full-precision ones stay the trained parameters), activations
are rounded by hooks. Recurrent layers are rounded at their weights, inputs and outputs, not at every time step.

>>> import torch
>>> from loci.budget.precision.floating import FloatFormat
>>> layer = nn.Linear(2, 1, bias=False)
>>> with torch.no_grad(): _ = layer.weight.fill_(1.1)
>>> with rounded_layers(layer, weights=Rounder(FloatFormat(5, 2))):
...     float(layer(torch.ones(1, 2)).detach())
2.0
>>> round(float(layer(torch.ones(1, 2)).detach()), 2)
2.2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_map_only

from loci.budget.precision.rounder import Rounder

LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention, nn.Embedding,
    nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase,
)  # fmt: skip


class _Weight(nn.Module):
    """A parametrization: the weight, rounded whenever it is read."""

    def __init__(self, Q: Rounder) -> None:
        super().__init__()
        self.Q = Q

    def forward(self, weight: Tensor) -> Tensor:
        """Round."""
        return self.Q(weight)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Keep what is assigned, in full precision."""
        return weight


class rounded_layers:  # noqa: N801 - used as a verb in a with statement
    """Round the layers of `model` from now on, until `remove()` or the end of the `with`.

    `weights`, `activations` and `gradients` are each a Rounder, a function from a layer's name to a Rounder or None
    (calibrated formats differ by layer), or None. `of` are the kinds of layers; a layer inside such a layer is its own.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weights: Rounder | Callable[[str], Rounder | None] | None = None,
        activations: Rounder | Callable[[str], Rounder | None] | None = None,
        gradients: Rounder | Callable[[str], Rounder | None] | None = None,
        of: tuple[type[nn.Module], ...] = LAYERS,
    ) -> None:
        found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, of)]
        if not found:
            raise ValueError(
                f"{type(model).__name__} has no layer of {[kind.__name__ for kind in of]}; name its own in of="
            )
        if twice := [name for name, layer in found if parametrize.is_parametrized(layer)]:
            raise ValueError(f"layers {twice} are parametrized already; remove that first")
        self._hooks: list[Any] = []
        self._weights: list[tuple[nn.Module, str]] = []
        for name, layer in found:
            if (Q := _for(weights, name)) is not None:
                self._round_weights(layer, Q)
            self._round_flow(layer, _for(activations, name), _for(gradients, name))

    def _round_weights(self, layer: nn.Module, Q: Rounder) -> None:
        for name in [name for name, weight in layer.named_parameters(recurse=False) if weight.is_floating_point()]:
            parametrize.register_parametrization(layer, name, _Weight(Q), unsafe=True)
            self._weights.append((layer, name))
        if isinstance(layer, nn.RNNBase):  # it reads a list of its weights, made once
            self._hooks.append(layer.register_forward_pre_hook(_reread))

    def _round_flow(self, layer: nn.Module, Q: Rounder | None, backward: Rounder | None) -> None:
        if Q is not None:
            self._hooks.append(
                layer.register_forward_pre_hook(lambda _, args, kwargs: _each(Q, (args, kwargs)), with_kwargs=True)
            )
            self._hooks.append(layer.register_forward_hook(lambda _, args, out: _each(Q, out)))
        if backward is not None:
            self._hooks.append(
                layer.register_forward_hook(lambda _, args, out: tree_map_only(Tensor, _caught(backward), out))
            )

    def remove(self) -> None:
        """Give the layers their own parameters and calls back; the trained full-precision weights stay."""
        for layer, name in self._weights:
            parametrize.remove_parametrizations(layer, name, leave_parametrized=False)
            if isinstance(layer, nn.RNNBase):
                _reread(layer, None)
        for hook in self._hooks:
            hook.remove()
        self._weights, self._hooks = [], []

    def __enter__(self) -> Self:
        """The same object."""
        return self

    def __exit__(self, *error: object) -> None:
        """Remove."""
        self.remove()


def _for(Q: Rounder | Callable[[str], Rounder | None] | None, name: str) -> Rounder | None:
    return Q if isinstance(Q, Rounder) or Q is None else Q(name)


def _each(Q: Rounder, tree: Any) -> Any:
    return tree_map_only(Tensor, lambda x: Q(x) if x.is_floating_point() else x, tree)


def _caught(Q: Rounder) -> Callable[[Tensor], Tensor]:
    def catch(x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(Q)  # type: ignore[no-untyped-call]
        return x

    return catch


def _reread(layer: nn.Module, args: Any) -> None:
    assert isinstance(layer, nn.RNNBase)
    layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]

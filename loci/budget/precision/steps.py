"""Optimizers in low precision: parameters and states are rounded after every step of any torch.optim.Optimizer.

    (w, m) <- optimizer(w, m, g);   w <- Q_w(w),   m <- Q_s(m)

The optimizer stays what it is: rounding is a hook of its own `step`, and the rounders' generators travel in its
`state_dict`, so that a run resumes to the bit. Counters named "step" are left exact.

>>> from loci.budget.precision.floating import preset
>>> from loci.budget.precision.rounder import Rounder
>>> w = torch.nn.Parameter(torch.tensor([1.0]))
>>> optimizer = torch.optim.SGD([w], lr=0.001)
>>> rounding = rounded_steps(optimizer, weights=Rounder(preset("bfloat16")))
>>> w.grad = torch.tensor([1.0]); optimizer.step(); float(w.detach())  # 0.999 lies nearer to 1 than to 0.996
1.0
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loci.budget.precision.rounder import Rounder

KEY = "rounding"  # what is added to the optimizer's state_dict


class rounded_steps:  # noqa: N801 - reads as what it does, as rounded_layers and rounded_operations
    """Round `optimizer`'s parameters by `weights` and its states by `states` after each step, until `remove()`.

    `weights` rounds the parameters at once, too, unless they should start as they are (`at_once=False`).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        weights: Rounder | None = None,
        states: Rounder | None = None,
        at_once: bool = True,
    ) -> None:
        self.optimizer, self.weights, self.states = optimizer, weights, states
        self._hooks = [
            optimizer.register_step_post_hook(lambda *_: self.round()),
            optimizer.register_state_dict_post_hook(self._save),
            optimizer.register_load_state_dict_pre_hook(self._load),
        ]
        if at_once:
            self.round()

    @torch.no_grad()
    def round(self) -> None:
        """Round all parameters and states where they are."""
        for group in self.optimizer.param_groups:
            for param in group["params"]:
                if self.weights is not None:
                    param.copy_(self.weights(param))
                if self.states is not None:
                    self._round_state(self.optimizer.state.get(param, {}))

    def _round_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if isinstance(value, Tensor) and value.is_floating_point() and name != "step":
                value.copy_(self.states(value))  # type: ignore[misc]

    def remove(self) -> None:
        """Leave the optimizer as it was."""
        for hook in self._hooks:
            hook.remove()

    def _rounders(self) -> dict[str, Rounder]:
        return {name: Q for name in ("weights", "states") if (Q := getattr(self, name)) is not None}

    def _save(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        return state_dict | {KEY: {name: Q.state_dict() for name, Q in self._rounders().items()}}

    def _load(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        saved = state_dict.get(KEY, {})
        for name, Q in self._rounders().items():
            Q.load_state_dict(saved.get(name, {}))
        return {key: value for key, value in state_dict.items() if key != KEY}

"""Per-layer updates: each parameter is stepped as soon as its gradient is complete, and the gradient is freed.

At most one gradient lives at a time, so gradients cost as much as the largest tensor and not as the model.

Paper: Lv et al., "Full Parameter Fine-tuning for Large Language Models with Limited Resources" (LOMO),
arXiv:2306.09782, sec. 3.1; used by GaLore, arXiv:2403.03507, sec. 4.3.
Differs: steps any optimizer of this room, state and all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from loci.weights.optim.base import Composed


class fuse_into_backward:  # noqa: N801 - reads as the function it is
    """Step `optimizer` inside `backward`, until `remove()` or the end of the with-block.

    The loop stays as it was: `optimizer.step()` finds no gradients and does nothing. What looks at all gradients at
    once cannot be had here: accumulate none, clip by `max_norm`, which is a parameter's own norm.

    >>> from loci.weights.optim.sgd_sai import SGDSaI
    >>> W = torch.nn.Parameter(torch.ones(3))
    >>> with fuse_into_backward(SGDSaI([W], lr=0.1)):
    ...     (W * torch.arange(3.0)).sum().backward()
    >>> W.grad is None, bool((W[1:] < 1).all())
    (True, True)
    """

    def __init__(self, optimizer: Composed, *, max_norm: float | None = None) -> None:
        together = [group for group in optimizer.param_groups if group.get("max_grad_norm") is not None]
        if together:
            raise ValueError(
                f"max_grad_norm={together[0]['max_grad_norm']} needs all gradients at once, which backward never holds; "
                "build the optimizer without it and give max_norm= here"
            )
        self._handles = [
            param.register_post_accumulate_grad_hook(_stepping(optimizer, number, max_norm))
            for number, group in enumerate(optimizer.param_groups)
            for param in group["params"]
            if param.requires_grad
        ]

    def remove(self) -> None:
        """Give the step back to `optimizer.step()`."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _stepping(optimizer: Composed, number: int, max_norm: float | None) -> Callable[[Tensor], None]:
    @torch.no_grad()
    def hook(param: Tensor) -> None:
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_([param], max_norm)
        optimizer.update([(optimizer.param_groups[number], [param])])  # looked up: loading replaces the groups
        param.grad = None

    return hook

"""SGD-SaI: momentum whose step on each tensor is fixed once, by the signal-to-noise ratio of the first gradient.

    gSNR_i = ||g_i|| / (std(g_i) + eps) at the first step,    W_i <- (1 - lr*wd) W_i - lr * gSNR_i * m_i     algorithm 1

m is the running mean of the gradients and starts as the first of them. For gradients of mean zero gSNR is the root of
the tensor's size, so most of what the method does is to give large tensors larger steps: see its claim.

Paper: Xu, Xiang, Cai, Wen, "No More Adam: Learning Rate Scaling at Initialization is All You Need", arXiv:2412.11768.
Differs: gSNR is at most 10 * sqrt(d), since a gradient of equal elements has std 0; a tensor whose first gradient is zero
is scaled by its first gradient that is not, where the authors' code freezes it.
Keeps: b*(d + 1) bytes for a tensor of d elements.

>>> W = torch.nn.Parameter(torch.zeros(4)); W.grad = torch.tensor([1.0, 2.0, 3.0, 4.0])
>>> optimizer = SGDSaI([W]); optimizer.step()
>>> round(float(optimizer.state[W]["gsnr"]), 4)
4.2426
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from loci.core.card import method
from loci.weights.optim.base import Composed, Params, Slot
from loci.weights.optim.rules import Group, Momentum, Rule, widened
from loci.weights.optim.sharding import own, total

CLAMP = 10.0  # times sqrt(d); a real gradient stays below 2, so only degenerate ones meet it


@method(
    name="sgd-sai",
    kind="optimizer",
    title="No More Adam: Learning Rate Scaling at Initialization is All You Need",
    paper="arXiv:2412.11768",
    says="SGD with momentum, scaled per tensor once from the first gradient: half of AdamW's state",
    bytes="b*(m*n + 1)",
    example={"lr": 0.002},
    needs=("torch",),
    system="sgd_sai",
)
class SGDSaI(Composed):
    """Momentum with one frozen factor per tensor; weight decay is not multiplied by it.

    A fused QKV matrix is one tensor, as in the paper. Give the first step a whole batch: its gradient sets all factors.
    """

    decays = "first"

    def __init__(
        self,
        params: Params,
        lr: float = 0.01,
        *,
        momentum: float = 0.9,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "eps": eps, "weight_decay": weight_decay, "foreach": foreach}
        )

    def rule(self, group: Group) -> Rule:
        """The running mean."""
        return Momentum(mean=True)

    def before(self, slot: Slot, group: Group) -> Tensor:
        """The gradient; the first that is not zero sets the factor."""
        if "gsnr" not in slot.state and bool(total(own(slot.grad).count_nonzero(), slot.grad)):
            slot.state["gsnr"] = gsnr(slot.grad, group["eps"])
            slot.state.pop("momentum_buffer", None)  # the mean starts here
        return slot.grad

    def after(self, slot: Slot, update: Tensor, group: Group) -> Tensor:
        """The mean, times the factor."""
        return update * slot.state["gsnr"] if "gsnr" in slot.state else update

    def write(self, slots: list[Slot], updates: list[Tensor], group: Group) -> None:
        """The same without a temporary, and without waiting for the device."""
        for slot, update in zip(slots, updates, strict=True):
            if "gsnr" in slot.state:
                slot.param.addcmul_(update, slot.state["gsnr"].expand_as(update), value=-self.step_size(group))


def gsnr(grad: Tensor, eps: float) -> Tensor:
    """||g|| / (std(g) + eps), at most CLAMP * sqrt(d); a scalar of the gradient's dtype.

    >>> [round(float(gsnr(torch.tensor(g), 1e-8)), 3) for g in ([1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 2.0], [5.0])]
    [4.243, 20.0, 10.0]
    """
    wide = widened(grad)
    std = wide.std() if wide.numel() > 1 else wide.new_zeros(())
    ratio: Tensor = torch.linalg.vector_norm(wide) / (std + eps)
    return ratio.clamp(max=CLAMP * math.sqrt(wide.numel())).to(grad.dtype)

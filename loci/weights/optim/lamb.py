"""LAMB and LARS: every tensor moves by lr times its own norm, so that the batch can grow.

    u = m^ / (sqrt(v^) + eps) + wd * x,    x <- x - lr * phi(||x||) / ||u|| * u               LAMB, algorithm 2
    m = b m + (1 - b) (g + wd * x),        x <- x - lr * phi(||x||) / ||m|| * m               LARS, algorithm 1

phi clips to `clip`, the ratio is 1 where a norm is 0, and decay lies inside the normalised vector.

Paper: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", arXiv:1904.00962.
LARS2017: You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", arXiv:1708.03888, algorithm 1.
Differs: nothing. Global gradient clipping, as NVIDIA's LAMB has it, is off unless `max_grad_norm` is given.
Keeps: LAMB 2*b*d bytes as Adam, LARS b*d; a norm per tensor while it steps.

>>> x = torch.nn.Parameter(torch.tensor([3.0, 4.0])); x.grad = torch.tensor([1.0, -1.0])
>>> LAMB([x], lr=0.1, weight_decay=0.0).step()
>>> [round(value, 4) for value in x.tolist()]  # the ratio is 5 / sqrt(2)
[2.6464, 4.3536]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loci.core.card import method
from loci.weights.optim.base import Composed, Params, Slot, alike_in
from loci.weights.optim.rules import Adam, Group, Momentum, Rule, widened
from loci.weights.optim.sharding import like, settled, whole

_TITLE = "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes"
_PAPER = "arXiv:1904.00962"


class Trusting(Composed):
    """What LAMB and LARS share: the update of each tensor is scaled to the norm of the tensor."""

    decays = "inside"
    _clipping: Tensor | None = None

    def update(self, work: Sequence[tuple[Group, list[Tensor]]]) -> None:
        """Step; the norm of all gradients is taken first where a group clips by it."""
        limits = [group["max_grad_norm"] for group, _ in work if group["max_grad_norm"] is not None]
        grads = [param.grad for _, params in work for param in params if param.grad is not None]
        if limits and grads:
            if any(grad.layout != torch.strided for grad in grads):
                limits = []  # refused by `check` below, before anything has changed
            else:
                norms = [whole(norm) for alike in alike_in(grads) for norm in torch._foreach_norm(alike)]
                norm = torch.stack([norm.to(norms[0].device) for norm in norms]).norm()
                self._clipping = (min(limits) / norm).clamp(max=1)
        try:
            super().update(work)
        finally:
            self._clipping = None

    def before(self, slot: Slot, group: Group) -> Tensor:
        """The gradient, clipped where asked."""
        return (
            slot.grad
            if self._clipping is None
            else slot.grad * like(self._clipping.to(slot.grad.device, slot.grad.dtype), slot.grad)
        )

    def after(self, slot: Slot, update: Tensor, group: Group) -> Tensor:
        """The update times ||x|| / ||update||."""
        return update * trust(slot.param, update, group["clip"]) if group["adapt"] else update


def trust(x: Tensor, update: Tensor, clip: tuple[float, float] | None) -> Tensor:
    """phi(||x||) / ||update||, or 1 where either norm is 0; norms in float32.

    >>> float(trust(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]), None))
    2.5
    """
    return _ratio(torch.linalg.vector_norm(widened(x)), torch.linalg.vector_norm(widened(update)), clip).to(x.dtype)


def _ratio(of_x: Tensor, of_update: Tensor, clip: tuple[float, float] | None) -> Tensor:
    phi = of_x if clip is None else of_x.clamp(*clip)
    return torch.where((phi > 0) & (of_update > 0), phi / of_update, 1)


@method(
    name="lamb",
    kind="optimizer",
    title=_TITLE,
    paper=_PAPER,
    says="Adam whose step on each tensor is lr times the tensor's norm, for very large batches",
    bytes="2*b*m*n",
    example={"lr": 0.05},
    needs=("torch",),
)
class LAMB(Trusting):
    """Adam's update, with decay inside, scaled per tensor to the tensor's norm.

    `split(model, ["bias", "norm"], weight_decay=0, adapt=False)` leaves out what the paper leaves out. `clip` bounds
    phi; its lower bound frees tensors of almost no norm. `bias_correction=False` is the first BERT code's form.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        adapt: bool = True,
        clip: tuple[float, float] | None = None,
        bias_correction: bool = True,
        max_grad_norm: float | None = None,
        foreach: bool | None = None,
    ) -> None:
        options = {"adapt": adapt, "clip": clip, "bias_correction": bias_correction, "max_grad_norm": max_grad_norm}
        adam = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, "foreach": foreach, **adam, **options})

    def rule(self, group: Group) -> Rule:
        """Adam as in its paper."""
        return Adam(hat=group["bias_correction"], corrected=group["bias_correction"])

    def after(self, slot: Slot, update: Tensor, group: Group) -> Tensor:
        """Decay joins the update before the ratio is taken."""
        return super().after(slot, update.add(slot.param, alpha=group["weight_decay"]), group)

    def write(self, slots: list[Slot], updates: list[Tensor], group: Group) -> None:
        """The same over lists: one fused norm for all tensors, and none of it waits for the device."""
        params = [slot.param for slot in slots]
        if group["weight_decay"]:
            torch._foreach_add_(updates, params, alpha=group["weight_decay"])
        if group["adapt"]:
            wide = torch.promote_types(params[0].dtype, torch.float32)
            above, below = torch._foreach_norm(params, dtype=wide), torch._foreach_norm(updates, dtype=wide)
            ratios = _ratio(torch.stack(above), torch.stack(below), group["clip"]).to(params[0].dtype)
            torch._foreach_mul_(updates, list(ratios.unbind()))
        torch._foreach_add_(params, updates, alpha=-self.step_size(group))


@method(
    name="lars",
    kind="optimizer",
    title=_TITLE,
    paper=_PAPER,
    says="momentum whose step on each tensor is lr times the tensor's norm, for very large batches",
    bytes="b*m*n",
    example={"lr": 0.05},
    needs=("torch",),
    system="lamb",
)
class LARS(Trusting):
    """LARS as the LAMB paper writes it: the momentum itself is scaled to the tensor's norm."""

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        adapt: bool = True,
        clip: tuple[float, float] | None = None,
        max_grad_norm: float | None = None,
        foreach: bool | None = None,
    ) -> None:
        options = {"adapt": adapt, "clip": clip, "max_grad_norm": max_grad_norm}
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "foreach": foreach, **options}
        )

    def rule(self, group: Group) -> Rule:
        """Momentum."""
        return Momentum()

    def before(self, slot: Slot, group: Group) -> Tensor:
        """The gradient of the loss with its L2 term."""
        return super().before(slot, group).add(slot.param, alpha=group["weight_decay"])

    def after(self, slot: Slot, update: Tensor, group: Group) -> Tensor:
        """The paper's m, (1 - b) times torch's, scaled to the norm."""
        return super().after(slot, update * (1 - group["momentum"]), group)


@method(
    name="lars-2017",
    kind="optimizer",
    title="Large Batch Training of Convolutional Networks",
    paper="arXiv:1708.03888",
    says="SGD with momentum, each gradient scaled by a trust ratio before it enters the momentum",
    bytes="b*m*n",
    example={"lr": 5.0, "trust_coefficient": 0.01},
    needs=("torch",),
    deviates={"takes_schedules_and_clipping": "lr lies in the momentum: past steps roll on when lr has become 0"},
    system="lamb",
)
class LARS2017(LARS):
    """The first LARS: v = mu v + lr * eta ||w|| / (||g|| + wd ||w||) * (g + wd w), w <- w - v."""

    def __init__(
        self,
        params: Params,
        lr: float = 0.1,
        *,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        trust_coefficient: float = 1e-3,
        adapt: bool = True,
        clip: tuple[float, float] | None = None,
        max_grad_norm: float | None = None,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, momentum=momentum, weight_decay=weight_decay, adapt=adapt, clip=clip,
            max_grad_norm=max_grad_norm, foreach=foreach,
        )  # fmt: skip
        self.extend_defaults(trust_coefficient=trust_coefficient)

    def before(self, slot: Slot, group: Group) -> Tensor:
        """The gradient with its L2 term, times lr and the local rate: lr enters the momentum."""
        decayed = super().before(slot, group)  # a tensor of its own
        if not group["adapt"]:
            return decayed.mul_(float(group["lr"]))
        w = settled(torch.linalg.vector_norm(widened(slot.param)))
        g = settled(torch.linalg.vector_norm(widened(Trusting.before(self, slot, group))))
        local = _ratio(group["trust_coefficient"] * w, g + group["weight_decay"] * w, group["clip"])
        return decayed.mul_((float(group["lr"]) * local).to(decayed.dtype))

    def after(self, slot: Slot, update: Tensor, group: Group) -> Tensor:
        """The momentum as it is."""
        return update

    def step_size(self, group: Group) -> float:
        """1, for lr lies in the momentum."""
        return 1.0

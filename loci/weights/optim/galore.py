"""GaLore: full-parameter training with moments kept in a low-rank subspace of the gradient.

    R_t = P^T G_t (m < n) or G_t P (m >= n),   W_t = W_{t-1} - lr * alpha * P rho(R_t)            eq. (13), algorithm 2

rho is any elementwise update rule. P holds the r leading singular vectors of the current gradient and is computed anew
every `update_proj_gap` steps; moments are neither reset nor rotated then, so the sum of the updates has full rank.

Paper: Zhao, Zhang, Chen, Wang, Anandkumar, Tian, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
Projection", arXiv:2403.03507.
Differs: the side is held by name, not guessed from shapes; no Tucker projection of convolutions (they take the plain rule).
Keeps: b*(2*max(m,n)*r + min(m,n)*r) bytes for a matrix, against 2*b*m*n for AdamW.

>>> import torch
>>> W = torch.nn.Parameter(torch.zeros(8, 6))
>>> optimizer = GaLore([W], lr=0.1, rank=2)
>>> (W - 1).square().sum().backward(); optimizer.step()
>>> {name: tuple(value.shape) for name, value in optimizer.state[W].items() if name != "step"}
{'right': (6, 2), 'exp_avg': (8, 2), 'exp_avg_sq': (8, 2)}
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from torch import Tensor

from loci.core.card import method
from loci.weights.optim.base import Composed, Params, Slot, shown
from loci.weights.optim.blocks import EightBit
from loci.weights.optim.projection import (
    SIDES,
    Side,
    basis,
    lift,
    lower,
    one_of,
    projected,
    require_rank,
    sides,
    subspace,
)
from loci.weights.optim.rules import Adafactor, Adam, Group, Momentum, Rule, State
from loci.weights.optim.sharding import own, total

Base: TypeAlias = Literal["adamw", "adamw8bit", "sgd", "adafactor"]
RULES: dict[str, Rule] = {
    "adamw": Adam(),
    "adamw8bit": EightBit(Adam()),
    "sgd": Momentum(),
    "adafactor": Adafactor(),
}
_TITLE = "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection"
_PAPER = "arXiv:2403.03507"


@method(
    name="galore",
    kind="optimizer",
    title=_TITLE,
    paper=_PAPER,
    says="trains all weights with AdamW moments kept in a low-rank subspace of the gradient",
    bytes="b*(2*max(m,n)*r + min(m,n)*r)",
    example={"lr": 0.05, "rank": 2, "update_proj_gap": 5, "scale": 1.0},
    needs=("torch",),
)
class GaLore(Composed):
    """AdamW in a subspace. Matrices of groups with a `rank` are projected; everything else takes the plain rule.

    `base` is the rule: adamw, adamw8bit, sgd (torch's, with `momentum`) or adafactor. `scale` is the paper's alpha,
    `proj_type` the side. eps stands beside the uncorrected sqrt(v) and weight decay comes last, as in the authors' code.
    Options may differ by group; `split(model, ["attn", "mlp"], rank=128)` makes the groups that the paper trains.
    """

    base: ClassVar[Base] = "adamw"

    def __init__(
        self,
        params: Params,
        lr: float = 0.01,
        *,
        rank: int | None = None,
        update_proj_gap: int = 200,
        scale: float = 0.25,
        proj_type: Side = "std",
        base: Base | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
    ) -> None:
        options = {"rank": rank, "update_proj_gap": update_proj_gap, "scale": scale, "proj_type": proj_type}
        rules = {"base": base or self.base, "betas": betas, "eps": eps, "momentum": momentum}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "foreach": foreach, **options, **rules})

    def admit(self, param: Tensor, group: Group) -> None:
        """Refuse a rank that does not fit, an unknown rule or side."""
        super().admit(param, group)
        one_of("base", group["base"], tuple(RULES))
        one_of("proj_type", group["proj_type"], SIDES)
        require_rank(self, param, group)

    def rule(self, group: Group) -> Rule:
        """The base rule of the group."""
        return RULES[group["base"]]

    def check(self, param: Tensor, grad: Tensor, state: State, group: Group) -> None:
        """Refuse a gradient whose singular vectors do not exist."""
        super().check(param, grad, state, group)
        if projected(param, group) and due(state.get("step", 0) + 1, group) and not finite(grad):
            raise ValueError(
                f"the gradient of {shown(self, param)} is not finite, so it has no singular vectors; "
                "lower lr, clip the gradient, or leave this step out"
            )

    def before(self, slot: Slot, group: Group) -> Tensor:
        """The gradient in the subspace, which is chosen anew from time to time."""
        if not projected(slot.param, group):
            return slot.grad
        if due(slot.state["step"], group):
            m, n = slot.param.shape
            which = sides(m, n, group["proj_type"])
            slot.state.update(subspace(slot.grad, group["rank"], which))
        return lower(slot.grad, basis(slot.state))

    def after(self, slot: Slot, update: Tensor, group: Group) -> Tensor:
        """Back to the whole matrix, times alpha."""
        return lift(update * group["scale"], basis(slot.state)) if projected(slot.param, group) else update

    def write(self, slots: list[Slot], updates: list[Tensor], group: Group) -> None:
        """W - lr*alpha*P N in one product each: no second matrix of full size."""
        plain = [pair for pair in zip(slots, updates, strict=True) if not projected(pair[0].param, group)]
        if plain:
            super().write([slot for slot, _ in plain], [update for _, update in plain], group)
        alpha = -self.step_size(group) * group["scale"]
        for slot, low in zip(slots, updates, strict=True):
            if projected(slot.param, group):
                held = basis(slot.state)
                if "left" in held and "right" in held:
                    low = held["left"] @ low
                if "right" in held:
                    slot.param.addmm_(low, held["right"].T, alpha=alpha)
                else:
                    slot.param.addmm_(held["left"], low, alpha=alpha)


@method(
    name="galore-8bit",
    kind="optimizer",
    title=_TITLE,
    paper=_PAPER,
    says="GaLore with its moments in 8-bit blocks of 256",
    bytes="2*(max(m,n)*r + 4*ceil(max(m,n)*r/256)) + b*min(m,n)*r",
    example={"lr": 0.05, "rank": 2, "update_proj_gap": 5, "scale": 1.0},
    needs=("torch",),
    system="galore",
)
class GaLore8bit(GaLore):
    """GaLore over moments of one byte an element."""

    base = "adamw8bit"


@method(
    name="galore-adafactor",
    kind="optimizer",
    title=_TITLE,
    paper=_PAPER,
    says="GaLore over Adafactor: two vectors for the second moment, no first one",
    bytes="b*(max(m,n) + r + min(m,n)*r)",
    example={"lr": 0.05, "rank": 2, "update_proj_gap": 5, "scale": 1.0},
    needs=("torch",),
    system="galore",
)
class GaLoreAdafactor(GaLore):
    """GaLore over Adafactor, without a first moment."""

    base = "adafactor"


@method(
    name="galore-sgd",
    kind="optimizer",
    title=_TITLE,
    paper=_PAPER,
    says="GaLore over SGD with momentum: one moment, in the subspace",
    bytes="b*(max(m,n)*r + min(m,n)*r)",
    example={"lr": 0.002, "rank": 2, "update_proj_gap": 5, "scale": 1.0},
    needs=("torch",),
    system="galore",
)
class GaLoreSGD(GaLore):
    """GaLore over SGD with momentum."""

    base = "sgd"


def finite(grad: Tensor) -> bool:
    """Whether every element is finite, on every rank: all refuse a gradient or none does."""
    return bool(total(own(grad).isfinite().logical_not().sum(), grad) == 0)


def due(step: int, group: Group) -> bool:
    """Whether the subspace is chosen anew at this step: the first, and every `update_proj_gap` after it."""
    return bool((step - 1) % group["update_proj_gap"] == 0)

"""APOLLO and APOLLO-Mini: the raw gradient, rescaled by what Adam would do to it in a random subspace.

    R_t = P_t G_t,  R~_t = Adam(R_t),  s_j = ||R~_t[:, j]|| / ||R_t[:, j]||,  W <- W - lr * sqrt(alpha) * G_t diag(s)    eq. (5)

P is Gaussian with variance 1/r along the short side and is drawn again from a seed at every step, so it is never kept.
Mini has rank 1 and one factor for the whole matrix. A limiter keeps the update's norm from growing by more than 1 % a step.

Paper: Zhu et al., "APOLLO: SGD-like Memory, AdamW-level Performance", arXiv:2412.05270, algorithm 1.
Differs: P depends on the group's `seed` and the refresh alone, not on the parameter's place, so the order of parameters does
not matter; matrices of one short side share P. After a gradient of zero the limiter starts anew, where it would freeze the matrix.
No SVD projector, which the paper only compares to.
Keeps: 2*b*max(m,n)*r + 4 bytes for a matrix (the 4 are the limiter's norm); the authors' code also keeps P.

>>> W = torch.nn.Parameter(torch.zeros(8, 6))
>>> optimizer = APOLLOMini([W], lr=0.1)
>>> (W - 1).square().sum().backward(); optimizer.step()
>>> {name: tuple(value.shape) for name, value in optimizer.state[W].items() if name != "step"}
{'exp_avg': (8, 1), 'exp_avg_sq': (8, 1), 'norm': ()}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from loci.core.card import method
from loci.weights.optim.base import Composed, Params, Slot
from loci.weights.optim.projection import lower, one_of, projected, require_rank
from loci.weights.optim.rules import Adam, Group, Rule, State, correction
from loci.weights.optim.sharding import like, settled

_TITLE = "APOLLO: SGD-like Memory, AdamW-level Performance"
_PAPER = "arXiv:2412.05270"
_TINY = 1e-8


@method(
    name="apollo",
    kind="optimizer",
    title=_TITLE,
    paper=_PAPER,
    says="AdamW-like steps from the raw gradient, scaled per channel by Adam in a random subspace; no SVD",
    bytes="2*b*max(m,n)*r + 4",
    example={"lr": 0.05, "rank": 2, "update_proj_gap": 5},
    needs=("torch",),
)
class APOLLO(Composed):
    """Matrices of groups with a `rank` are scaled channel by channel of their long side; the rest takes AdamW.

    `scale` enters as its root. `scale_front` puts it before the limiter (for short warm-ups); `gamma=None` drops the
    limiter. eps stands beside the uncorrected sqrt(v) and weight decay comes last, as in the authors' code.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 0.01,
        *,
        rank: int | None = None,
        update_proj_gap: int = 200,
        scale: float = 1.0,
        scale_type: Literal["channel", "tensor"] = "channel",
        scale_front: bool = False,
        gamma: float | None = 1.01,
        seed: int = 0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
    ) -> None:
        subspace = {"rank": rank, "update_proj_gap": update_proj_gap, "seed": seed}
        scaling = {"scale": scale, "scale_type": scale_type, "scale_front": scale_front, "gamma": gamma}
        adam = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, "foreach": foreach, **subspace, **scaling, **adam})

    def admit(self, param: Tensor, group: Group) -> None:
        """Refuse a rank that does not fit."""
        super().admit(param, group)
        one_of("scale_type", group["scale_type"], ("channel", "tensor"))
        require_rank(self, param, group)

    def update(self, work: Sequence[tuple[Group, list[Tensor]]]) -> None:
        """Step; matrices of one short side share a projector, which is gone when the step is."""
        self._drawn: dict[tuple[int, int, int, int, torch.device], Tensor] = {}
        try:
            super().update(work)
        finally:
            self._drawn.clear()

    def rule(self, group: Group) -> Rule:
        """Adam without its bias corrections, which come after the limiter."""
        return Adam(corrected=False)

    def before(self, slot: Slot, group: Group) -> Tensor:
        """The gradient, randomly projected along its short side."""
        if not projected(slot.param, group):
            return slot.grad
        m, n = slot.grad.shape
        refresh = (slot.state["step"] - 1) // group["update_proj_gap"]
        drawn = (min(m, n), group["rank"], group["seed"], refresh, slot.grad.device)
        if drawn not in self._drawn:
            self._drawn[drawn] = random_projection(*drawn)
        P = like(self._drawn[drawn].to(slot.grad.dtype), slot.grad)
        return lower(slot.grad, {"right": P} if m >= n else {"left": P})

    def after(self, slot: Slot, update: Tensor, group: Group) -> Tensor:
        """The raw gradient times the factors, limited; then the bias corrections."""
        if not projected(slot.param, group):
            return update * correction(slot.state, group)
        return slot.grad * self._scaling(slot, update, group)

    def write(self, slots: list[Slot], updates: list[Tensor], group: Group) -> None:
        """The same without a second matrix of full size."""
        for slot, update in zip(slots, updates, strict=True):
            if projected(slot.param, group):
                factor = self._scaling(slot, update, group).expand_as(slot.grad)
                slot.param.addcmul_(slot.grad, factor, value=-self.step_size(group))
            else:
                slot.param.add_(update, alpha=-self.step_size(group) * correction(slot.state, group))

    def _scaling(self, slot: Slot, update: Tensor, group: Group) -> Tensor:
        """What the gradient is multiplied with: a row, a column or a number."""
        root = math.sqrt(group["scale"])
        scaling = factors(slot.fed, update, group["scale_type"])
        if group["scale_front"]:
            scaling = scaling * root
        if group["gamma"] is not None:
            scaling = scaling / growth(slot.grad, scaling, slot.state, group["gamma"])
        return (scaling if group["scale_front"] else scaling * root) * correction(slot.state, group)


@method(
    name="apollo-mini",
    kind="optimizer",
    title=_TITLE,
    paper=_PAPER,
    says="APOLLO of rank 1 with one factor a matrix: the state of SGD, two vectors a matrix",
    bytes="2*b*max(m,n)*r + 4",
    example={"lr": 0.02, "update_proj_gap": 5, "scale": 4.0},
    needs=("torch",),
    system="apollo",
)
class APOLLOMini(APOLLO):
    """Rank 1, one factor for the whole matrix, scale 128 (so 11.3 in effect)."""

    def __init__(
        self,
        params: Params,
        lr: float = 0.01,
        *,
        rank: int | None = 1,
        update_proj_gap: int = 200,
        scale: float = 128.0,
        scale_front: bool = False,
        gamma: float | None = 1.01,
        seed: int = 0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, rank=rank, update_proj_gap=update_proj_gap, scale=scale, scale_type="tensor", betas=betas,
            scale_front=scale_front, gamma=gamma, seed=seed, eps=eps, weight_decay=weight_decay, foreach=foreach,
        )  # fmt: skip


def random_projection(size: int, rank: int, seed: int, refresh: int, device: torch.device) -> Tensor:
    """A Gaussian projector (size, rank) of variance 1/rank; the same numbers for the same seed, refresh and device type.

    >>> one, two, other = (random_projection(64, 4, 7, k, torch.device("cpu")) for k in (3, 3, 4))
    >>> torch.equal(one, two), torch.equal(one, other)
    (True, False)
    """
    if device.type == "meta":  # shapes without numbers
        return torch.empty(size, rank, device=device)
    random = torch.Generator(device).manual_seed((seed * 1_000_003 + refresh) % 2**63)
    return torch.randn(size, rank, generator=random, device=device) / math.sqrt(rank)


def factors(low: Tensor, update: Tensor, scale_type: str) -> Tensor:
    """||Adam(R)|| / ||R||, per channel of the long side as a row or column, or of the whole."""
    if scale_type == "tensor":
        whole: Tensor = torch.linalg.vector_norm(update) / (torch.linalg.vector_norm(low) + _TINY)
        return whole
    axis = 1 if low.shape[0] >= low.shape[1] else 0  # R is (m, r) or (r, n): r is the shorter side
    return (lengths(update, axis) / (lengths(low, axis) + _TINY)).to(low.dtype)


def lengths(x: Tensor, axis: int) -> Tensor:
    """The norm of each row (axis 1) as a column, or of each column as a row; float32.

    >>> lengths(torch.tensor([[3.0, 0.0], [4.0, 2.0]]), 0)
    tensor([[5., 2.]])
    """
    x = x.float()
    if axis == 0:  # where vector_norm is ten times slower on a CPU
        along: Tensor = torch.linalg.vecdot(x, x, dim=0).sqrt().unsqueeze(0)
    else:
        along = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return along


def growth(grad: Tensor, scaling: Tensor, state: State, gamma: float) -> Tensor:
    """By how much ||grad * scaling|| exceeds gamma times its last value, at least 1; the limited norm is kept."""
    wide = scaling.float()
    if scaling.dim():
        norm = torch.linalg.vector_norm(lengths(grad, scaling.shape.index(1)) * wide)
    else:
        norm = torch.linalg.vector_norm(grad.float()) * wide
    last: Tensor = state.get("norm", norm.new_zeros(()))
    over = torch.where(last > 0, (norm / (last + _TINY)).clamp(min=gamma) / gamma, 1)
    state["norm"] = settled(norm / over)
    return over.to(scaling.dtype)

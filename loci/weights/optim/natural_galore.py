"""Natural GaLore: GaLore whose low-rank gradient is first multiplied by an inverse empirical Fisher matrix.

    F = lambda I + G G^T,   G = [v_k, ..., v_{k-s+1}],   F^{-1} v_k = G (lambda I + G^T G)^{-1} e_k          sec. 3, Woodbury

v are the last s low-rank gradients as vectors, the current one among them; the system is s x s and solved by Cholesky.

Paper: Das, "Natural GaLore: Accelerating GaLore for memory-efficient LLM Training and Fine-tuning", arXiv:2410.16029.
Differs: projects one side, as the paper and GaLore do (the released code projects both: `proj_type="full"`); the history
starts afresh when the subspace changes, since older vectors have other coordinates; no online projection.
Keeps: b*((2 + s)*max(m,n)*r + min(m,n)*r) bytes for a matrix: at s = 20 the history is ten times GaLore's moments, though the
paper speaks of no additional memory.

>>> W = torch.nn.Parameter(torch.zeros(8, 6))
>>> optimizer = NaturalGaLore([W], lr=0.1, rank=2, history=3)
>>> (W - 1).square().sum().backward(); optimizer.step()
>>> tuple(optimizer.state[W]["history"].shape)
(3, 8, 2)
"""

from __future__ import annotations

import torch
from torch import Tensor

from loci.core.card import method
from loci.weights.optim.base import Params, Slot
from loci.weights.optim.galore import Base, GaLore, due
from loci.weights.optim.projection import Side, projected
from loci.weights.optim.rules import Group, widened
from loci.weights.optim.sharding import own, rejoined, total


@method(
    name="natural-galore",
    kind="optimizer",
    title="Natural GaLore: Accelerating GaLore for memory-efficient LLM Training and Fine-tuning",
    paper="arXiv:2410.16029",
    says="GaLore with second-order steps from the last few low-rank gradients",
    bytes="b*((2 + s)*max(m,n)*r + min(m,n)*r)",
    example={"lr": 0.05, "rank": 2, "update_proj_gap": 5, "scale": 1.0, "history": 3, "damping": 10.0},
    needs=("torch",),
    system="natural_galore",
)
class NaturalGaLore(GaLore):
    """GaLore, its rule fed with F^{-1} v. `history` is s, `damping` lambda: absolute, so it depends on the loss's scale."""

    def __init__(
        self,
        params: Params,
        lr: float = 0.01,
        *,
        rank: int | None = None,
        update_proj_gap: int = 200,
        scale: float = 0.25,
        proj_type: Side = "std",
        history: int = 20,
        damping: float = 1e-3,
        base: Base | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
    ) -> None:
        if history < 1 or damping <= 0:
            raise ValueError(
                f"history={history}, damping={damping}: give at least 1 gradient and a damping above 0, such as 20 and 1e-3"
            )
        super().__init__(
            params, lr, rank=rank, update_proj_gap=update_proj_gap, scale=scale, proj_type=proj_type, base=base,
            betas=betas, eps=eps, momentum=momentum, weight_decay=weight_decay, foreach=foreach,
        )  # fmt: skip
        self.extend_defaults(history=history, damping=damping)

    def before(self, slot: Slot, group: Group) -> Tensor:
        """The natural gradient in the subspace."""
        low = super().before(slot, group)
        if not projected(slot.param, group):
            return low
        state, size = slot.state, group["history"]
        if "history" not in state:
            state["history"] = torch.stack([torch.zeros_like(low)] * size)
        state["seen"] = 0 if due(state["step"], group) else state["seen"]
        place = state["seen"] % size
        held = own(state["history"])
        held[place] = own(low)  # the oldest makes room
        state["seen"] += 1
        G = widened(held[: min(state["seen"], size)].flatten(1).T)
        update = natural(G, place, group["damping"], total(G.T @ G, low))
        return rejoined(update.view(own(low).shape).to(low.dtype), low)


def natural(G: Tensor, k: int, damping: float, gram: Tensor | None = None) -> Tensor:
    """(damping*I + G G^T)^{-1} G[:, k] without the d x d matrix; G is (d, s).

    Woodbury's identity at a vector that is itself a column: G (damping*I + G^T G)^{-1} e_k. Nothing cancels in it, as it
    does in v/lambda - ... when lambda is small. The s x s system is solved in float64. A rank that has some rows of G gives
    `gram`, G^T G over the rows of all, and gets its rows.

    >>> G = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    >>> torch.allclose(natural(G, 0, 1.0), G[:, 0] / 26)
    True
    """
    wide = widened(G)
    gram = wide.T @ wide if gram is None else gram
    eye = torch.eye(G.shape[1], dtype=torch.float64, device=G.device)
    L = torch.linalg.cholesky(gram.double() + damping * eye)
    return wide @ torch.cholesky_solve(eye[:, [k]], L)[:, 0].to(wide.dtype)

"""A shared block that easy tokens leave early: depth is chosen token by token, and keys are kept only where it was used.

    expert choice   h^{r+1}_t = h^r_t + g^r_t Phi(h^r)_t  for t active in round r, else h^r_t
    token choice    h^{r+1}_t = Phi(h^r)_t  for r < depth_t,   h^1_t + p_t Phi(h^r)_t  for r = depth_t, else h^r_t

Who is active in a round was active in all before it, and hears those that are active in it. `read` decides by the threshold
and is causal; `learn` routes by capacity over the whole text, as the paper trains, and adds the loss that brings the two
together; `agreement` says how near they are, `depths` how deep tokens go. Report losses under `read`.

Paper: Bae et al., "Mixture-of-Recursions: Learning Dynamic Recursive Depths for Adaptive Token-Level Computation",
arXiv:2507.10524, section 2.2.
Differs: see `recursion.py` (what a cache holds) and `routers.py`; no batching of tokens of different depths at inference. The
released code keeps the top k over the whole text when it evaluates; here it never does. Rounds that share the keys of the first
are in `shared_recursions.py`.
Keeps: B*(2*b*D*(2*W + L*C) + 8*(N + 1)) bytes, with C the sum of W cap_r: (N + 1) / (2 N) of what the recursive model keeps in
its shared layers.

Shapes: B batch, T time, V tokens, D width, N rounds, L layers of Phi.

>>> model = MixtureOfRecursions(11, D=8, heads=2, hidden=12, layers=1, recursions=3, window=6)
>>> model.places, model.learn(torch.arange(7).view(1, 7)).text.shape
([6, 4, 2], torch.Size([]))
>>> logits, state = model(torch.arange(7).view(1, 7))
>>> [tuple(part.shape) for part in state[2:8:2]]
[(1, 1, 6, 8), (1, 1, 4, 8), (1, 1, 2, 8)]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loci.core.card import method
from loci.state.decoder.recursion import Deeper, Recursive, Routed
from loci.state.decoder.routers import ExpertChoice, TokenChoice

BYTES = "B*(2*b*D*(2*W + L*C) + 8*(N + 1))"
TITLE = "Mixture-of-Recursions: Learning Dynamic Recursive Depths for Adaptive Token-Level Computation"
EXAMPLE = {"V": 11, "D": 8, "heads": 2, "hidden": 12, "layers": 1, "recursions": 3, "window": 12}


@method(
    name="mixture-of-recursions",
    kind="decoder",
    title=TITLE,
    paper="arXiv:2507.10524",
    says="one shared block whose rounds choose the tokens that go deeper: fewer weights, operations and cached keys",
    bytes=BYTES,
    example=EXAMPLE,
    needs=("torch",),
)
class MixtureOfRecursions(Recursive):
    """Expert choice: each round takes its share of the tokens that the round before it took."""

    def __init__(
        self,
        V: int,
        *,
        D: int = 960,
        heads: int = 15,
        hidden: int = 2560,
        layers: int = 10,
        recursions: int = 3,
        window: int = 2048,
        capacities: Sequence[float] | None = None,  # 1, (N-1)/N, ..., 1/N unless given
        alpha: float = 0.1,
        temperature: float = 1.0,
        imitation: float = 0.001,  # weight of the loss that teaches the threshold
    ) -> None:
        super().__init__(
            V, D=D, heads=heads, hidden=hidden, layers=layers, recursions=recursions, window=window,
            capacities=falling(recursions) if capacities is None else capacities,
        )  # fmt: skip
        self.router = ExpertChoice(D, self.capacities, alpha=alpha, temperature=temperature, weight=imitation)

    def by_rule(self, h: Tensor, deeper: Deeper) -> Routed:
        """Each token decides for itself."""
        active = torch.ones_like(h[..., 0], dtype=torch.bool)
        depth = torch.zeros_like(active, dtype=torch.int64)
        for r in range(len(self.capacities)):
            logits = self.router.logits(r, h)
            active = self.router.by_threshold(r, logits, active)
            h = h + self.router.gate(logits) * deeper(r, h, active)
            depth = depth + active
        return Routed(h, depth, h.new_zeros(()), h.new_ones(()))

    def in_training(self, h: Tensor, deeper: Deeper, progress: float) -> Routed:
        """The largest logits of the whole text, and what the threshold would have chosen among the same candidates."""
        candidates = torch.ones_like(h[..., 0], dtype=torch.bool)
        depth, loss = torch.zeros_like(candidates, dtype=torch.int64), h.new_zeros(())
        agreed = choices = depth.sum()
        for r in range(len(self.capacities)):
            logits = self.router.logits(r, h)
            active = self.router.by_capacity(r, logits, candidates, progress)
            loss = loss + self.router.imitation(logits, active, candidates)
            alone = self.router.by_threshold(r, logits, candidates)
            if self.capacities[r] < 1:
                agreed, choices = agreed + (candidates & (alone == active)).sum(), choices + candidates.sum()
            h = h + self.router.gate(logits) * deeper(r, h, active)
            depth, candidates = depth + active, active
        return Routed(h, depth, loss, agreed / choices if choices else h.new_ones(()))


@method(
    name="mixture-of-recursions-token-choice",
    kind="decoder",
    title=TITLE,
    paper="arXiv:2507.10524",
    says="one shared block that every token goes through as often as it chose when it began: causal as it learns, too",
    bytes=BYTES,
    example=EXAMPLE,
    needs=("torch",),
    system="mixture_of_recursions",
)
class MixtureOfRecursionsTokenChoice(Recursive):
    """Token choice: a token says once how deep it goes; a loss keeps depths in balance."""

    def __init__(
        self,
        V: int,
        *,
        D: int = 960,
        heads: int = 15,
        hidden: int = 2560,
        layers: int = 10,
        recursions: int = 3,
        window: int = 2048,
        capacities: Sequence[float] | None = None,  # what caches hold, for depths in balance; as in expert choice
        temperature: float = 1.0,
        balance: float = 0.1,
        z: float = 0.001,
    ) -> None:
        super().__init__(
            V, D=D, heads=heads, hidden=hidden, layers=layers, recursions=recursions, window=window,
            capacities=falling(recursions) if capacities is None else capacities,
        )  # fmt: skip
        self.router = TokenChoice(D, recursions, temperature=temperature, balance=balance, z=z)

    def by_rule(self, h: Tensor, deeper: Deeper) -> Routed:
        """Depths are chosen before the first round; no choice knows what follows, so it learns as it reads."""
        depth, gate, loss = self.router(h)
        begin = h
        for r in range(1, len(self.capacities) + 1):
            said = deeper(r - 1, h, depth >= r)
            ends, goes = ((depth == r).unsqueeze(-1), (depth > r).unsqueeze(-1))
            h = torch.where(ends, begin + gate * said, torch.where(goes, said, h))
        return Routed(h, depth, loss, h.new_ones(()))


def falling(recursions: int) -> tuple[float, ...]:
    """Each round takes as many tokens fewer than the one before it.

    >>> falling(4)
    (1.0, 0.75, 0.5, 0.25)
    """
    return tuple((recursions - r) / recursions for r in range(recursions))

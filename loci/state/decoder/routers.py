"""Who goes deeper: rounds choose their tokens (expert choice), or tokens their number of rounds (token choice).

    expert choice   g^r_t = alpha sigmoid(theta_r . h^r_t / tau),  round r takes the k_r = cap_r T largest of round r - 1's
                    reading alone, t is active where sigmoid > 1/2:  L = 0.001 sum_r mean BCE(theta_r . h_t / tau, t in top k_r)
    token choice    p_t = softmax(theta h^1_t / tau),  depth_t = argmax p_t,  L = 0.1 N sum_i f_i P_i + 0.001 mean(logsumexp^2)

The k_r largest of a text depend on what is yet to come, so a text is read by the threshold, which the loss L teaches to
give the same tokens. Where a round takes everyone there is nothing to choose. f_i is the share of tokens that go i deep,
P_i the mean of p_i. Choices are made in full precision under autocast.

Paper: Bae et al., arXiv:2507.10524, section 2.2; tau, alpha and weights as in the code that was released.
Differs: no separate auxiliary router and no balancing by a bias.
Keeps: b*N*D bytes of weights.

Shapes: B batch, T time, D width, N rounds.

>>> router = ExpertChoice(4, (1.0, 0.5))
>>> logits, everyone = torch.tensor([[0.3, -0.2, 0.9, 0.1]]), torch.ones(1, 4, dtype=torch.bool)
>>> router.by_capacity(1, logits, everyone).tolist(), router.by_threshold(1, logits, everyone).tolist()
([[True, False, True, False]], [[True, False, True, True]])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear


class ExpertChoice(nn.Module):
    """A vector for each round, which the round's tokens are measured by."""

    def __init__(
        self,
        D: int,
        capacities: Sequence[float],
        *,
        alpha: float = 0.1,
        temperature: float = 1.0,
        weight: float = 0.001,
    ) -> None:
        super().__init__()
        if alpha <= 0 or temperature <= 0 or weight < 0:
            raise ValueError(
                f"alpha={alpha}, temperature={temperature}, weight={weight} route nothing; choose above 0, a weight of 0 or more"
            )
        self.capacities, self.alpha, self.temperature, self.weight = tuple(capacities), alpha, temperature, weight
        self.theta = nn.Parameter(torch.randn(len(self.capacities), D) * 0.02)

    def logits(self, r: int, h: Tensor) -> Tensor:
        """How much round r wants each token (B, T, D), (B, T)."""
        with torch.autocast(h.device.type, enabled=False):
            return (h / self.temperature) @ self.theta[r].to(h.dtype)

    def gate(self, logits: Tensor) -> Tensor:
        """What the block's answer is multiplied by, (B, T, 1): the way of the text's gradient to the router."""
        return self.alpha * logits.sigmoid().unsqueeze(-1)

    def by_threshold(self, r: int, logits: Tensor, candidates: Tensor) -> Tensor:
        """The active tokens (B, T), each decided by itself."""
        return candidates if self.capacities[r] == 1 else candidates & (logits > 0)

    def by_capacity(self, r: int, logits: Tensor, candidates: Tensor, progress: float = 1.0) -> Tensor:
        """The k_r candidates of the largest logits (B, T); k_r comes down from T along a cosine as `progress` goes to 1."""
        k = taken(self.capacities[r], logits.shape[1], progress)
        top = logits.detach().masked_fill(~candidates, -torch.inf).topk(k, 1).indices
        return torch.zeros_like(candidates).scatter(1, top, value=True) & candidates

    def imitation(self, logits: Tensor, chosen: Tensor, candidates: Tensor) -> Tensor:
        """The loss that teaches the threshold a round's choice among its candidates, weighted."""
        apart = binary_cross_entropy_with_logits(logits, chosen.to(logits.dtype), reduction="none")
        return self.weight * torch.where(candidates, apart, 0.0).sum() / candidates.sum()


def taken(share: float, length: int, progress: float = 1.0) -> int:
    """How many of `length` tokens a round of that capacity takes: all at first, its share as `progress` comes to 1.

    >>> [taken(0.25, 100, progress) for progress in (0, 0.5, 1)]
    [100, 62, 25]
    """
    wide = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return max(1, int((share + (1 - share) * wide) * length + 1e-9))


class Choice(NamedTuple):
    """What tokens chose for themselves."""

    depth: Tensor  # (B, T), 1 to N
    gate: Tensor  # (B, T, 1), probability of that depth
    loss: Tensor  # balance and size of logits, weighted


class TokenChoice(nn.Module):
    """A vector for each depth; every token takes the likeliest, once and for all."""

    def __init__(
        self, D: int, recursions: int, *, temperature: float = 1.0, balance: float = 0.1, z: float = 0.001
    ) -> None:
        super().__init__()
        if temperature <= 0 or min(balance, z) < 0:
            raise ValueError(
                f"temperature={temperature}, balance={balance}, z={z} route nothing; choose above 0, weights of 0 or more"
            )
        self.temperature, self.balance, self.z = temperature, balance, z
        self.theta = nn.Parameter(torch.randn(recursions, D) * 0.02)

    def forward(self, h: Tensor) -> Choice:
        """(B, T, D) -> depths, gates and the router's loss."""
        with torch.autocast(h.device.type, enabled=False):
            logits = linear(h / self.temperature, self.theta.to(h.dtype))
        odds, N = logits.softmax(-1), len(self.theta)
        depth = odds.argmax(-1)
        share = (depth.unsqueeze(-1) == torch.arange(N, device=h.device)).to(odds.dtype).mean((0, 1))
        even = N * (share * odds.mean((0, 1))).sum()
        loss = self.balance * even + self.z * logits.logsumexp(-1).square().mean()
        return Choice(depth + 1, odds.gather(-1, depth.unsqueeze(-1)), loss)

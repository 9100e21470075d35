"""What prefix linear attention is trained on: to go on after the prefix, and to fill in what is masked inside it.

    loss = NTP(positions from M on) + 0.25 * MLM(masked positions before M)                not renormalised

A position of the prefix has seen its successor, so predicting that would be copying; instead some of its tokens are
replaced by a mask and predicted where they stood. Each part is the mean over its own positions.

Paper: Arora et al., "Just read twice", arXiv:2407.05483.
Differs: positions without a target hold `ignore`, so that every token can be one; the authors' code drops those of token 0.
The last position of the prefix predicts the first token after it only if its target says so.
Keeps: nothing.

>>> random = torch.Generator().manual_seed(0)
>>> shown, targets = masked(torch.arange(20).view(1, 20), mask=99, random=random)
>>> bool(((shown == 99) == (targets != -100)).all())
True
>>> logits = torch.zeros(1, 30, 100)
>>> round(float(mixed_loss(logits, torch.zeros(1, 30, dtype=torch.int64), prefix=20)), 4)  # 1.25 * log(100)
5.7565
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def mixed_loss(logits: Tensor, targets: Tensor, *, prefix: int, weight: float = 0.25, ignore: int = -100) -> Tensor:
    """Logits (B, N, V) and targets (B, N) of int64 -> the loss; a part without any target is 0.

    Before `prefix` a target is the masked token of that place, from there on the token that comes next; `ignore` where
    nothing is asked.
    """
    if logits.dim() != 3 or targets.shape != logits.shape[:2] or targets.dtype != torch.int64:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, targets {tuple(targets.shape)} of {targets.dtype}; "
            "give (B, N, V) and (B, N) of int64"
        )
    if not 0 <= prefix <= targets.shape[1]:
        raise ValueError(f"prefix={prefix} does not fit {targets.shape[1]} positions; give 0 to {targets.shape[1]}")
    mlm = _mean_loss(logits[:, :prefix], targets[:, :prefix], ignore)
    return _mean_loss(logits[:, prefix:], targets[:, prefix:], ignore) + weight * mlm


def masked(
    tokens: Tensor, *, mask: int, random: torch.Generator, share: float = 0.15, ignore: int = -100
) -> tuple[Tensor, Tensor]:
    """A prefix (B, M) with a share of its tokens replaced by `mask`, and these tokens as targets, `ignore` elsewhere."""
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} is no probability; give 0 to 1")
    hidden = torch.rand(tokens.shape, generator=random).to(tokens.device) < share
    return tokens.masked_fill(hidden, mask), tokens.masked_fill(~hidden, ignore)


def _mean_loss(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    asked = targets != ignore
    total = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=ignore, reduction="sum")
    return total / asked.sum().clamp(min=1)

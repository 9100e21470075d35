"""Auxiliary heads of local losses, and the contrastive criterion; they take maps (B, C, H, W), tokens (B, T, D) or rows.

Shapes: B batch, T tokens, D width, C channels or classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pooled(h: Tensor) -> Tensor:
    """The mean over places: (B, C, H, W) or (B, T, D) to (B, width); rows (B, D) stay.

    >>> pooled(torch.ones(2, 3, 4, 4)).shape, pooled(torch.ones(2, 5, 3)).shape
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    return h.mean((2, 3)) if h.ndim == 4 else h.mean(1) if h.ndim == 3 else h


class Pooled(nn.Module):
    """Mean over places, then one linear map: '0c1f' of InfoPro. With `hidden`, two maps and a ReLU: '0c2f'."""

    def __init__(self, width: int, classes: int, *, hidden: int | None = None) -> None:
        super().__init__()
        self.map = (
            nn.Linear(width, classes)
            if hidden is None
            else nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        )

    def forward(self, h: Tensor) -> Tensor:
        """(B, ..., width) -> (B, classes)."""
        scores: Tensor = self.map(pooled(h))
        return scores


class ConvPooled(nn.Module):
    """'1c2f' of InfoPro: a 3x3 convolution, batch norm, ReLU, mean over places, two linear maps."""

    def __init__(self, width: int, classes: int, *, channels: int = 32, hidden: int = 128, stride: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.out = Pooled(channels, classes, hidden=hidden)

    def forward(self, h: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, classes)."""
        scores: Tensor = self.out(nn.functional.relu(self.norm(self.conv(h))))
        return scores


def contrast(features: Tensor, y: Tensor, temperature: float = 0.07) -> Tensor:
    """Supervised contrastive loss (Khosla et al., arXiv:2004.11362, eq. 2): rows of a class attract, others repel.

    A row that is alone in its class has nothing to be near to and is left out.

    >>> round(float(contrast(torch.eye(3)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1]), 1.0)), 4)  # log(1 + 2/e)
    0.5514
    """
    unit = nn.functional.normalize(features, dim=1)
    itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
    log = torch.log_softmax((unit @ unit.T / temperature).masked_fill(itself, -torch.inf), 1)
    friends = (y[:, None] == y) & ~itself
    counts = friends.sum(1)
    means = log.masked_fill(~friends, 0.0).sum(1) / counts.clamp(min=1)
    return -means.sum() / (counts > 0).sum().clamp(min=1)

"""Keywords of four chirps, the same four in each: only their order tells the ten keywords apart.

A chirp goes through half of the mel bins in eight frames, up or down, so that no frame tells which it was. The keyword begins
anywhere in the clip, in noise that is louder than it.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence
from loci.state.lmu import LMU

MEL, FRAMES, LONG = 16, 48, 8  # bins, frames of a clip, frames of a chirp
GLIDES = ((0.0, 0.5), (0.5, 0.0), (0.5, 1.0), (1.0, 0.5))  # from where to where, in parts of the bins
SNR = -6.0  # dB, of the keyword's frames
KEYWORDS = tuple(permutations(range(len(GLIDES))))[::2][:10]


def chirps() -> Tensor:
    """The four chirps, (4, LONG, MEL): a bump over the bins that moves on with each frame.

    >>> rising, falling, _, _ = chirps()
    >>> torch.allclose(rising, falling.flip(0))  # the same frames, in the other order
    True
    """
    time, bins = torch.linspace(0, 1, LONG), torch.arange(MEL)
    middles = torch.stack([(MEL - 1) * torch.lerp(torch.tensor(a), torch.tensor(b), time) for a, b in GLIDES])
    return (-(bins - middles.unsqueeze(-1)).square() / 2).exp()


def clips(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips (count, FRAMES, MEL) and the numbers of their keywords (count,)."""
    words = chirps()[torch.tensor(KEYWORDS)].flatten(1, 2)  # (10, 4 LONG, MEL)
    words = words * (10 ** (SNR / 10) / words.square().mean()).sqrt()
    keyword = torch.randint(len(words), (count,), generator=random)
    onset = torch.randint(FRAMES - words.shape[1] + 1, (count, 1), generator=random)
    frames = torch.randn(count, FRAMES, MEL, generator=random)
    places = onset + torch.arange(words.shape[1])
    frames[torch.arange(count).unsqueeze(1), places] += words[keyword]
    return frames, keyword


class MemoryAlone(nn.Module):
    """An LMU with a head on the mean of what it says: no convolutions, no mixer of channels. A control, and no method."""

    def __init__(self, C: int, D: int, *, classes: int, N: int, theta: float) -> None:
        super().__init__()
        self.inward, self.lmu, self.head = nn.Linear(C, D), LMU(D, N, theta=theta), nn.Linear(D, classes)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, C) -> logits (B, classes)."""
        logits: Tensor = self.head(self.lmu(self.inward(frames))[0].mean(1))
        return logits


def told(entry: str, seed: int, *, D: int, options: dict[str, Any], steps: int, lr: float, batch: int = 50) -> Evidence:
    """Percent of 500 new clips told right, after `steps` batches of 2,000 clips; and the bytes of the weights."""
    torch.manual_seed(seed)
    model: nn.Module = load(entry)(MEL, D, classes=len(KEYWORDS), **options)
    random = torch.Generator().manual_seed(seed)
    frames, keyword = clips(2000, random)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(frames), (batch,), generator=random)
        loss = functional.cross_entropy(model(frames[rows]), keyword[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    frames, keyword = clips(500, random)
    with torch.no_grad():
        right = (model.eval()(frames).argmax(1) == keyword).float().mean()
    kept = sum(param.numel() * param.element_size() for param in model.parameters())
    return Evidence(round(100 * float(right), 2), "percent of clips told right", kept)

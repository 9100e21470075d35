"""Delays: say at every moment what a signal was some moments ago, for several lags at once.

    shown: u(t), smooth noise        due: u(t - lag_1), ..., u(t - lag_K)

Smooth noise has no period shorter than `shortest`, so a window of theta moments holds about 2 theta / shortest numbers; how
many of them a state keeps is what is measured.

Source: Voelker, Kajic, Eliasmith, "Legendre Memory Units", NeurIPS 2019, capacity task (decoding a window of noise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from loci.lab.claim import Evidence
from loci.lab.tasks.recalling import Lesson, between, learn


def noise(count: int, length: int, *, shortest: float, random: torch.Generator) -> Tensor:
    """Rows (count, length) of noise of mean 0 and variance 1 over all rows, without periods below `shortest`.

    >>> u = noise(500, 64, shortest=16, random=torch.Generator().manual_seed(0))
    >>> round(float(u.var()), 1), float(torch.fft.rfft(u)[:, 5:].abs().max()) < 1e-4
    (1.0, True)
    """
    waves = int(length / shortest)  # the k-th has a period of length / k
    if waves < 1:
        raise ValueError(f"shortest={shortest} leaves no wave in {length} moments; choose at most {length}")
    cosines, sines = torch.randn(2, count, waves, generator=random)
    angle = 2 * torch.pi * torch.arange(length) * torch.arange(1, waves + 1).unsqueeze(1) / length
    u: Tensor = (cosines @ angle.cos() + sines @ angle.sin()) / waves**0.5
    return u


def delays(
    count: int, length: int, *, lags: Sequence[int], shortest: float, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Signals (count, length, 1), and what they were so long before (count, length - longest, lags) each moment from it on.

    >>> u, due = delays(2, 50, lags=(3, 7), shortest=10, random=torch.Generator().manual_seed(0))
    >>> bool((due[:, :, 0] == u[:, 4:47, 0]).all()), bool((due[:, :, 1] == u[:, :43, 0]).all())
    (True, True)
    """
    longest = max(lags)
    u = noise(count, length, shortest=shortest, random=random)
    return u.unsqueeze(-1), torch.stack([u[:, longest - lag : length - lag] for lag in lags], -1)


def missed(
    entry: str,
    seed: int,
    *,
    D: int,
    options: Mapping[str, Any],
    lesson: Lesson,
    lags: Sequence[int],
    shortest: float,
    length: int = 192,
) -> Evidence:
    """Percent of the variance of what is due that is not said, in signals that were not trained on."""
    random = torch.Generator().manual_seed(seed)
    model = between(entry, seed, D=D, options=options, inputs=1, outputs=len(lags))

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        return delays(rows, length, lags=lags, shortest=shortest, random=random)

    def loss(said: Tensor, due: Tensor) -> Tensor:
        return (said[:, -due.shape[1] :] - due).square().mean()

    learn(model, draw, loss, lesson)
    with torch.no_grad():
        u, due = draw(256)
        share = float(loss(model(u), due) / due.var())
    return Evidence(round(100 * share, 2), "percent of the variance missed", model.kept())

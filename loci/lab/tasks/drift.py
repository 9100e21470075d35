"""A language whose rule changes half way: what an optimizer learned of the gradient's subspace turns stale.

The next of 32 words is drawn from softmax(A[one back] + B[two back]). At half of the steps A is drawn anew.

Shapes: N rows, T time, V words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from loci.lab.claim import Evidence
from loci.lab.tasks.language import Transformer, state_bytes

UNIT = "held-out nats a word after the change"
V, T, BATCH, STEPS, WARM = 32, 16, 32, 300, 40


class Language:
    """Words (N, T + 1) by the first rule and by the second: rows of training, rows that are held out."""

    def __init__(self, seed: int, *, rows: int = 20_000, held_out: int = 2_000) -> None:
        random = torch.Generator().manual_seed(seed)
        first, then, two_back = (1.5 * torch.randn(V, V, generator=random) for _ in range(3))
        self.before = sentences(first, two_back, rows, random)
        self.after = sentences(then, two_back, rows, random)
        self.held_out = sentences(then, two_back, held_out, random)


def sentences(one_back: Tensor, two_back: Tensor, rows: int, random: torch.Generator) -> Tensor:
    """Words (N, T + 1): the first two are drawn evenly."""
    words = torch.randint(V, (rows, 2), generator=random)
    for _ in range(T - 1):
        chances = (one_back[words[:, -1]] + two_back[words[:, -2]]).softmax(1)
        words = torch.cat([words, torch.multinomial(chances, 1, generator=random)], 1)
    return words


def train(build: Callable[[nn.Module], Any], seed: int) -> Evidence:
    """Train through the change; the loss on the new rule, and the optimizer's bytes.

    lr rises over 40 steps and falls as a cosine to a tenth.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        language, random = Language(seed), torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Transformer(V, T=T)
        optimizer = build(model)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate)
        for step in range(STEPS):
            rows = language.before if step < STEPS // 2 else language.after
            optimizer.zero_grad()
            torch.autograd.backward(_loss(model, rows[torch.randint(len(rows), (BATCH,), generator=random)]))
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            held_out = float(_loss(model, language.held_out))
    finally:
        torch.set_num_threads(threads)
    return Evidence(round(held_out, 4), UNIT, state_bytes(optimizer))


def _rate(step: int) -> float:
    if step < WARM:
        return (step + 1) / (WARM + 1)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARM) / (STEPS - WARM)))


def _loss(model: nn.Module, words: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())

"""What a state holds: a language model over a mixer learns texts whose answers can only come from what it carries.

Two tasks, MQAR and a needle in noise; two blocks of width 32 under one optimizer. All models have the same number of
parameters: what a mixer does not take, the maps between mixers get. Every mixer hears a moment together with the one before
it. Without that, most of the training goes into learning to pair neighbours (attention has 25 percent of MQAR after 500
steps, and everything after 400 with it), and it is memory that is to be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from loci.core.card import load
from loci.lab.tasks.mqar import NOTHING, mqar
from loci.lab.tasks.needle import needle
from loci.state.layers import Layers
from loci.state.mixer import Mixer, State, state_bytes
from loci.state.stack import Stack

SYMBOLS, DEPTH, D = 32, 2, 32
LR, BATCH, WARM = 3e-3, 32, 50
ENOUGH = 30  # batches in a row without a mistake: training ends
TASKS: Mapping[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "mqar": partial(mqar, length=32, pairs=8, queries=8, symbols=SYMBOLS),
    "needle": partial(needle, length=48, symbols=SYMBOLS),
}


@dataclass(frozen=True, slots=True)
class Recollection:
    """Percent of answers that are right in new texts, the state's bytes a text after reading one, and all parameters."""

    recalled: float
    state_bytes: int
    parameters: int


class WithLast(Mixer):
    """y_t = x_t + W x_{t-1}: what every mixer hears."""

    def __init__(self, D: int) -> None:
        super().__init__()
        self.D, self.last = D, nn.Linear(D, D, bias=False)

    def initial_state(self, batch: int) -> State:
        """Nothing was before the first moment: zeros (B, D)."""
        return (self.last.weight.new_zeros(batch, self.D),)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows of width D."""
        return {"B": batch, "D": self.D}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment."""
        return x + self.last(state[0]), (x,)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments."""
        before = torch.cat([state[0].unsqueeze(1), x[:, :-1]], 1)
        return x + self.last(before), (x[:, -1],)


def sized(entry: str, options: Mapping[str, Any], *, parameters: int) -> Stack:
    """The model over a mixer with as many parameters as fit. ValueError where the mixer alone has more."""
    member = load(entry)

    def mixer(width: int) -> Mixer:
        return Layers([WithLast(width), member(width, **options)])

    least = counted(Stack(mixer, depth=DEPTH, V=SYMBOLS, D=D, hidden=1))
    hidden = 1 + (parameters - least) // (DEPTH * (2 * D + 1))
    if hidden < 1:
        raise ValueError(f"{entry} with {dict(options)} has {least} parameters; choose a smaller one for {parameters}")
    return Stack(mixer, depth=DEPTH, V=SYMBOLS, D=D, hidden=hidden)


def counted(model: torch.nn.Module) -> int:
    """All its parameters."""
    return sum(param.numel() for param in model.parameters())


def recollected(
    entry: str, options: Mapping[str, Any], task: str, seed: int, *, parameters: int, steps: int
) -> Recollection:
    """Train over a mixer (`module:Class`) from a seed, then ask it in 512 new texts."""
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = sized(entry, options, parameters=parameters)
        learnt(model, task, random, steps=steps)
    tokens, due = TASKS[task](512, random=random)
    with torch.no_grad():
        logits, state = model.eval()(tokens)
    asked = due != NOTHING
    right = (logits.argmax(-1) == due)[asked].float().mean()
    return Recollection(100 * float(right), state_bytes(state) // len(tokens), counted(model))


def learnt(model: Stack, task: str, random: torch.Generator, *, steps: int) -> None:
    """AdamW with a warm start on a stream of new texts, until `steps` are done or nothing is left to learn."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    faultless = 0
    for step in range(steps):
        tokens, due = TASKS[task](BATCH, random=random)
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, (step + 1) / WARM)
        optimizer.zero_grad()
        logits, _ = model(tokens)
        torch.autograd.backward(cross_entropy(logits.flatten(0, 1), due.flatten(), ignore_index=NOTHING))
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        wrong = (logits.argmax(-1) != due) & (due != NOTHING)
        faultless = 0 if bool(wrong.any()) else faultless + 1
        if faultless == ENOUGH:
            return

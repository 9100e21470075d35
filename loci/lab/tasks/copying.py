"""Copying: read some symbols, wait, say them again in order; plain, or with the symbols at random places among blanks.

In the plain task the symbols come first and the wait is always as long, so that a system that is the same at every moment can
solve it by its delays alone. In the selective one it has to be chosen at every moment whether there is anything to keep
(Gu, Dao, arXiv:2312.00752, section 3.1 and figure 2).

Symbols are 0 to symbols - 1; then come the blank and the marker that asks for an answer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence
from loci.state.layers import Layers
from loci.state.mixer import Mixer, State, state_bytes
from loci.state.s5 import S5
from loci.state.xlstm import CausalConv

K = 4  # taps of the convolution


class GatedS5(Mixer):
    """The block of Mamba with a system in it that is the same at every moment; the control of Mamba, and no method."""

    def __init__(self, D: int, *, P: int, expand: int = 2) -> None:
        super().__init__()
        self.D, E = D, expand * D
        self.inward, self.outward = nn.Linear(D, 2 * E, bias=False), nn.Linear(E, D, bias=False)
        self.conv, self.system = CausalConv(E, width=K), S5(E, P)
        self.E = E

    def initial_state(self, batch: int) -> State:
        """The last inputs of the convolution, and S5's state."""
        return self.outward.weight.new_zeros(batch, K - 1, self.E), *self.system.initial_state(batch)

    def shapes(self, batch: int) -> dict[str, float]:
        """S5's."""
        return dict(self.system.shapes(batch))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment."""
        y, after = self.scan(x.unsqueeze(1), state)
        return y.squeeze(1), after

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments in few rounds."""
        u, z = self.inward(x).chunk(2, -1)
        u, window = self.conv(u, state[0])
        y, after = self.system.scan(functional.silu(u), state[1:])
        return self.outward(y * functional.silu(z)), (window, *after)


class Normed(Mixer):
    """A mixer behind a norm and inside a residual connection."""

    def __init__(self, mixer: Mixer) -> None:
        super().__init__()
        self.D, self.mixer, self.norm = mixer.D, mixer, nn.LayerNorm(mixer.D)

    def initial_state(self, batch: int) -> State:
        """The mixer's."""
        return self.mixer.initial_state(batch)

    def shapes(self, batch: int) -> dict[str, float]:
        """The mixer's."""
        return dict(self.mixer.shapes(batch))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment."""
        y, state = self.mixer.step(self.norm(x), state)
        return x + y, state

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments."""
        y, state = self.mixer.scan(self.norm(x), state)
        return x + y, state


class Copyist(nn.Module):
    """Symbols (B, T) -> logits (B, T, symbols), through two layers of a mixer."""

    def __init__(self, layers: Layers, symbols: int) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(symbols + 2, layers.D), layers
        self.head = nn.Sequential(nn.LayerNorm(layers.D), nn.Linear(layers.D, symbols))

    def forward(self, ids: Tensor) -> Tensor:
        """What is said at every moment."""
        return self.head(self.layers(self.embedding(ids))[0])  # type: ignore[no-any-return]


def copying(batch: int, count: int, wait: int, symbols: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Symbols at once, then `wait` blanks, then a marker for each: ids (batch, 2 count + wait), answers (batch, count).

    >>> ids, answers = copying(1, 2, 3, 4, torch.Generator().manual_seed(0))
    >>> ids[0, 2:].tolist(), bool((ids[:, :2] == answers).all())
    ([4, 4, 4, 5, 5], True)
    """
    return _asked(batch, count, wait, symbols, random, torch.arange(count).expand(batch, count))


def selective(batch: int, count: int, wait: int, symbols: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same with the symbols, in order, at random places among the blanks.

    >>> ids, answers = selective(1, 2, 3, 4, torch.Generator().manual_seed(0))
    >>> read = ids[ids < 4]
    >>> ids.shape, bool((read == answers[0]).all())
    (torch.Size([1, 7]), True)
    """
    places = torch.rand(batch, count + wait, generator=random).argsort(1)[:, :count].sort(1).values
    return _asked(batch, count, wait, symbols, random, places)


def _asked(
    batch: int, count: int, wait: int, symbols: int, random: torch.Generator, places: Tensor
) -> tuple[Tensor, Tensor]:
    answers = torch.randint(symbols, (batch, count), generator=random)
    read = torch.full((batch, count + wait), symbols).scatter(1, places, answers)
    return torch.cat([read, torch.full((batch, count), symbols + 1)], 1), answers


def copied(
    entry: str,
    seed: int,
    *,
    D: int,
    options: dict[str, Any],
    lr: float,
    steps: int,
    count: int = 4,
    wait: int = 28,
    symbols: int = 8,
) -> Evidence:
    """Percent of symbols said again right in texts that were not trained on, in the selective task."""
    torch.manual_seed(seed)
    layers = Layers([Normed(load(entry)(D, **options)) for _ in range(2)])
    model = Copyist(layers, symbols)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(steps):
        ids, answers = selective(32, count, wait, symbols, random)
        loss = functional.cross_entropy(model(ids)[:, -count:].transpose(1, 2), answers)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        ids, answers = selective(512, count, wait, symbols, random)
        right = model(ids)[:, -count:].argmax(-1) == answers
    kept = state_bytes(layers.initial_state(1))
    return Evidence(round(100 * float(right.float().mean()), 2), "percent of symbols copied", kept)

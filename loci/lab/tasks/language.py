"""Character language modelling with a tiny causal transformer: small real text, seconds on one core.

Shapes: B batch, T time, D width, H heads, V characters.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loci.lab import data
from loci.lab.claim import Evidence, NotTestable
from loci.lab.tasks import peak

UNIT = "held-out nats a character on tinyshakespeare"


@dataclass(frozen=True, slots=True)
class Text:
    """Character codes of a set, its training part and its held-out part."""

    train: Tensor
    valid: Tensor
    characters: int


def read(name: str = "tinyshakespeare") -> Text:
    """A text set in its two parts; NotTestable when it is absent."""
    folder = data.folder(name)
    if not folder.is_dir():
        raise NotTestable(f"{folder} is absent; set LOCI_DATA to a folder that holds it")
    return _read(folder)


@lru_cache(maxsize=2)
def _read(folder: Path) -> Text:
    train, valid = (gzip.decompress((folder / f"{part}.txt.gz").read_bytes()).decode() for part in ("train", "valid"))
    code = {character: place for place, character in enumerate(sorted(set(train + valid)))}
    return Text(torch.tensor([code[c] for c in train]), torch.tensor([code[c] for c in valid]), len(code))


class Factorised(nn.Module):
    """A linear map that is the product of two thin ones: training in a low-rank set of weights."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        up: Tensor = self.up(self.down(x))
        return up


class Block(nn.Module):
    """Attention and a two-layer map, each after a norm and beside a way around it."""

    def __init__(self, D: int, H: int, linear: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.H = H
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attn = nn.ModuleDict({name: linear(D, D) for name in ("q", "k", "v", "o")})
        self.mlp = nn.Sequential(linear(D, 4 * D), nn.GELU(), linear(4 * D, D))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        B, T, D = x.shape
        h = self.norm1(x)
        q, k, v = (self.attn[name](h).view(B, T, self.H, -1).transpose(1, 2) for name in ("q", "k", "v"))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["o"](mixed.transpose(1, 2).reshape(B, T, D))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """Two blocks of width 64 over characters."""

    def __init__(self, V: int, *, T: int = 32, D: int = 64, H: int = 4, rank: int | None = None) -> None:
        super().__init__()
        self.T = T

        def linear(inputs: int, outputs: int) -> nn.Module:
            return nn.Linear(inputs, outputs) if rank is None else Factorised(inputs, outputs, rank)

        self.embed, self.place = nn.Embedding(V, D), nn.Embedding(T, D)
        self.blocks = nn.Sequential(Block(D, H, linear), Block(D, H, linear))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V)

    def forward(self, codes: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embed(codes) + self.place(torch.arange(codes.shape[1]))
        out: Tensor = self.head(self.norm(self.blocks(x)))
        return out


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training left behind. `loss` is the held-out one, unrounded; NaN when the training loss passed its limit."""

    loss: float
    model: Transformer
    optimizer: Any


def train(
    build: Callable[[nn.Module], Any], seed: int, *, steps: int = 300, batch: int = 16, rank: int | None = None
) -> Evidence:
    """Train a fresh model with the optimizer that `build` makes for it; its held-out loss and its optimizer's bytes.

    lr rises over the first eighth and falls as a cosine to a tenth. Batches and weights come from the seed alone, so
    that methods are compared on the same ones; `rank` factorises the inner matrices.
    """
    end = trained(build, seed, steps=steps, batch=batch, rank=rank)
    return Evidence(round(end.loss, 4), UNIT, state_bytes(end.optimizer))


def trained(
    build: Callable[[nn.Module], Any],
    seed: int,
    *,
    steps: int = 300,
    batch: int = 16,
    rank: int | None = None,
    limit: float | None = None,
) -> Trained:
    """As `train`, with the model and the optimizer. A training loss above `limit`, or none at all, ends the run."""
    text, threads = read(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Transformer(text.characters, rank=rank)
        optimizer = build(model)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, steps))
        random = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            if not advance(model, optimizer, *windows(text.train, model.T, batch, random), limit=limit):
                return Trained(math.nan, model, optimizer)
            schedule.step()
        with torch.no_grad():
            held_out = _loss(model, *windows(text.valid, model.T, 256, torch.Generator().manual_seed(0)))
    finally:
        torch.set_num_threads(threads)
    return Trained(float(held_out), model, optimizer)


def advance(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor, *, limit: float | None = None) -> bool:
    """One step of training, forward passes alone where the optimizer asks for no more; False when the loss is off limits."""
    if getattr(optimizer, "zeroth_order", False):
        return _within(optimizer.step(lambda: _loss(model, x, y)), limit)
    optimizer.zero_grad()
    loss = _loss(model, x, y)
    if not _within(loss.detach(), limit):
        return False
    torch.autograd.backward(loss)
    optimizer.step()
    return True


def parts(end: Trained, *, batch: int = 16) -> dict[str, int]:
    """Bytes that one more step of training holds, by what they are for; see peak.py. The step is taken."""
    text = read()
    x, y = windows(text.train, end.model.T, batch, torch.Generator().manual_seed(0))
    model, optimizer = end.model, end.optimizer
    saved = peak.saved_for_backward(
        lambda: advance(model, optimizer, x, y), besides=[x, y, *model.parameters(), *model.buffers()]
    )
    return {
        "weights": peak.weights(model),
        "gradients": peak.gradients(model),
        "state": state_bytes(optimizer),
        "saved": saved,
    }


def state_bytes(optimizer: Any) -> int:
    """What the state tensors of an optimizer hold."""
    return peak.storage_bytes(
        part for state in optimizer.state.values() for part in state.values() if isinstance(part, Tensor)
    )


def cosine(step: int, steps: int) -> float:
    """The share of lr at a step: up over the first eighth, then down as a cosine to a tenth."""
    warm = steps / 8
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def windows(codes: Tensor, T: int, B: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch (B, T) of codes, and the (B, T) that follow them by one."""
    starts = torch.randint(len(codes) - T - 1, (B, 1), generator=random)
    rows = codes[starts + torch.arange(T + 1)]
    return rows[:, :-1], rows[:, 1:]


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())


def _within(loss: Any, limit: float | None) -> bool:
    return limit is None or float(loss) <= limit  # NaN is not

"""What claims about mixers share: a model learns from texts that are drawn anew for every step, and is then asked.

`learn` is the one loop: Adam, a rate that rises and falls, gradients clipped to norm 1. What it teaches is a mixer `between` two
linear maps; `layered` is a mixer that is made of some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.tasks.copying import Normed
from loci.lab.tasks.mqar import NOTHING
from loci.state.layers import Layers
from loci.state.mixer import Mixer, state_bytes

Draw: TypeAlias = Callable[[int], tuple[Tensor, Tensor]]  # how many rows -> what is shown and what is due
Loss: TypeAlias = Callable[[Any, Tensor], Tensor]  # of what a model says and what is due
Parts: TypeAlias = Sequence[tuple[str, Mapping[str, Any]]]  # entries of mixers and their arguments beside D


class Lesson(NamedTuple):
    """How long, how fast and from how many rows at once."""

    steps: int
    lr: float
    batch: int = 64


class Between(nn.Module):
    """One mixer between two linear maps, (B, T, inputs) -> (B, T, outputs), with nothing beside it."""

    def __init__(self, mixer: Mixer, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inward, self.mixer, self.outward = nn.Linear(inputs, mixer.D), mixer, nn.Linear(mixer.D, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """What is said at every moment."""
        said: Tensor = self.outward(self.mixer(self.inward(x))[0])
        return said

    def kept(self) -> int:
        """Bytes of the state of one row."""
        return state_bytes(self.mixer.initial_state(1))


def between(entry: str, seed: int, *, D: int, options: Mapping[str, Any], inputs: int, outputs: int) -> Between:
    """A mixer by its entry and the maps around it, all drawn from the seed and from no global state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Between(load(entry)(D, **options), inputs, outputs)


def learn(model: nn.Module, draw: Draw, loss: Loss, lesson: Lesson) -> None:
    """Teach a model for so many steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lesson.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lesson.lr, total_steps=lesson.steps)
    for _ in range(lesson.steps):
        shown, due = draw(lesson.batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss(model(shown), due))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def surprise(logits: Tensor, due: Tensor) -> Tensor:
    """Cross entropy of logits (B, T, V) where something is due (B, T).

    >>> float(surprise(torch.zeros(1, 2, 2), torch.tensor([[0, NOTHING]])).exp())
    2.0
    """
    return functional.cross_entropy(logits.transpose(1, 2), due, ignore_index=NOTHING)


def right(logits: Tensor, due: Tensor) -> float:
    """Percent of what is due that is said.

    >>> right(torch.tensor([[[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[1, 1, NOTHING]]))
    50.0
    """
    asked = due != NOTHING
    return round(100 * float((logits.argmax(-1) == due)[asked].double().mean()), 2)


def layered(D: int, *, parts: Parts) -> Layers:
    """These mixers one above the other, each behind a norm and inside a residual connection; the first hears the input.

    >>> layers = layered(4, parts=[("loci.state.gru:GRU", {"n": 3}), ("loci.state.elman:Elman", {"n": 5})])
    >>> [tuple(part.shape) for part in layers.initial_state(1)]
    [(1, 3), (1, 5)]
    """
    return Layers([Normed(load(entry)(D, **options)) for entry, options in parts])

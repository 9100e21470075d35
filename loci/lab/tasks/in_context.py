"""Learning in context: pairs (x, y) of a task one after another; which label has the next x? Nothing is trained by then.

    task:      x' = A x,   y' = rho(y)         A with entries N(0, 1/N_x), rho a permutation of the labels, both from the task's id
    token t:   [x'_t, onehot(y'_{t-1})],       zeros for the label before the first;    asked: y'_t

A model that is trained over few tasks can remember them: it is good from the first pair on and does not improve. Over many it
has to learn from the pairs, and then it also does so on tasks that it never saw. So what counts is the improvement within a
sequence, on tasks and on base sets that were not trained on. A task is its id: 8 bytes, the rest is drawn again.

Kirsch, Harrison, Sohl-Dickstein, Metz, "General-Purpose In-Context Learning by Meta-Learning Transformers", arXiv:2212.04458.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from loci.core.card import load

UNSEEN = 1 << 40  # ids from here on are never trained on
Regime = Literal["memorisation", "identification", "general", "none"]


@dataclass(frozen=True, slots=True)
class Base:
    """A labelled set that tasks are made of: x (M, N_x), each feature with mean 0 and variance 1, and y (M,)."""

    x: Tensor
    y: Tensor
    classes: int


@dataclass(frozen=True, slots=True)
class Task:
    """A projection A (N_x, N_x) of the inputs and a permutation rho (classes,) of the labels."""

    A: Tensor
    rho: Tensor

    def apply(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What the task makes of inputs (..., N_x) and labels (...)."""
        return x @ self.A.T, self.rho[y]

    def undo(self, labels: Tensor) -> Tensor:
        """The labels of the base set that the task's labels stand for."""
        return self.rho.argsort()[labels]


def standardised(x: Tensor, y: Tensor) -> Base:
    """A base set of raw features; one that never varies becomes 0."""
    spread = x.std(0, unbiased=False)
    return Base((x - x.mean(0)) / torch.where(spread > 0, spread, 1.0), y, int(y.max()) + 1)


def prototypes(seed: int, *, classes: int = 10, features: int = 16, each: int = 50, noise: float = 0.5) -> Base:
    """A synthetic base set: one normal prototype a class, and `each` examples around it."""
    random = torch.Generator().manual_seed(seed)
    centre = torch.randn(classes, features, generator=random)
    y = torch.arange(classes).repeat_interleave(each)
    return standardised(centre[y] + noise * torch.randn(len(y), features, generator=random), y)


def rings(seed: int, *, classes: int = 10, features: int = 16, each: int = 50, noise: float = 0.1) -> Base:
    """Another base set, of another shape: two moons a class, in a plane of its own; not linearly separable from its middle."""
    random = torch.Generator().manual_seed(seed)
    planes = torch.randn(classes, 2, features, generator=random) / math.sqrt(2)
    centre = torch.randn(classes, features, generator=random)
    y = torch.arange(classes).repeat_interleave(each)
    angle = math.pi * torch.rand(len(y), generator=random)
    side = 2.0 * torch.randint(0, 2, (len(y),), generator=random) - 1
    moon = torch.stack([angle.cos() + side / 2, side * (angle.sin() - 0.25)], -1)
    x = centre[y] + (moon.unsqueeze(1) @ planes[y]).squeeze(1)
    return standardised(x + noise * torch.randn(x.shape, generator=random), y)


def digits() -> Base:
    """A real base set: 1,797 handwritten digits of 8 by 8 pixels, which come with scikit-learn."""
    x, y = load("sklearn.datasets:load_digits")(return_X_y=True)
    return standardised(torch.from_numpy(x).float(), torch.from_numpy(y).long())


def task(number: int, base: Base, *, projected: bool = True, permuted: bool = True, ways: int | None = None) -> Task:
    """The task of an id over a base set; without projection A is the identity, without permutation so is rho.

    With `ways`, rho is that of one of the first so many ids: tasks then have so many permutations between them, at most.
    """
    random = np.random.default_rng(number)  # torch's generator takes 32 bits of a seed: its tasks repeat after 2^32
    N_x = base.x.shape[1]
    A = torch.from_numpy(random.standard_normal((N_x, N_x), dtype=np.float32) / np.float32(math.sqrt(N_x)))
    rho = torch.from_numpy(random.permutation(base.classes))
    if ways is not None and number >= ways:
        rho = task(number % ways, base).rho
    return Task(A if projected else torch.eye(N_x), rho if permuted else torch.arange(base.classes))


def pairs(
    base: Base,
    numbers: Sequence[int],
    length: int,
    random: torch.Generator,
    *,
    bias: float = 0.0,
    ways: int | None = None,
) -> tuple[Tensor, Tensor]:
    """One sequence for each id: inputs (B, T, N_x) and labels (B, T), examples of the base set without replacement.

    With probability `bias` a sequence keeps the labels of the base set: one fixed permutation, which is easier to begin with.
    With `ways`, those that do not have so many permutations between them, at most.
    """
    if length > len(base.y):
        raise ValueError(f"length={length} is more than the base set's {len(base.y)} examples; choose a shorter one")
    keep = torch.rand(len(numbers), generator=random) < bias
    rows = torch.rand(len(numbers), len(base.y), generator=random).topk(length, 1).indices
    tasks = [
        task(number, base, permuted=not kept, ways=ways) for number, kept in zip(numbers, keep.tolist(), strict=True)
    ]
    made = [one.apply(base.x[row], base.y[row]) for one, row in zip(tasks, rows, strict=True)]
    return torch.stack([x for x, _ in made]), torch.stack([y for _, y in made])


def tokens(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """(B, T, N_x) and (B, T) -> (B, T, N_x + classes): each input beside the label of the one before it.

    >>> tokens(torch.tensor([[[0.5], [0.7]]]), torch.tensor([[1, 0]]), 2).tolist()
    [[[0.5, 0.0, 0.0], [0.699999988079071, 0.0, 1.0]]]
    """
    told = functional.one_hot(y, classes).to(x.dtype)
    return torch.cat([x, functional.pad(told[:, :-1], (0, 0, 1, 0))], -1)


def improvement(by_position: Tensor, *, last: int = 5) -> float:
    """What accuracy (T,) gains within a sequence: the mean of the last positions less the first."""
    return float(by_position[-last:].mean() - by_position[0])


def regime(seen: Tensor, unseen: Tensor, *, chance: float, margin: float = 0.1) -> Regime:
    """What was learned, from accuracy by position on tasks trained on and on others.

    general: improves in context on unseen tasks; identification: on seen ones only; memorisation: good on seen tasks without
    improving; none: nothing of it by the margin.
    """
    if improvement(unseen) >= margin:
        return "general"
    if improvement(seen) >= margin:
        return "identification"
    return "memorisation" if float(seen.mean()) >= chance + margin else "none"


def nearest(x: Tensor, y: Tensor, classes: int, *, k: int = 1) -> Tensor:
    """Baseline: the commonest label among the k nearest of the pairs before, (B, T, N_x) and (B, T) -> (B, T).

    Of labels equally common the smallest; with fewer than k pairs all of them; the first has nothing to go by and is 0.
    """
    T = y.shape[1]
    told = functional.one_hot(y, classes)
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    said = torch.zeros_like(y)
    for t in range(1, T):
        near = distance[:, t, :t].topk(min(k, t), largest=False).indices
        votes = told.gather(1, near.unsqueeze(-1).expand(-1, -1, classes)).sum(1)
        said[:, t] = votes.argmax(-1)
    return said


def descended(x: Tensor, y: Tensor, classes: int, *, lr: float = 0.1) -> Tensor:
    """Baseline: softmax regression that answers, is told, and takes one step of SGD, pair by pair; (B, T)."""
    W = x.new_zeros(len(x), classes, x.shape[2] + 1)
    told = functional.one_hot(y, classes).to(x.dtype)
    said = []
    for now, truth in zip(functional.pad(x, (0, 1), value=1.0).unbind(1), told.unbind(1), strict=True):
        logits = (W @ now.unsqueeze(-1)).squeeze(-1)
        said.append(logits.argmax(-1))
        W = W - lr * (logits.softmax(-1) - truth).unsqueeze(-1) * now.unsqueeze(-2)
    return torch.stack(said, 1)

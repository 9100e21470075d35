"""Meta-training: one model over many tasks, so that it learns new ones from their pairs alone; see in_context.py.

token -> linear -> L x [x + mixer(norm(x));  x + MLP(norm(x))] -> norm -> linear -> logits of the label
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence
from loci.lab.tasks.in_context import UNSEEN, Base, Regime, improvement, pairs, prototypes, regime, tokens
from loci.state.mixer import Mixer, state_bytes


class Block(nn.Module):
    """One mixer and an MLP, each beside a residual connection and after a norm."""

    def __init__(self, mixer: Mixer) -> None:
        super().__init__()
        D = mixer.D
        self.mixer = mixer
        self.norm_in, self.norm_mid = nn.LayerNorm(D), nn.LayerNorm(D)
        self.mlp = nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.mixer(self.norm_in(x))[0]
        return x + self.mlp(self.norm_mid(x))  # type: ignore[no-any-return]


class Learner(nn.Module):
    """A black box that is to become a learning algorithm: tokens (B, T, N_x + classes) -> logits (B, T, classes)."""

    def __init__(self, features: int, classes: int, *, D: int, layers: int, mixer: Callable[[int], Mixer]) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = nn.Linear(features + classes, D)
        self.blocks = nn.Sequential(*(Block(mixer(D)) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, classes)

    def forward(self, told: Tensor) -> Tensor:
        """What label comes with each input, given the pairs before it."""
        return self.head(self.norm(self.blocks(self.embedding(told))))  # type: ignore[no-any-return]

    def state_bytes(self) -> int:
        """What one sequence keeps from one token to the next."""
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        return sum(state_bytes(block.mixer.initial_state(1)) for block in blocks)


@dataclass(frozen=True, slots=True)
class Course:
    """How to meta-train: on `tasks` ids (0 to tasks - 1), in batches of sequences.

    What helps off the plateau: a `bias` as in `pairs`, a larger batch, an `eps` of Adam as small as 1e-10.
    """

    tasks: int
    steps: int
    batch: int = 64
    length: int = 20
    lr: float = 1e-3
    bias: float = 0.0
    eps: float = 1e-8


def meta_train(learner: Learner, base: Base, course: Course, random: torch.Generator) -> list[float]:
    """Train at all positions of the sequences; the loss at every step."""
    optimizer = torch.optim.Adam(learner.parameters(), course.lr, eps=course.eps)
    losses = []
    for _ in range(course.steps):
        numbers = torch.randint(course.tasks, (course.batch,), generator=random).tolist()
        x, y = pairs(base, numbers, course.length, random, bias=course.bias)
        loss = functional.cross_entropy(learner(tokens(x, y, base.classes)).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def by_position(
    learner: Learner,
    base: Base,
    random: torch.Generator,
    *,
    length: int = 20,
    tasks: int | None = None,
    count: int = 512,
) -> Tensor:
    """Accuracy (T,) at each position: on `count` unseen tasks, or on the `tasks` ids that were trained on."""
    if tasks is None:
        numbers = [UNSEEN + k for k in range(count)]
    else:
        numbers = torch.randint(tasks, (count,), generator=random).tolist()
    x, y = pairs(base, numbers, length, random)
    right: Tensor = learner(tokens(x, y, base.classes)).argmax(-1) == y
    return right.float().mean(0)


def sweep(
    make: Callable[[], Learner], base: Base, course: Course, counts: Sequence[int], *, seed: int
) -> dict[int, Regime]:
    """What is learned from each number of tasks, all else alike: where remembering turns into learning to learn."""
    found: dict[int, Regime] = {}
    for count in counts:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            learner = make()
        random = torch.Generator().manual_seed(seed)
        meta_train(learner, base, replace(course, tasks=count), random)
        seen, unseen = (
            by_position(learner, base, random, length=course.length, tasks=trained) for trained in (count, None)
        )
        found[count] = regime(seen, unseen, chance=1 / base.classes)
    return found


def improved(
    entry: str, seed: int, *, D: int, options: dict[str, Any], course: Course, layers: int = 1, **shape: Any
) -> Evidence:
    """Points of accuracy that a meta-trained mixer gains within a sequence, on unseen tasks of the base set.

    `shape` goes to `prototypes`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        base, random = prototypes(seed, **shape), torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            learner = Learner(
                base.x.shape[1], base.classes, D=D, layers=layers, mixer=lambda width: load(entry)(width, **options)
            )
        meta_train(learner, base, course, random)
        gained = improvement(by_position(learner, base, random, length=course.length))
        return Evidence(round(100 * gained, 2), "points gained in context", learner.state_bytes())
    finally:
        torch.set_num_threads(threads)

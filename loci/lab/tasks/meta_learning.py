"""Meta-training: one model over many tasks, so that it learns new ones from their pairs alone; see in_context.py.

    token -> linear -> L x [x + mixer(norm(x));  x + MLP(norm(x))] -> norm -> linear -> logits of the label

With `attending` for a mixer that is a transformer, whose state is 2 * L * t * D numbers after t tokens; an LSTM of n cells
keeps 2 * n a layer and an outer-product LSTM n + n^2. `protocol` trains the arms that `arms` names, all else alike, and says
of each in which regime it ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence
from loci.lab.tasks.in_context import (
    UNSEEN,
    Base,
    Regime,
    descended,
    improvement,
    nearest,
    pairs,
    prototypes,
    regime,
    tokens,
)
from loci.lab.tasks.plateau import plateau, ways
from loci.state.attention import Attention
from loci.state.lstm import LSTM
from loci.state.mixer import Mixer, state_bytes
from loci.state.outer_product_lstm import OuterProductLSTM


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

    What helps off the plateau: a `bias` as in `pairs`, few label permutations that become all by step `widening`, a larger
    batch, an `eps` of Adam as small as 1e-10.
    """

    tasks: int
    steps: int
    batch: int = 64
    length: int = 20
    lr: float = 1e-3
    bias: float = 0.0
    eps: float = 1e-8
    widening: int = 0


def training(
    learner: Learner, base: Base, course: Course, random: torch.Generator, *, others: Sequence[Base] = ()
) -> Iterator[float]:
    """Train at all positions of the sequences, step by step; the loss of each. `others` take turns with the base set."""
    optimizer = torch.optim.Adam(learner.parameters(), course.lr, eps=course.eps)
    for step, turn in zip(range(course.steps), itertools.cycle((base, *others)), strict=False):
        numbers = torch.randint(course.tasks, (course.batch,), generator=random).tolist()
        open_ways = ways(step, course.widening, turn.classes)
        x, y = pairs(turn, numbers, course.length, random, bias=course.bias, ways=open_ways)
        loss = functional.cross_entropy(learner(tokens(x, y, turn.classes)).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        yield float(loss.detach())


def meta_train(
    learner: Learner, base: Base, course: Course, random: torch.Generator, *, others: Sequence[Base] = ()
) -> list[float]:
    """Train to the end of the course; the loss at every step."""
    return list(training(learner, base, course, random, others=others))


def watched(learner: Learner, base: Base, course: Course, random: torch.Generator, *, every: int = 25) -> list[float]:
    """Train, and after every so many steps take the loss on the same 256 unseen tasks, neither biased nor narrowed."""
    x, y = pairs(base, [UNSEEN + k for k in range(256)], course.length, random)
    told, seen = tokens(x, y, base.classes), []
    for step, _ in enumerate(training(learner, base, course, random), start=1):
        if step % every == 0:
            with torch.no_grad():
                seen.append(float(functional.cross_entropy(learner(told).flatten(0, 1), y.flatten())))
    return seen


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


def baselines(base: Base, length: int, random: torch.Generator, *, count: int = 512) -> dict[str, float]:
    """What is gained within sequences of `count` unseen tasks by learners that were not learned; guessing gains nothing."""
    x, y = pairs(base, [UNSEEN + k for k in range(count)], length, random)
    said = {"nearest neighbour": nearest(x, y, base.classes), "descent": descended(x, y, base.classes)}
    return {name: improvement((labels == y).float().mean(0)) for name, labels in said.items()}


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


@dataclass(frozen=True, slots=True)
class Arm:
    """What to meta-train, made for so many features and classes, and how."""

    make: Callable[[int, int], Learner]
    course: Course


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of an arm. Accuracies are of the last five pairs of a sequence; gains are those less that of the first."""

    regime: Regime
    seen: float  # accuracy on tasks trained on
    unseen: float  # on other tasks of the same base set
    gained: float  # on those
    elsewhere: float  # gained on tasks of a base set that was not trained on
    left: int  # steps until the loss on unseen tasks left the plateau; until the last look if it never did
    parameters: int
    bytes: int  # of the state of a sequence


def attending(length: int, *, heads: int = 4) -> Callable[[int], Mixer]:
    """Makes attention that reaches back over sequences of a length, whole."""
    return lambda D: Attention(D, heads, window=length)


def matched(make: Callable[[int, int], Mixer], D: int, weights: int) -> int:
    """The smallest n for which the mixer make(D, n) has at least so many weights.

    >>> matched(LSTM, 4, 4 * 3 * (4 + 3 + 1) + 4 * 4)
    3
    """
    with torch.device("meta"):  # shapes alone: nothing is drawn
        return next(n for n in itertools.count(1) if sum(w.numel() for w in make(D, n).parameters()) >= weights)


def arms(
    course: Course, *, counts: Sequence[int] = (4, 64, 1 << 14), D: int = 64, layers: int = 2, heads: int = 4
) -> dict[str, Arm]:
    """Transformers over each number of tasks; over the most also a biased one, and LSTMs of no fewer weights."""

    def over(mixer: Callable[[int], Mixer]) -> Callable[[int, int], Learner]:
        return partial(Learner, D=D, layers=layers, mixer=mixer)

    def as_large(kind: Callable[[int, int], Mixer]) -> Callable[[int, int], Learner]:
        n = matched(kind, D, weights)
        return over(lambda width: kind(width, n))

    attention = attending(course.length, heads=heads)
    weights = sum(weight.numel() for weight in attention(D).parameters())
    transformer, most = over(attention), replace(course, tasks=max(counts))
    return {
        **{f"transformer, {count} tasks": Arm(transformer, replace(course, tasks=count)) for count in counts},
        "transformer, biased": Arm(transformer, replace(most, bias=0.9)),
        "LSTM": Arm(as_large(LSTM), most),
        "outer-product LSTM": Arm(as_large(OuterProductLSTM), most),
    }


def protocol(base: Base, other: Base, chosen: Mapping[str, Arm], *, seed: int, every: int = 25) -> dict[str, Figures]:
    """Meta-train each arm on a base set and measure it there and on another set of as many features and classes.

    On `prototypes` of 4 classes of 8 features, against `rings`, with D=32, 600 steps of 0.003 and seed 100 (20 s an arm): 4
    tasks are remembered (100 % right on them, 25 % on others, -3 points gained), 64 identified (100 %, 24 %), of 16,384 comes
    a learner (93 % and 92 %, 70 points gained, 61 elsewhere), which leaves its plateau at step 400, with the bias at 250; the
    LSTM gains 48, the outer-product LSTM 66 and the nearest neighbour 72.
    """
    features, classes = base.x.shape[1], base.classes
    if (other.x.shape[1], other.classes) != (features, classes):
        raise ValueError(
            f"other has {other.x.shape[1]} features and {other.classes} classes, base {features} and {classes}; "
            "choose sets of the same sizes"
        )
    found = {}
    for name, arm in chosen.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            learner = arm.make(features, classes)
        found[name] = measured(learner, base, other, arm.course, torch.Generator().manual_seed(seed), every=every)
    return found


def measured(
    learner: Learner, base: Base, other: Base, course: Course, random: torch.Generator, *, every: int = 25
) -> Figures:
    """Meta-train a learner and say what became of it."""
    losses = watched(learner, base, course, random, every=every)
    ask = partial(by_position, learner, random=random, length=course.length)
    seen, unseen = ask(base, tasks=course.tasks), ask(base)
    return Figures(
        regime(seen, unseen, chance=1 / base.classes),
        seen=float(seen[-5:].mean()),
        unseen=float(unseen[-5:].mean()),
        gained=improvement(unseen),
        elsewhere=improvement(ask(other)),
        left=every * plateau(losses, base.classes, window=1),
        parameters=sum(weight.numel() for weight in learner.parameters()),
        bytes=learner.state_bytes(),
    )


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

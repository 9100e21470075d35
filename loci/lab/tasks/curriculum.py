"""Learning longer and longer memories by curriculum, and what tells slow units from slow networks afterwards.

A curriculum is which N of a question about bits are trained at first, and which after these are known: at more than 98 % of
answers right on average, and for the newest N. One loop trains them all, on the sum of the cross-entropies of their heads:
SGD, learning rate 0.05, Nesterov momentum 0.1, gradients clipped to norm 2.

    single          2, then 3, then 4 ...                  multi           2, then 2 3, then 2 3 4 ...
    sliding         the newest w of these                  fixed           one N from the start on

Paper: arXiv:2309.12927, with its published code. Differs: every N has a head of its own under each curriculum. There the
single-head network answers every N by one head, so that a part of its forgetting is that of the head alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence
from loci.lab.tasks.bits import MATCH, PARITY, Question, stream
from loci.state.autocorrelation import NetworkTimescale
from loci.state.mixer import state_bytes
from loci.state.recurrent import Recurrent
from loci.state.timescales import Timescales

FIRST = 2  # the smallest N
KNOWN = 0.98  # of answers right


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Which N are trained at first, and which after those are known; the same again means that there is no more to learn."""

    first: tuple[int, ...]
    after: Callable[[tuple[int, ...]], tuple[int, ...]]


QUESTIONS = {"parity": PARITY, "dms": MATCH}
SINGLE = Curriculum((FIRST,), lambda Ns: (Ns[-1] + 1,))
MULTI = Curriculum((FIRST,), lambda Ns: (*Ns, Ns[-1] + 1))

CURRICULA = {"single": SINGLE, "multi": MULTI}


def sliding(width: int) -> Curriculum:
    """The newest `width` of all N: the oldest is dropped when one is added."""
    if width < 1:
        raise ValueError(f"width={width} is no window; choose at least 1")
    return Curriculum(tuple(range(FIRST, FIRST + width)), lambda Ns: (*Ns[1:], Ns[-1] + 1))


def fixed(N: int) -> Curriculum:
    """One N from the start on: no curriculum."""
    return Curriculum((N,), lambda Ns: Ns)


class Network(nn.Module):
    """A recurrent cell that reads bits, and two logits for each N, read from its units after the last bit."""

    def __init__(self, cell: Recurrent, *, largest: int = 40) -> None:
        super().__init__()
        if cell.D != 1:
            raise ValueError(f"the cell reads rows of width {cell.D}, bits have width 1; give a cell with D=1")
        self.cell = cell
        self.heads = nn.ModuleList(nn.Linear(cell.n, 2) for _ in range(FIRST, largest + 1))

    def head(self, N: int) -> nn.Linear:
        """What answers for N."""
        if not FIRST <= N < FIRST + len(self.heads):
            raise ValueError(f"N={N} has no head; choose {FIRST} <= N <= {FIRST + len(self.heads) - 1}")
        found = self.heads[N - FIRST]
        assert isinstance(found, nn.Linear)
        return found

    def forward(self, bits: Tensor, Ns: Sequence[int], *, random: torch.Generator | None = None) -> Tensor:
        """Logits (len(Ns), B, 2); a cell with random initial states takes one of the generator, if there is one."""
        start = None
        if random is not None and isinstance(self.cell, Timescales):
            start = self.cell.random_state(len(bits), random=random)
        x = bits.to(self.cell.readout.weight.dtype).unsqueeze(-1)
        units = self.cell(x, start)[1][0]
        return torch.stack([self.head(N)(units) for N in Ns])


@dataclass(frozen=True, slots=True)
class Milestone:
    """A network when it knew all of the N that it was trained on."""

    N: int  # the newest
    step: int
    taus: Tensor  # (n,); empty for cells without
    weights: dict[str, Tensor]


@dataclass(slots=True)
class History:
    """What was reached."""

    milestones: list[Milestone] = field(default_factory=list)
    steps: int = 0

    @property
    def reached(self) -> int:
        """The largest N that was known while it was trained, 1 for none."""
        return max((milestone.N for milestone in self.milestones), default=FIRST - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How it is trained; the numbers are the authors'."""

    batch: int = 256
    epoch: int = 600  # steps from one test to the next
    tests: int = 50  # batches
    rate: float = 0.05
    momentum: float = 0.1
    clip: float = 2.0


def train(
    network: Network,
    question: Question,
    *,
    curriculum: Curriculum,
    steps: int,
    random: torch.Generator,
    recipe: Recipe | None = None,
) -> History:
    """Train for so many optimiser steps, or until there is no more to learn.

    Frozen parameters stay as they are: with `network.cell.requires_grad_(False)` only new heads are learned.
    """
    recipe = recipe or Recipe()
    free = [param for param in network.parameters() if param.requires_grad]
    optimizer = torch.optim.SGD(free, lr=recipe.rate, momentum=recipe.momentum, nesterov=True)
    Ns, history = curriculum.first, History()
    batches = stream(question, recipe.batch, Ns=Ns, random=random)
    for step in range(1, steps + 1):
        bits, answers = next(batches)
        optimizer.zero_grad()
        torch.autograd.backward(loss(network(bits, Ns, random=random), answers))
        nn.utils.clip_grad_norm_(free, recipe.clip)
        optimizer.step()
        history.steps = step
        if step % recipe.epoch:
            continue
        right = accuracy(network, question, Ns=Ns, random=random, batch=recipe.batch, batches=recipe.tests)
        if right.mean() > KNOWN and right[-1] > KNOWN:
            history.milestones.append(_milestone(network, Ns[-1], step))
            following = curriculum.after(Ns)
            if following == Ns or following[-1] >= FIRST + len(network.heads):
                break
            Ns = following
            batches = stream(question, recipe.batch, Ns=Ns, random=random)
    return history


def loss(logits: Tensor, answers: Tensor) -> Tensor:
    """The sum over heads of their mean cross-entropies: logits (heads, B, 2), answers (heads, B)."""
    return functional.cross_entropy(logits.flatten(0, 1), answers.flatten()) * len(logits)


@torch.no_grad()
def accuracy(
    network: Network,
    question: Question,
    *,
    Ns: Sequence[int],
    random: torch.Generator,
    batch: int = 256,
    batches: int = 8,
) -> Tensor:
    """The share of right answers for each N (len(Ns),), on new sequences long enough for the largest."""
    source = stream(question, batch, Ns=tuple(Ns), random=random)
    right = torch.zeros(len(Ns))
    for _ in range(batches):
        bits, answers = next(source)
        right += (network(bits, Ns, random=random).argmax(-1) == answers).float().mean(1)
    return right / batches


def retention(network: Network, question: Question, *, reached: int, random: torch.Generator) -> float:
    """The mean accuracy for every N before the last that was reached."""
    if reached <= FIRST:
        raise ValueError(f"reached={reached} has nothing before it to retain; train until N={FIRST + 1} at least")
    return float(accuracy(network, question, Ns=range(FIRST, reached), random=random).mean())


def known(network: Network, question: Question, *, reached: int, random: torch.Generator) -> int:
    """How many of the N from 2 to the largest reached are answered above 98 % right by the network as it is."""
    if reached < FIRST:
        return 0
    return int((accuracy(network, question, Ns=range(FIRST, reached + 1), random=random) > KNOWN).sum())


def slowest(network: Network, count: int) -> list[int]:
    """The units of the longest time constants, longest first; the last of `slowest(network, n)` are the fastest."""
    return _leaky(network).timescales().argsort(descending=True)[:count].tolist()


@torch.no_grad()
def ablated(network: Network, units: Sequence[int]) -> Network:
    """A copy in which these units neither hear nor are heard: their rows and columns of all weights are zero."""
    made, chosen = copy.deepcopy(network), list(units)
    if bad := [unit for unit in chosen if not 0 <= unit < made.cell.n]:
        raise ValueError(f"units={bad} are none of {made.cell.n}; choose from 0 to {made.cell.n - 1}")
    rows = [unit + gate * made.cell.n for unit in chosen for gate in range(made.cell.gates)]
    made.cell.recurrent.weight[rows] = 0
    made.cell.recurrent.weight[:, chosen] = 0
    made.cell.inward.weight[rows] = 0
    for head in made.heads:
        assert isinstance(head, nn.Linear)
        head.weight[:, chosen] = 0
    return made


@torch.no_grad()
def perturbed(network: Network, size: float, *, random: torch.Generator) -> Network:
    """A copy whose W is moved in a random direction, by `size` times its own norm."""
    made = copy.deepcopy(network)
    W = made.cell.recurrent.weight
    direction = torch.randn(W.shape, generator=random).to(W)
    W.add_(direction, alpha=size * float(W.norm() / direction.norm()))
    return made


@torch.no_grad()
def slowed(network: Network, size: float, *, random: torch.Generator) -> Network:
    """A copy whose time constants are longer, in a random direction, by `size` times their norm."""
    made = copy.deepcopy(network)
    tau = _leaky(made).tau
    direction = torch.randn(tau.shape, generator=random).abs().to(tau)
    tau.add_(direction, alpha=size * float(tau.norm() / direction.norm()))
    return made


@torch.no_grad()
def held(network: Network, tau: float) -> Network:
    """The network with all time constants at one value, and not trained; at 1 it is a plain recurrent network."""
    taus = _leaky(network).tau
    taus.fill_(tau)
    taus.requires_grad = False
    return network


def network_timescale(network: Network, *, random: torch.Generator, T: int = 2000, trials: int = 10) -> float:
    """The mean timescale of the units, driven by fair bits."""
    bits = torch.randint(0, 2, (T, trials, 1), generator=random).to(network.cell.readout.weight.dtype)
    meter = NetworkTimescale(burn=min(200, T // 4))
    return meter.read(network.cell.step, bits, network.cell.initial_state(trials)).value


def at(network: Network, milestone: Milestone) -> Network:
    """A copy with the weights of that milestone."""
    made = copy.deepcopy(network)
    made.load_state_dict(milestone.weights)
    return made


def started(cell: Callable[..., Any], seed: int, *, n: int, largest: int = 40) -> Network:
    """A network of n units, drawn from the seed; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(cell(1, n), largest=largest)


@torch.no_grad()
def rewired(network: Network, *, random: torch.Generator) -> Network:
    """A copy in which the connections between different units are shuffled: as strong as they were, in no order."""
    made = copy.deepcopy(network)
    W = made.cell.recurrent.weight
    between = ~torch.eye(len(W), dtype=torch.bool)
    W[between] = W[between][torch.randperm(int(between.sum()), generator=random)]
    return made


def learned(
    entry: str, seed: int, *, task: str, curriculum: str, n: int, steps: int
) -> tuple[Network, History, torch.Generator]:
    """A network of n units of the cell, trained at a laboratory's size: batches of 128, a test every 100 steps."""
    random = torch.Generator().manual_seed(seed)
    network = started(load(entry), seed, n=n)
    recipe = Recipe(batch=128, epoch=100, tests=10)
    history = train(
        network, QUESTIONS[task], curriculum=CURRICULA[curriculum], steps=steps, random=random, recipe=recipe
    )
    return network, history, random


def knows(entry: str, seed: int, *, task: str, curriculum: str, n: int, steps: int) -> Evidence:
    """For how many N the network knows the answer at the end, each read by the head that was trained for it."""
    network, history, random = learned(entry, seed, task=task, curriculum=curriculum, n=n, steps=steps)
    count = known(network, QUESTIONS[task], reached=history.reached, random=random)
    return Evidence(count, "tasks known at the end", state_bytes(network.cell.initial_state(1)))


def slows(entry: str, seed: int, *, task: str, curriculum: str, n: int, steps: int) -> Evidence:
    """The mean time constant of the units when the largest N was known."""
    network, history, _ = learned(entry, seed, task=task, curriculum=curriculum, n=n, steps=steps)
    if not history.milestones:
        raise ValueError(f"no N was learned in {steps} steps, so there is nothing to compare; give more steps")
    tau = round(float(history.milestones[-1].taus.mean()), 3)
    return Evidence(tau, "steps, mean time constant of units", state_bytes(network.cell.initial_state(1)))


def lengthens(entry: str, seed: int, *, task: str, n: int, steps: int, shuffle: bool) -> Evidence:
    """Spearman's correlation of N with the timescale of the multi-head network that knew it, or of that one rewired."""
    network, history, random = learned(entry, seed, task=task, curriculum="multi", n=n, steps=steps)
    read = []
    for milestone in history.milestones:
        then = at(network, milestone)
        read.append(network_timescale(rewired(then, random=random) if shuffle else then, random=random))
    ranks = torch.tensor(read).argsort().argsort().double()
    value = float(torch.corrcoef(torch.stack([torch.arange(len(read)).double(), ranks]))[0, 1])
    return Evidence(round(value, 3), "rank correlation of timescale and N", state_bytes(network.cell.initial_state(1)))


def _leaky(network: Network) -> Timescales:
    if not isinstance(network.cell, Timescales):
        raise TypeError(
            f"{type(network.cell).__name__} has no time constants of units; give a cell of emergent timescales"
        )
    return network.cell


def _milestone(network: Network, N: int, step: int) -> Milestone:
    taus = network.cell.timescales().detach() if isinstance(network.cell, Timescales) else torch.empty(0)
    return Milestone(N, step, taus, {name: part.clone() for name, part in network.state_dict().items()})

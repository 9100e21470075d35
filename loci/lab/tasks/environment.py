"""The contract: worlds that are seen in part and never end; where an episode is over, the next one begins.

    moment = environment.reset(B, seed=0)     the first: observation (B, D), reward (B,), begun (B,)
    moment = environment.step(action)         the next one, after actions (B,) below `environment.actions`

`begun` tells at which moments an episode begins; it is the `reset` of mixers. `reward` is for the action just taken, so that
where `begun` holds it is the last one of the episode before. Row b depends on the seed, on b and on its own actions, and on
nothing else. All that there is of a stream is in `state`, tensors whose first axis is the batch: put it back, and it goes on
as it did.

Episodes are made of numbers in [0, 1) that are a function of the seed, the row and how many episodes the row has had, so
that no episode depends on when another one ended. The function is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).

Shapes: B batch, D width of an observation, T time, L moments of an episode, E episodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from loci.lab.tasks.mqar import NOTHING
from loci.state.mixer import State

Policy: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # observation (B, D), begun (B,) -> action (B,)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Moment(NamedTuple):
    """What is seen, the reward for the action before, and whether an episode begins here."""

    observation: Tensor  # (B, D)
    reward: Tensor  # (B,)
    begun: Tensor  # (B,) of bool


class Stream(NamedTuple):
    """What is seen, what is due as an answer or NOTHING, and where episodes begin."""

    x: Tensor  # (B, T, D)
    due: Tensor  # (B, T)
    begun: Tensor  # (B, T) of bool


class Played(NamedTuple):
    """What was seen, done and had for it; reward[:, t] is for action[:, t]."""

    x: Tensor  # (B, T, D)
    action: Tensor  # (B, T)
    reward: Tensor  # (B, T)
    begun: Tensor  # (B, T) of bool


class Environment(ABC):
    """B worlds side by side. Members write what an episode begins with, what is seen of it, and what an action does."""

    D: int  # width of what is seen
    actions: int  # they are 0 to actions - 1
    draws: int  # numbers that an episode is made of
    state: State = ()  # key, episode and clock of each row, then what `begin` gave

    @abstractmethod
    def begin(self, drawn: Tensor) -> State:
        """Numbers (E, draws) in [0, 1) -> as many new episodes, tensors (E, ...)."""

    @abstractmethod
    def see(self, clock: Tensor, own: State) -> Tensor:
        """What is seen (B, D) in episodes that began `clock` moments ago."""

    @abstractmethod
    def act(self, action: Tensor, clock: Tensor, own: State) -> tuple[State, Tensor, Tensor]:
        """The episodes after an action, its reward (B,), and where they are over (B,); what is given is left as it is."""

    def reset(self, batch: int, *, seed: int) -> Moment:
        """The first moment of `batch` new streams."""
        if batch < 1:
            raise ValueError(f"batch={batch} is no world; choose at least 1")
        start, row = torch.zeros(batch, dtype=torch.int64), torch.arange(batch)
        key = hashed(hashed(torch.tensor([seed % 2**63])) + row)
        self.state = key, start, start, *self.begin(uniform(key, start, self.draws))
        return Moment(self.see(start, self.state[3:]), torch.zeros(batch), torch.ones(batch, dtype=torch.bool))

    def step(self, action: Tensor) -> Moment:
        """The next moment; ValueError before `reset` and for what is no action."""
        self.require_reset()
        self.require(action)
        key, episode, clock, *own = self.state
        after, reward, over = self.act(action, clock, tuple(own))
        self.state = key, episode, clock + 1, *after
        ended = over.nonzero().flatten()
        if len(ended):
            who, which = key[ended], episode[ended] + 1
            fresh = who, which, torch.zeros_like(ended), *self.begin(uniform(who, which, self.draws))
            self.state = tuple(old.index_copy(0, ended, new) for old, new in zip(self.state, fresh, strict=True))
        return Moment(self.see(self.state[2], self.state[3:]), reward, over)

    def require_reset(self) -> None:
        """Refuse to go on where nothing has begun."""
        if not self.state:
            raise ValueError(f"{type(self).__name__} has no episode to go on with; call reset(batch, seed=...) first")

    def require(self, action: Tensor) -> None:
        """Refuse what is not one action for each row."""
        B = len(self.state[0])
        if action.shape != (B,) or action.dtype != torch.int64:
            raise ValueError(
                f"action is {tuple(action.shape)} of {str(action.dtype).removeprefix('torch.')}; give int64 of shape ({B},)"
            )
        if int(action.min()) < 0 or int(action.max()) >= self.actions:
            raise ValueError(
                f"action has values from {int(action.min())} to {int(action.max())}; choose 0 to {self.actions - 1}"
            )


class Quiz(Environment):
    """A world that no action changes: all episodes have L moments, at some of which an answer is due.

    A right answer is worth so much, a wrong one costs as much. Since the world goes its own way, it can be had as a stream to
    learn from without playing it.
    """

    L: int
    worth: float

    @abstractmethod
    def episode(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers (E, draws) -> what is seen (E, L, D), and the answers (E, L), NOTHING where none is due."""

    def begin(self, drawn: Tensor) -> State:
        """The whole episode."""
        return self.episode(drawn)

    def see(self, clock: Tensor, own: State) -> Tensor:
        """The moment's part of it."""
        return own[0][torch.arange(len(clock)), clock]

    def act(self, action: Tensor, clock: Tensor, own: State) -> tuple[State, Tensor, Tensor]:
        """Right, wrong, or not asked."""
        due = own[1][torch.arange(len(clock)), clock]
        reward = self.worth * torch.where(due == NOTHING, 0.0, torch.where(due == action, 1.0, -1.0))
        return own, reward, clock + 1 == self.L

    def stream(self, length: int) -> Stream:
        """The next `length` moments of every row at once, the present one first; the same that `step` gives one by one."""
        self.require_reset()
        if length < 0:
            raise ValueError(f"length={length} leads back; choose 0 or more moments")
        key, episode, clock = self.state[:3]
        B, count = len(key), (int(clock.max()) + length) // self.L + 1
        numbers = episode.unsqueeze(1) + torch.arange(count)
        drawn = uniform(key.repeat_interleave(count), numbers.flatten(), self.draws)
        seen, due = (part.reshape(B, count, *part.shape[1:]) for part in self.episode(drawn))  # (B, count, L, ...)
        place = clock.unsqueeze(1) + torch.arange(length)
        row, which, when = torch.arange(B).unsqueeze(1), place // self.L, place % self.L
        after, end = (clock + length) // self.L, (clock + length) % self.L
        self.state = key, episode + after, end, seen[row[:, 0], after], due[row[:, 0], after]
        return Stream(seen[row, which, when], due[row, which, when], when == 0)


def play(environment: Environment, policy: Policy, *, moments: int) -> Played:
    """So many moments under a policy, from the present one on, of an environment that was reset."""
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    environment.require_reset()
    if moments < 1:
        raise ValueError(f"moments={moments} is no play; choose at least 1")
    clock, own = environment.state[2], environment.state[3:]
    observation, begun = environment.see(clock, own), clock == 0
    for _ in range(moments):
        action = policy(observation, begun)
        moment = environment.step(action)
        rows.append((observation, action, moment.reward, begun))
        observation, _, begun = moment
    return Played(*(torch.stack(part, 1) for part in zip(*rows, strict=True)))


def returns(reward: Tensor, begun: Tensor) -> Tensor:
    """Sums of rewards (B, T) over the episodes that begin, and are followed by another one, within: (E,).

    >>> returns(torch.tensor([[9.0, 1.0, 2.0, 3.0, 9.0]]), torch.tensor([[False, True, False, True, True]])).tolist()
    [3.0, 3.0]
    """
    number = begun.cumsum(1)
    total = reward.new_zeros(len(reward), reward.shape[1] + 1, dtype=torch.float64)
    total.scatter_add_(1, number, reward.double())
    within = torch.arange(total.shape[1])
    return total[(within > 0) & (within < number[:, -1:])]


def hashed(x: Tensor) -> Tensor:
    """SplitMix64 of each number: int64 -> int64 of any shape, all 64 bits in use."""
    return torch.from_numpy(_mixed(x.numpy().view(np.uint64) + _GOLDEN).view(np.int64))


def uniform(key: Tensor, episode: Tensor, count: int) -> Tensor:
    """(E,) both -> numbers (E, count) in [0, 1): a stream of its own for every key and episode."""
    begin = _mixed((key.numpy() ^ hashed(episode).numpy()).view(np.uint64))
    bits = _mixed(begin[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))
    return torch.from_numpy((bits >> np.uint64(11)) * 2.0**-53)


def _mixed(z: Any) -> Any:
    """The finaliser of SplitMix64, over arrays of uint64, which wrap."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

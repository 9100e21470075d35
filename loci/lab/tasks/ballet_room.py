"""The ballet: dancers dance one after another in a room, and only then is the onlooker told whose dance it should have noted.

The room is 11 by 11 with a wall around it and the agent in its middle. Each of up to eight dancers has a shape and a
colour and dances once, sixteen moves that end where they began, with a pause after each. All the while the instruction
says "watch" and the agent cannot move. Then it names one of the dances, and the agent walks; touching a dancer ends the
episode, with reward 1 if that one danced it and 0 if not. What is seen is centred on the agent.

Source: Lampinen et al., arXiv:2105.14039, and the authors' pycolab_ballet (rules and sizes; the dances here are others,
made by rule, and what is seen is one-hot and not an image).

>>> room = BalletRoom(2, random=torch.Generator().manual_seed(0))
>>> seen = room.reset()
>>> seen.view.shape, seen.told == WATCH
(torch.Size([17, 11, 11]), True)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SIZE, MIDDLE = 11, 5
PLACES = ((2, 2), (2, 5), (2, 8), (5, 2), (5, 8), (8, 2), (8, 5), (8, 8))
SHAPES = COLOURS = 8
WATCH = 0  # the instruction before the choice; the others are 1 + the number of a dance
PATIENCE = 64  # moments for the choice

N, NE, E, SE, S, SW, W, NW = MOVES = tuple(range(8))  # the agent's actions; a dance is made of the same
OFFSETS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def _swing(there: int) -> tuple[int, ...]:
    """To one side and, through the middle, to the other, four times."""
    back = (there + 4) % 8
    return (there, back, back, there) * 4


def _star(order: tuple[int, ...]) -> tuple[int, ...]:
    """Out and back in each of four directions, twice."""
    return tuple(move for there in order for move in (there, (there + 4) % 8)) * 2


DANCES: tuple[tuple[int, ...], ...] = (
    *(_swing(there) for there in (N, NE, E, SE)),
    *(_star(order) for order in ((N, E, S, W), (N, W, S, E), (NE, SE, SW, NW), (NE, NW, SW, SE))),
    (N, E, S, S, W, W, N, E) * 2,  # around the place, one way
    (N, W, S, S, E, E, N, W) * 2,  # and the other
    *((there, (there + 2) % 8, (there + 4) % 8, (there + 6) % 8) * 4 for there in (N, E, S)),  # around a place beside
)
LENGTH = len(DANCES[0])


class Seen(NamedTuple):
    """What the agent sees, channels for the wall, shapes and colours, centred on it; and what it is told."""

    view: Tensor  # (1 + SHAPES + COLOURS, SIZE, SIZE)
    told: int  # WATCH, or 1 + the number of a dance


class BalletRoom:
    """Episodes of `dancers` dances with `delay` moments after each: reset, then step until it is over."""

    places: list[tuple[int, int]]  # by dancer, as are dances and looks
    dances: list[int]
    looks: list[tuple[int, int]]  # shape and colour
    wanted: int  # the dancer to be found

    def __init__(self, dancers: int = 2, *, delay: int = 16, random: torch.Generator) -> None:
        if not 1 <= dancers <= len(PLACES):
            raise ValueError(f"dancers={dancers} do not fit the room; choose 1 to {len(PLACES)}")
        if delay < 0:
            raise ValueError(f"delay={delay} is no time; choose 0 or more moments")
        self.dancers, self.delay, self.random = dancers, delay, random
        self.watching = dancers * (LENGTH + delay)  # moments before the choice
        self.over = True

    def reset(self) -> Seen:
        """Other dancers, other dances."""
        self.places = [PLACES[place] for place in self._draw(len(PLACES))]
        self.dances = self._draw(len(DANCES))
        self.looks = list(zip(self._draw(SHAPES), self._draw(COLOURS), strict=True))
        self.wanted = int(torch.randint(self.dancers, (), generator=self.random))
        self.agent, self.time, self.over = (MIDDLE, MIDDLE), 0, False
        return self.seen()

    def step(self, action: int) -> tuple[Seen, float, bool]:
        """What is seen next, the reward, and whether the episode is over; while it watches the action does nothing."""
        if self.over:
            raise ValueError("the episode is over; call reset() first")
        if action not in MOVES:
            raise ValueError(f"action={action!r} is no move; choose 0 to {len(MOVES) - 1}")
        choosing = self.time >= self.watching
        self.time += 1
        reward = 0.0
        if choosing:
            to = _moved(self.agent, action)
            self.agent = to if all(0 < axis < SIZE - 1 for axis in to) else self.agent
            if self.agent in self.places:
                reward = float(self.places.index(self.agent) == self.wanted)
            self.over = self.agent in self.places or self.time >= self.watching + PATIENCE
        return self.seen(), reward, self.over

    def seen(self) -> Seen:
        """The present moment."""
        room = torch.zeros(1 + SHAPES + COLOURS, SIZE + 2 * MIDDLE, SIZE + 2 * MIDDLE)  # nothing beyond the walls
        inner = room[:, MIDDLE : MIDDLE + SIZE, MIDDLE : MIDDLE + SIZE]
        inner[0] = 1
        inner[0, 1:-1, 1:-1] = 0
        for dancer, (shape, colour) in enumerate(self.looks):
            row, column = self.position(dancer)
            inner[1 + shape, row, column] = inner[1 + SHAPES + colour, row, column] = 1
        row, column = self.agent
        told = 1 + self.dances[self.wanted] if self.time >= self.watching else WATCH
        return Seen(room[:, row : row + SIZE, column : column + SIZE].clone(), told)

    def position(self, dancer: int) -> tuple[int, int]:
        """Where a dancer is now: they dance in the order of their numbers."""
        at = self.places[dancer]
        done = self.time - dancer * (LENGTH + self.delay)
        for move in DANCES[self.dances[dancer]][: max(done, 0)]:
            at = _moved(at, move)
        return at

    def _draw(self, count: int) -> list[int]:
        """As many different numbers below `count` as there are dancers."""
        return torch.randperm(count, generator=self.random)[: self.dancers].tolist()


def _moved(at: tuple[int, int], move: int) -> tuple[int, int]:
    down, right = OFFSETS[move]
    return at[0] + down, at[1] + right

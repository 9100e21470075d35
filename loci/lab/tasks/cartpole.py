"""A pole on a cart, to be kept upright by pushes from the left and the right, of which only the positions are seen.

    temp      = (F + m l theta'^2 sin theta) / (M + m),   F = -10 or 10
    theta''   = (g sin theta - cos theta temp) / (l (4/3 - m cos^2 theta / (M + m)))
    x''       = temp - m l theta'' cos theta / (M + m)

Steps of 0.02 s (Euler, positions before velocities), from four numbers within 0.05 of 0. An episode is over where the cart is
more than 2.4 from the middle or the pole more than 12 degrees from upright, or after `longest` moments. Since velocities
are not seen, they have to be remembered from one moment to the next.

Source: Barto, Sutton, Anderson, 1983; the equations as in gymnasium's CartPole; hidden velocities, length and reward
(1 / longest for every action) as in POPGym's PositionOnlyCartPole, Morad et al., arXiv:2303.01859.
Differs: a pole that fell and a time that ran out look alike, an episode begins after both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from loci.lab.tasks.environment import Environment
from loci.state.mixer import State

GRAVITY, CART, POLE, HALF, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02  # m/s^2, kg, kg, m, N, s
WALL, FALLEN = 2.4, 12 * 2 * math.pi / 360


class PositionOnlyCartPole(Environment):
    """Observations (B, 2) are where the cart is, and the angle of the pole; action 0 pushes to the left, 1 to the right."""

    D, actions, draws = 2, 2, 4

    def __init__(self, *, longest: int = 200) -> None:
        if longest < 1:
            raise ValueError(f"longest={longest} is no episode; choose at least 1 moment")
        self.longest = longest

    def begin(self, drawn: Tensor) -> State:
        """Positions and velocities (E, 4) near rest: x, x', theta, theta'."""
        return (0.1 * drawn - 0.05,)

    def see(self, clock: Tensor, own: State) -> Tensor:
        """Without velocities, in single precision."""
        return own[0][:, ::2].float()

    def act(self, action: Tensor, clock: Tensor, own: State) -> tuple[State, Tensor, Tensor]:
        """A push, and what it leads to."""
        after = pushed(own[0], action)
        fallen = (after[:, 0].abs() > WALL) | (after[:, 2].abs() > FALLEN)
        return (after,), torch.full((len(action),), 1 / self.longest), fallen | (clock + 1 >= self.longest)


def pushed(body: Tensor, action: Tensor) -> Tensor:
    """x, x', theta, theta' (..., 4) a moment after a push (...) to the left (0) or right (1)."""
    x, v, theta, omega = body.unbind(-1)
    cos, sin = theta.cos(), theta.sin()
    force = torch.where(action == 1, FORCE, -FORCE)
    temp = (force + POLE * HALF * omega.square() * sin) / (CART + POLE)
    turn = (GRAVITY * sin - cos * temp) / (HALF * (4 / 3 - POLE * cos.square() / (CART + POLE)))
    pull = temp - POLE * HALF * turn * cos / (CART + POLE)
    return torch.stack([x + TAU * v, v + TAU * pull, theta + TAU * omega, omega + TAU * turn], -1)

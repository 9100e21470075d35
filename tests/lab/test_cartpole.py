"""The pole on a cart: it moves as the equations and gymnasium say, and it takes a memory to keep it upright."""

from __future__ import annotations

import itertools
import math
import random

import pytest

torch = pytest.importorskip("torch")

from loci.lab.tasks.cartpole import PositionOnlyCartPole, pushed
from loci.lab.tasks.environment import play, returns

torch.set_num_threads(1)

# Gymnasium 1.4.0, CartPoleEnv from state [0.01, -0.02, 0.03, -0.04]: after these pushes, and where it ends under one push
PUSHES = [1, 0, 0, 1, 1, 1, 0, 1, 0, 0]
OFFICIAL = [0.03299021819632301, -0.022734986035086113, -0.011773021220865586, 0.020349917456688682]
ENDS = {
    0: (9, [-0.134510101222293, -1.7829548539329267, 0.24424839891701555, 2.8115934316458078]),
    1: (10, [0.1815256667741792, 1.933450125212804, -0.24074363726846137, -3.084539482855368]),
}


def by_hand(x, v, theta, omega, push):
    """The two equations of motion, solved for both accelerations (Cramer) rather than one after the other."""
    M, m, half, g = 1.0, 0.1, 0.5, 9.8
    # (M + m) x'' + m l cos theta'' = F + m l omega^2 sin;   cos x'' + 4/3 l theta'' = g sin
    a, b, p = M + m, m * half * math.cos(theta), (10.0 if push else -10.0) + m * half * omega**2 * math.sin(theta)
    c, d, q = math.cos(theta), 4 / 3 * half, g * math.sin(theta)
    pull, turn = (p * d - b * q) / (a * d - b * c), (a * q - c * p) / (a * d - b * c)
    return x + 0.02 * v, v + 0.02 * pull, theta + 0.02 * omega, omega + 0.02 * turn


def test_the_cart_moves_as_gymnasium_s():
    body = torch.tensor([0.01, -0.02, 0.03, -0.04], dtype=torch.float64)
    for push in PUSHES:
        body = pushed(body, torch.tensor(push))
    assert torch.allclose(body, torch.tensor(OFFICIAL, dtype=torch.float64), rtol=0, atol=1e-14)


def test_the_cart_moves_as_the_equations_of_motion_say():
    source = random.Random(0)
    for _ in range(200):
        body, push = [source.uniform(-1, 1) for _ in range(4)], source.randint(0, 1)
        after = pushed(torch.tensor(body, dtype=torch.float64), torch.tensor(push))
        assert after.tolist() == pytest.approx(by_hand(*body, push), abs=1e-13)


@pytest.mark.parametrize("push", [0, 1])
def test_the_pole_falls_when_gymnasium_s_does(push):
    count, end = ENDS[push]
    pole = PositionOnlyCartPole()
    pole.reset(1, seed=0)
    pole.state = *pole.state[:3], torch.tensor([[0.01, -0.02, 0.03, -0.04]], dtype=torch.float64)
    moments = [pole.step(torch.tensor([push])) for _ in range(count)]
    assert [bool(moment.begun) for moment in moments] == [False] * (count - 1) + [True]
    assert [float(moment.reward) for moment in moments] == pytest.approx([1 / 200] * count)
    body = torch.tensor([[0.01, -0.02, 0.03, -0.04]], dtype=torch.float64)
    for _ in range(count):
        body = pushed(body, torch.tensor([push]))
    assert body[0].tolist() == pytest.approx(end, abs=1e-12)
    assert bool((moments[-1].observation.abs() <= 0.05).all()), "the next episode is seen, not the fallen pole"


def test_a_cart_that_leaves_and_a_day_that_ends_end_the_episode():
    pole = PositionOnlyCartPole(longest=3)
    pole.reset(2, seed=0)
    pole.state = *pole.state[:3], torch.tensor([[2.39, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    moments = [pole.step(torch.tensor([push, push])) for push in (0, 1, 0)]
    assert [moment.begun.tolist() for moment in moments] == [[True, False], [False, False], [False, True]]


def test_positions_are_seen_and_velocities_are_not():
    pole = PositionOnlyCartPole()
    first = pole.reset(5, seed=0)
    assert torch.equal(first.observation, pole.state[3][:, [0, 2]].float())
    assert bool((pole.state[3].abs() <= 0.05).all())
    assert float(pole.state[3].abs().max()) > 0.03


# Who remembers wins


def upright(policy, rows):
    """Returns of the episodes within 400 moments."""
    pole = PositionOnlyCartPole()
    pole.reset(rows, seed=0)
    played = play(pole, policy, moments=401)
    return returns(played.reward, played.begun)


class Steadying:
    """Takes speeds from what it saw a moment ago."""

    def __call__(self, x, begun):
        before = x if bool(begun.all()) else torch.where(begun.unsqueeze(1), x, self.before)
        self.before = x
        speed = (x - before) / 0.02
        return (x @ torch.tensor([0.01, 1.0]) + speed @ torch.tensor([0.05, 0.3]) > 0).long()


def test_who_remembers_where_things_were_keeps_the_pole_upright():
    had = upright(Steadying(), 50)
    assert len(had) == 100
    assert torch.allclose(had, torch.ones_like(had), atol=1e-6)


def test_no_line_through_positions_steadies_the_pole():
    for weights in itertools.product((-1.0, -0.1, 0.0, 0.1, 1.0), (-1.0, 1.0)):
        line = torch.tensor(weights)
        had = upright(lambda x, begun: (x @ line > 0).long(), 16)
        assert len(had) > 16
        assert float(had.mean()) < 0.5

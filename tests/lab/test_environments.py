"""Worlds that are seen in part: their laws with a broken twin for each, and that who remembers wins and who does not loses."""

from __future__ import annotations

import random as python_random

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import broken_by, refused
from loci.lab.tasks.card_games import Autoencode, HigherLower, RepeatFirst, RepeatPrevious
from loci.lab.tasks.cartpole import PositionOnlyCartPole
from loci.lab.tasks.environment import hashed, play, returns, uniform
from loci.lab.tasks.memory_length import MemoryChain
from loci.state.lstm import LSTM

torch.set_num_threads(1)

QUIZZES = {
    "memory length": lambda: MemoryChain(5),
    "memory size": lambda: MemoryChain(2, bits=7),
    "repeat first": RepeatFirst,
    "repeat previous": RepeatPrevious,
    "autoencode": Autoencode,
    "higher lower": HigherLower,
}
MEMBERS = {**QUIZZES, "cart pole": PositionOnlyCartPole}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def acted(environment, actions):
    """The moments after each of some actions (B, T)."""
    return [environment.step(action) for action in actions.unbind(1)]


def alike(one, two):
    return all(torch.equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True))


# Laws, and twins that break them


def the_seed_decides(make):
    one, two, other = make(), make(), make()
    actions = torch.randint(one.actions, (3, 130), generator=generator())
    streams = [[it.reset(3, seed=seed), *acted(it, actions)] for it, seed in ((one, 4), (two, 4), (other, 5))]
    assert alike(streams[0], streams[1]), "the same seed gives another stream"
    assert not alike(streams[0], streams[2]), "another seed gives the same stream"


def rows_are_their_own(make):
    first, second, fewer = make(), make(), make()
    actions = torch.randint(first.actions, (3, 130), generator=generator())
    others = actions.clone()
    others[1] = torch.randint(first.actions, (130,), generator=generator(1))
    one = [first.reset(3, seed=4), *acted(first, actions)]
    two = [second.reset(3, seed=4), *acted(second, others)]
    few = [fewer.reset(1, seed=4), *acted(fewer, actions[:1])]
    assert alike([[part[::2] for part in moment] for moment in one], [[part[::2] for part in moment] for moment in two])
    assert alike([[part[:1] for part in moment] for moment in one], few), "a row depends on how many there are"
    assert not torch.equal(
        torch.stack([moment.observation[0] for moment in one]), torch.stack([moment.observation[2] for moment in one])
    ), "rows are the same"


def the_state_is_all_there_is(make):
    whole, part = make(), make()
    actions = torch.randint(whole.actions, (3, 130), generator=generator())
    whole.reset(3, seed=4)
    acted(whole, actions[:, :60])
    kept, copy = whole.state, [tensor.clone() for tensor in whole.state]
    rest = acted(whole, actions[:, 60:])
    assert alike([kept], [copy]), "a state that was taken changes"
    part.state = kept
    assert alike(rest, acted(part, actions[:, 60:])), "a stream goes on otherwise from its state"


def returns_are_within_one(make):
    environment = make()
    environment.reset(8, seed=4)
    chosen = generator()
    played = play(
        environment, lambda x, begun: torch.randint(environment.actions, begun.shape, generator=chosen), moments=320
    )
    had = returns(played.reward, played.begun)
    assert len(had) >= 8
    assert float(had.abs().max()) <= 1 + 1e-6, "a return is out of bounds"


def moments_have_their_form(make):
    environment = make()
    first = environment.reset(3, seed=4)
    assert bool(first.begun.all()), "a stream does not begin"
    assert not bool(first.reward.any())
    for moment in (first, *acted(environment, torch.zeros(3, 5, dtype=torch.int64))):
        assert moment.observation.shape == (3, environment.D)
        assert moment.observation.dtype == moment.reward.dtype == torch.float32
        assert moment.reward.shape == moment.begun.shape == (3,)
        assert moment.begun.dtype == torch.bool


class FromAnywhere(PositionOnlyCartPole):
    """Draws from what all the world draws from."""

    def begin(self, drawn):
        return super().begin(torch.rand(drawn.shape, dtype=torch.float64))


class Crowded(PositionOnlyCartPole):
    """Numbers episodes as they come, in whichever row."""

    count = 0

    def begin(self, drawn):
        self.count += len(drawn)
        return super().begin((drawn + 0.01 * self.count) % 1)


class Absent(PositionOnlyCartPole):
    """Turns left and right around at a time that it keeps to itself."""

    time = 0

    def act(self, action, clock, own):
        self.time += 1
        return super().act((action + self.time // 70) % 2, clock, own)


class InPlace(PositionOnlyCartPole):
    """Writes into the state that it was given."""

    def act(self, action, clock, own):
        (after,), reward, over = super().act(action, clock, own)
        return (own[0].copy_(after),), reward, over


class Generous(RepeatFirst):
    """Pays by the card and not by the episode."""

    def __init__(self):
        super().__init__()
        self.worth = 1.0


class Wide(RepeatFirst):
    """Shows it in double precision."""

    def see(self, clock, own):
        return super().see(clock, own).double()


TWINS = {
    the_seed_decides: [FromAnywhere],
    rows_are_their_own: [Crowded],
    the_state_is_all_there_is: [Absent, InPlace],
    returns_are_within_one: [Generous],
    moments_have_their_form: [Wide],
}


@pytest.mark.parametrize("law", TWINS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", MEMBERS)
def test_laws_hold(name, law):
    law(MEMBERS[name])


@pytest.mark.parametrize("law", TWINS, ids=lambda law: law.__name__)
def test_laws_catch_their_twins(law):
    for twin in TWINS[law]:
        assert broken_by(law, twin), f"{law.__name__} does not catch {twin.__name__}"


# Streams


@pytest.mark.parametrize("name", QUIZZES)
def test_a_stream_is_what_steps_give_one_by_one_wherever_it_is_cut(name):
    by_steps, at_once, in_parts = (QUIZZES[name]() for _ in range(3))
    for it in (by_steps, at_once, in_parts):
        it.reset(3, seed=7)
    played = play(by_steps, lambda x, begun: torch.zeros_like(begun, dtype=torch.int64), moments=230)
    whole = at_once.stream(230)
    parts = [in_parts.stream(length) for length in (0, 1, 50, 53, 126)]
    assert torch.equal(whole.x, played.x)
    assert torch.equal(whole.begun, played.begun)
    assert torch.equal(whole.due == 0, played.reward > 0)
    assert torch.equal(whole.due > 0, played.reward < 0)
    assert alike([whole], [[torch.cat(part, 1) for part in zip(*parts)]])
    assert alike([at_once.state], [by_steps.state]), "all three are at the same place"
    assert alike([at_once.state], [in_parts.state])


def test_rows_may_be_at_different_moments():
    early, late = RepeatPrevious(), RepeatPrevious()
    early.reset(2, seed=1)
    late.reset(2, seed=1)
    late.stream(30)
    mixed = RepeatPrevious()
    mixed.state = tuple(torch.cat([a[:1], b[1:]]) for a, b in zip(early.state, late.state))
    stream = mixed.stream(120)
    assert stream.begun[0].nonzero().flatten().tolist() == [0, 51, 102]
    assert stream.begun[1].nonzero().flatten().tolist() == [21, 72]
    assert torch.equal(stream.x[0], early.stream(120).x[0])
    assert torch.equal(stream.x[1], late.stream(120).x[1])


def test_beginnings_are_the_resets_of_mixers():
    quiz = RepeatFirst()
    quiz.reset(2, seed=0)
    stream = quiz.stream(120)
    torch.manual_seed(0)
    mixer = LSTM(4, 6)
    with torch.no_grad():
        y = mixer(stream.x, reset=stream.begun)[0]
        for start, end in ((0, 51), (51, 102), (102, 120)):
            assert torch.allclose(y[:, start:end], mixer(stream.x[:, start:end])[0], atol=1e-6)


# Numbers


def splitmix(state):
    """Steele, Lea, Flood 2014, in whole numbers."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def test_hashes_are_splitmix_s():
    assert hashed(torch.tensor([1234567])).tolist() == [6457827717110365317]  # published with the reference code in C
    source = python_random.Random(0)
    numbers = [source.randint(-(2**63), 2**63 - 1) for _ in range(100)]
    assert [number % 2**64 for number in hashed(torch.tensor(numbers)).tolist()] == [
        splitmix(n % 2**64) for n in numbers
    ]


def test_numbers_are_even_and_keys_and_episodes_are_strangers():
    zero, many = torch.zeros(500, dtype=torch.int64), torch.arange(500)
    for key, episode in ((many, zero), (zero, many)):
        numbers = uniform(key, episode, 100)
        assert numbers.shape == (500, 100)
        assert float(numbers.min()) >= 0
        assert float(numbers.max()) < 1
        found = torch.histc(numbers, 100, 0, 1)
        assert float(((found - 500) ** 2 / 500).sum()) < 159  # chi-square, 99 degrees: 0.9999
        between = torch.corrcoef(numbers).triu(1)[torch.ones(500, 500).triu(1) > 0]
        assert abs(float(between.square().mean()) - 1 / 99) < 0.001
    assert not torch.equal(uniform(zero[:1], many[1:2], 5), uniform(many[1:2], zero[:1], 5))


def test_returns_are_of_whole_episodes():
    begun = torch.tensor([[True, False, True, False], [False, True, True, True]])
    assert returns(torch.tensor([[1.0, 2, 4, 8], [1, 2, 4, 8]]), begun).tolist() == [3, 2, 4]
    assert returns(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)).tolist() == []


# What is refused


def test_what_is_no_world_and_no_action_is_refused():
    refused(lambda: MemoryChain(0), "N=0", "at least 1")
    refused(lambda: MemoryChain(1, bits=0), "bits=0")
    refused(lambda: RepeatFirst(decks=0), "decks=0")
    refused(lambda: RepeatPrevious(0), "k=0", "51")
    refused(lambda: RepeatPrevious(52), "k=52")
    refused(lambda: PositionOnlyCartPole(longest=0), "longest=0")
    quiz = RepeatFirst()
    refused(lambda: quiz.step(torch.zeros(2, dtype=torch.int64)), "reset")
    refused(lambda: quiz.stream(3), "reset")
    refused(lambda: play(quiz, lambda x, begun: x, moments=1), "reset")
    refused(lambda: quiz.reset(0, seed=0), "batch=0")
    quiz.reset(2, seed=0)
    before = quiz.state
    refused(lambda: quiz.step(torch.zeros(3, dtype=torch.int64)), "(3,)", "(2,)")
    refused(lambda: quiz.step(torch.zeros(2)), "float32", "int64")
    refused(lambda: quiz.step(torch.tensor([0, 4])), "4", "0 to 3")
    refused(lambda: quiz.step(torch.tensor([-1, 0])), "-1")
    refused(lambda: quiz.stream(-1), "length=-1")
    refused(lambda: play(quiz, lambda x, begun: begun.long(), moments=0), "moments=0")
    assert quiz.state is before

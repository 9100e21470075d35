"""Games of memory: who remembers what was seen wins, who goes by what is seen now does not, and the rules are kept."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.lab.tasks.card_games import Autoencode, HigherLower, RepeatFirst, RepeatPrevious, shuffled, suits_of
from loci.lab.tasks.environment import NOTHING, hashed, play, returns, uniform
from loci.lab.tasks.memory_length import MemoryChain, memory_length, memory_size

torch.set_num_threads(1)

QUIZZES = {
    "memory length": lambda: MemoryChain(5),
    "memory size": lambda: MemoryChain(2, bits=7),
    "repeat first": RepeatFirst,
    "repeat previous": RepeatPrevious,
    "autoencode": Autoencode,
    "higher lower": HigherLower,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Who remembers wins


def memory(name):
    """A policy for one row at a time that goes by what it saw since the episode began."""
    seen = {}

    def answer(row, x, begun):
        past = seen[row] = [x] if begun else [*seen[row], x]
        return ORACLES[name](past)

    return lambda x, begun: torch.tensor([answer(row, x[row].tolist(), bool(begun[row])) for row in range(len(x))])


def recited(past):
    cards = [x[:4].index(1) for x in past if 1 in x[:4]]
    asked = sum(x[4] for x in past)
    return cards[-int(asked)] if asked else 0


def counted(past):
    ranks = [x.index(1) for x in past]
    left = [4 - ranks.count(rank) for rank in range(13)]
    return int(sum(left[ranks[-1] + 1 :]) < sum(left[: ranks[-1]]))


ORACLES = {
    "memory length": lambda past: int(past[0][2] > 0),
    "memory size": lambda past: int(past[0][2 + int(past[-1][1])] > 0),
    "repeat first": lambda past: past[0].index(1),
    "repeat previous": lambda past: past[max(len(past) - 4, 0)].index(1),
    "autoencode": recited,
    "higher lower": counted,
}


def had_by(environment, policy, *, rows, moments, seed=0):
    environment.reset(rows, seed=seed)
    played = play(environment, policy, moments=moments)
    return returns(played.reward, played.begun)


@pytest.mark.parametrize("name", [name for name in QUIZZES if name != "higher lower"])
def test_who_remembers_has_all_there_is_to_have(name):
    had = had_by(QUIZZES[name](), memory(name), rows=3, moments=420)
    assert len(had) >= 6
    assert torch.allclose(had, torch.ones_like(had), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("memory length", 0.2),
        ("memory size", 0.2),
        ("repeat first", -0.4),
        ("repeat previous", -0.4),
        ("autoencode", -0.4),
    ],
)
def test_the_best_that_goes_by_what_it_sees_alone_has_less(name, most):
    quiz = QUIZZES[name]()
    quiz.reset(200, seed=0)
    x, due, _ = quiz.stream(4 * quiz.L)
    rows, kinds = x.flatten(0, 1).unique(dim=0, return_inverse=True)
    due, kinds = due.flatten(), kinds.flatten()
    asked = due != NOTHING
    right = torch.zeros(len(rows), quiz.actions).index_put_(
        (kinds[asked], due[asked]), torch.tensor(1.0), accumulate=True
    )
    best = (2 * right.max(1).values - right.sum(1)).sum() * quiz.worth / (200 * 4)
    assert float(best) < most


def test_guesses_by_rank_alone_have_what_arithmetic_says_and_counting_has_more():
    by_rank = had_by(HigherLower(), lambda x, begun: (x.argmax(1) > 6).long(), rows=100, moments=51 * 10 + 1)
    # E|4 (12 - r) - 4 r| / 52 over the ranks r of the 51 cards that are seen: each next card is one of 51
    want = sum(abs(48 - 8 * rank) for rank in range(13)) / 13 / 52
    assert len(by_rank) == 1000
    assert abs(float(by_rank.mean()) - want) < 4 * float(by_rank.std()) / 1000**0.5
    by_count = had_by(HigherLower(), memory("higher lower"), rows=100, moments=51 * 3 + 1)
    same = had_by(HigherLower(), lambda x, begun: (x.argmax(1) > 6).long(), rows=100, moments=51 * 3 + 1)
    assert float((by_count - same).mean()) > 4 * float((by_count - same).std()) / 300**0.5


# What each is


@pytest.mark.parametrize(
    ("make", "L", "asked"),
    [
        (lambda: MemoryChain(1), 2, 1),
        (lambda: MemoryChain(10, bits=3), 11, 1),
        (RepeatFirst, 51, 51),
        (lambda: RepeatFirst(decks=8), 415, 415),
        (RepeatPrevious, 51, 48),
        (lambda: RepeatPrevious(32, decks=2), 103, 72),
        (Autoencode, 103, 52),
        (lambda: Autoencode(decks=2), 207, 104),
    ],
)
def test_episodes_have_their_length_and_their_questions(make, L, asked):
    quiz = make()
    quiz.reset(2, seed=0)
    x, due, begun = quiz.stream(3 * L)
    assert begun.nonzero()[:, 1].tolist() == [0, L, 2 * L] * 2
    assert (due != NOTHING).sum(1).tolist() == [3 * asked] * 2
    assert quiz.worth == pytest.approx(1 / asked)


def test_decks_are_dealt_without_replacement_and_evenly():
    drawn = uniform(hashed(torch.arange(4000)), torch.zeros(4000, dtype=torch.int64), 52)
    assert bool((shuffled(drawn).sort(1).values == torch.arange(52)).all())
    assert bool((suits_of(drawn).sort(1).values == torch.arange(4).repeat_interleave(13)).all())
    for place in (0, 25, 51):
        found = torch.bincount(shuffled(drawn)[:, place], minlength=52).double()
        assert float(((found - 4000 / 52) ** 2 / (4000 / 52)).sum()) < 95  # chi-square, 51 degrees: 0.9998


def test_the_first_is_what_rollouts_say_it_is():
    """As in tasks/rollouts.py: the token at the last beginning."""
    quiz = RepeatFirst()
    quiz.reset(3, seed=2)
    x, due, begun = quiz.stream(200)
    since = torch.where(begun, torch.arange(200), 0).cummax(1).values
    assert torch.equal(due, x.argmax(-1).gather(1, since))


def test_memory_streams_show_bits_then_time_then_a_question():
    x, due, begun = memory_size(500, 3 * 9, bits=4, N=8, random=generator())
    assert x.shape == (500, 27, 6)
    assert torch.allclose(x[:, :9, 0], (1 - torch.arange(9) / 8).expand(500, 9))
    assert bool((x[begun][:, 2:].abs() == 1).all())
    assert not bool(x[~begun][:, 2:].any())
    assert (due != NOTHING).nonzero()[:3].tolist() == [[0, 8], [0, 17], [0, 26]]
    asked = x[:, 8::9, 1].long()
    assert torch.equal(due[:, 8::9], (x[:, ::9, 2:].gather(2, asked.unsqueeze(-1)).squeeze(-1) > 0).long())
    assert float((asked.flatten().bincount() / 1500 - 1 / 4).abs().max()) < 4 * (3 / 16 / 1500) ** 0.5
    assert float((x[begun][:, 2:].mean()).abs()) < 4 / 6000**0.5


def test_one_bit_is_the_size_of_one_and_the_same_generator_goes_on():
    random = generator(3)
    one, two = (memory_length(4, 20, N=4, random=random) for _ in range(2))
    assert not torch.equal(one.x, two.x)
    same = memory_size(4, 20, bits=1, N=4, random=generator(3))
    assert all(torch.equal(a, b) for a, b in zip(one, same))

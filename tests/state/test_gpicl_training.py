"""Meta-training: leaks, chance, sizes of states, first steps and schedules against closed forms; what few and many tasks teach."""

from __future__ import annotations

import functools
import math

import pytest

torch = pytest.importorskip("torch")

from loci.lab.tasks.in_context import UNSEEN, Base, pairs, prototypes, rings, tokens
from loci.lab.tasks.meta_learning import (
    Course,
    Figures,
    Learner,
    arms,
    attending,
    by_position,
    matched,
    meta_train,
    protocol,
    sweep,
    watched,
)  # fmt: skip
from loci.state.attention import Attention
from loci.state.lstm import LSTM
from loci.state.mixer import state_bytes
from loci.state.outer_product_lstm import OuterProductLSTM

torch.set_num_threads(1)

MIXERS = {
    "LSTM": lambda width: LSTM(width, 6),
    "outer product": lambda width: OuterProductLSTM(width, 6),
    "attention": attending(9, heads=2),
}


def seeded(seed: int, features: int, classes: int, **options) -> Learner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Learner(features, classes, **options)


def small(seed: int = 0, classes: int = 4) -> Learner:
    return seeded(seed, 5, classes, D=8, layers=2, mixer=attending(6, heads=2))


@pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS)
def test_a_label_is_not_seen_before_it_is_asked_for(mixer) -> None:
    learner, random = seeded(0, 5, 4, D=8, layers=2, mixer=mixer), torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 9, 5, generator=random), torch.randint(4, (2, 9), generator=random)
    said = learner(tokens(x, y, 4))
    for t in range(9):
        other = y.clone()
        other[:, t] = (y[:, t] + 1) % 4
        changed = learner(tokens(x, other, 4))
        assert torch.equal(changed[:, : t + 1], said[:, : t + 1])
        assert t == 8 or not torch.equal(changed[:, t + 1], said[:, t + 1])


@pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS)
def test_the_first_answer_is_chance(mixer) -> None:
    learner, count = seeded(1, 16, 10, D=8, layers=1, mixer=mixer), 2000
    first = float(by_position(learner, prototypes(2), torch.Generator().manual_seed(5), length=2, count=count)[0])
    assert abs(first - 0.1) <= 3 * math.sqrt(0.09 / count)


def test_sizes_of_states_are_counted() -> None:
    n, batch = 8, 3
    matrix, vector = OuterProductLSTM(4, n), LSTM(4, n)
    assert state_bytes(matrix.initial_state(batch)) == 4 * batch * (n * n + n)
    assert state_bytes(vector.initial_state(batch)) == 4 * batch * 2 * n
    learner = Learner(5, 3, D=4, layers=2, mixer=lambda width: OuterProductLSTM(width, n))
    assert learner.state_bytes() == 2 * 4 * (n * n + n)


def test_a_transformer_keeps_two_vectors_a_token_and_layer() -> None:
    t, D, layers = 7, 8, 3
    learner = seeded(0, 5, 4, D=D, layers=layers, mixer=attending(t + 1, heads=2))
    assert learner.state_bytes() == 4 * 2 * layers * t * D + 8 * layers  # and how many there are
    held, x = 0, torch.randn(1, t, D, generator=torch.Generator().manual_seed(0))
    for block in learner.blocks:
        keys, values, seen = block.mixer(x)[1]
        assert int(seen) == t
        assert bool((keys != 0).any(-1).all())  # each of the t is there
        held += sum(part.numel() * part.element_size() for part in (keys, values))
    assert held == 4 * 2 * layers * t * D


def test_cells_are_matched_to_a_number_of_weights() -> None:
    D, weights = 16, 4 * 16 * 16
    assert sum(w.numel() for w in Attention(D, 4).parameters()) == weights
    for kind in (LSTM, OuterProductLSTM):
        n = matched(kind, D, weights)
        fewer, enough = (sum(w.numel() for w in kind(D, size).parameters()) for size in (n - 1, n))
        assert fewer < weights <= enough


@pytest.mark.parametrize("eps", [1e-10, 1e-2])
def test_the_first_step_is_adams_with_its_epsilon(eps: float) -> None:
    base, course = prototypes(0, classes=4, features=5), Course(tasks=100, steps=1, batch=8, length=6, eps=eps)
    learner, twin, random = small(), small(), torch.Generator().manual_seed(2)
    meta_train(learner, base, course, torch.Generator().manual_seed(2))
    numbers = torch.randint(100, (8,), generator=random).tolist()
    x, y = pairs(base, numbers, 6, random)
    loss = torch.nn.functional.cross_entropy(twin(tokens(x, y, 4)).flatten(0, 1), y.flatten())
    slopes = torch.autograd.grad(loss, list(twin.parameters()))
    scale = min(1.0, 1.0 / float(torch.cat([g.flatten() for g in slopes]).norm()))
    for after, before, slope in zip(learner.parameters(), twin.parameters(), slopes, strict=True):
        due = before - course.lr * scale * slope / (scale * slope.abs() + eps)
        assert torch.allclose(after, due, rtol=0, atol=2e-6)


def test_watching_does_not_change_what_is_learned() -> None:
    base, course = prototypes(0, classes=4, features=5), Course(tasks=9, steps=10, batch=4, length=6, bias=0.5)
    watching, plain, random = small(), small(), torch.Generator().manual_seed(2)
    losses = watched(watching, base, course, torch.Generator().manual_seed(2), every=5)
    x, y = pairs(base, [UNSEEN + k for k in range(256)], 6, random)
    meta_train(plain, base, course, random)
    assert all(torch.equal(a, b) for a, b in zip(watching.parameters(), plain.parameters(), strict=True))
    with torch.no_grad():
        due = -plain(tokens(x, y, 4)).log_softmax(-1).gather(-1, y.unsqueeze(-1)).mean()
    assert len(losses) == 2
    assert math.isclose(losses[-1], float(due), rel_tol=1e-5)


class Listening(Learner):
    """A learner that keeps what it was told."""

    def forward(self, told):
        self.heard = [*getattr(self, "heard", []), told.detach()]
        return super().forward(told)


def test_base_sets_take_turns() -> None:
    here, there = Base(torch.ones(8, 5), torch.arange(8) % 4, 4), Base(torch.zeros(8, 5), torch.arange(8) % 4, 4)
    learner = Listening(5, 4, D=4, layers=1, mixer=lambda width: LSTM(width, 3))
    course = Course(tasks=9, steps=5, batch=3, length=6)
    assert len(meta_train(learner, here, course, torch.Generator().manual_seed(0), others=[there])) == 5
    assert [bool(told[..., :5].any()) for told in learner.heard] == [True, False, True, False, True]


def test_a_curriculum_begins_with_one_permutation_and_ends_with_many() -> None:
    base = Base(torch.eye(4), torch.arange(4), 4)  # a sequence is a permutation, its examples in some order
    learner = Listening(4, 4, D=4, layers=1, mixer=lambda width: LSTM(width, 3))
    course = Course(tasks=1 << 30, steps=41, batch=40, length=4, widening=40)
    meta_train(learner, base, course, torch.Generator().manual_seed(6))
    random, counts = torch.Generator().manual_seed(6), []
    for told in learner.heard:
        torch.randint(1 << 30, (40,), generator=random), torch.rand(40, generator=random)  # ids and biases
        order = torch.rand(40, 4, generator=random).topk(4, 1).indices
        labels = told[:, 1:, 4:].argmax(-1)  # of the first three; the fourth is what is left
        full = torch.cat([labels, 6 - labels.sum(1, keepdim=True)], 1)
        counts.append(len({tuple(row[at.argsort()].tolist()) for row, at in zip(full, order, strict=True)}))
    assert counts[0] == 1
    assert all(count <= 24 ** (step / 40) + 1 for step, count in enumerate(counts))
    assert counts[-1] > 12


def test_arms_have_no_fewer_weights_than_the_transformer() -> None:
    made = {
        name: (arm.make(8, 4), arm.course)
        for name, arm in arms(Course(tasks=1, steps=1), counts=(2, 32), D=16, layers=1).items()
    }
    assert [course.tasks for _, course in made.values()] == [2, 32, 32, 32, 32]
    assert [course.bias for _, course in made.values()] == [0, 0, 0.9, 0, 0]
    weights = [sum(w.numel() for w in learner.parameters()) for learner, _ in made.values()]
    assert weights[0] == weights[1] == weights[2] <= min(weights[3:])
    assert max(weights) < 1.1 * weights[0]


def test_sets_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="other has 9 features and 4 classes, base 8 and 4"):
        protocol(prototypes(0, classes=4, features=8), prototypes(0, classes=4, features=9), {}, seed=0)


@functools.cache
def trained(name: str) -> Figures:
    sizes = {"classes": 4, "features": 8}
    chosen = arms(Course(tasks=1, steps=600, lr=3e-3), D=32)
    base, other = prototypes(100, noise=0.3, **sizes), rings(100, **sizes)
    return protocol(base, other, {name: chosen[name]}, seed=100)[name]


@pytest.mark.slow
def test_a_transformer_remembers_few_tasks_and_learns_to_learn_from_many() -> None:
    few, many = trained("transformer, 4 tasks"), trained("transformer, 16384 tasks")
    assert few.regime == "memorisation"
    assert few.seen >= 0.8
    assert few.gained <= 0.05
    assert few.left == 600  # never: its loss on other tasks only grows
    assert many.regime == "general"
    assert many.gained >= 0.25
    assert many.elsewhere >= 0.25
    assert many.bytes == 4 * 2 * 2 * 19 * 32 + 8 * 2


@pytest.mark.slow
def test_biased_permutations_shorten_the_plateau_of_unbiased_tasks() -> None:
    many, biased = trained("transformer, 16384 tasks"), trained("transformer, biased")
    assert biased.regime == "general"
    assert biased.left < many.left < 600


@pytest.mark.slow
def test_many_tasks_make_a_learner_of_new_ones_and_few_do_not() -> None:
    base = prototypes(0, classes=4, features=8, noise=0.3)

    def make() -> Learner:
        return Learner(8, 4, D=16, layers=1, mixer=lambda width: OuterProductLSTM(width, 16))

    course = Course(tasks=1, steps=250, length=12, lr=5e-3)
    found = sweep(make, base, course, (4, 1 << 30), seed=0)
    assert found[1 << 30] == "general"
    assert found[4] in ("memorisation", "identification")

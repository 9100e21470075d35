"""Feedback: the gradient by finite differences, the guard under noise, the state in the file."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from loci import Memory
from loci.records import learning
from loci.records.learning import ETA, TAU, Policy, step


def shares(seed, n=12, parts=3):
    rng = np.random.default_rng(seed)
    return {f"p{i}": rng.uniform(0, 1, n) for i in range(parts)}


@pytest.mark.parametrize("seed", range(5))
def test_a_step_is_the_gradient_of_the_log_likelihood(seed):
    given = shares(seed)
    names = list(given)
    table = np.stack([given[name] for name in names], 1)
    table /= table.sum(1).max()
    useful = [2, 5]

    def likelihood(w):
        z = table @ w / TAU
        return np.mean([z[at] - np.log(np.exp(z - z.max()).sum()) - z.max() for at in useful])

    w0, eps = np.ones(len(names)), 1e-6
    gradient = np.array([(likelihood(w0 + eps * e) - likelihood(w0 - eps * e)) / (2 * eps) for e in np.eye(len(names))])
    moved = step(Policy(), given, useful, 1.0).vector(names)
    assert np.allclose(moved - w0, ETA * TAU * gradient, atol=1e-6)


def test_feedback_that_carries_nothing_is_trusted_at_most_as_often_as_stated():
    trusted = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        policy = Policy()
        for turn in range(150):
            policy = step(policy, shares(1000 * seed + turn), [int(rng.integers(12))], 1.0)
            if policy.trusted:
                trusted += 1
                break
    assert trusted <= 5 + 3 * (100 * 0.05 * 0.95) ** 0.5  # alpha of 100 runs and three standard errors


def test_feedback_that_carries_something_is_trusted():
    policy = Policy()
    for turn in range(300):
        given = shares(turn)
        policy = step(policy, given, [int(np.argmax(given["p1"]))], 1.0)  # only part p1 matters
    assert policy.trusted
    assert policy.weights["p1"] > 1.2 > policy.weights["p0"]


def test_words_are_kept_strengthened_and_blamed_away():
    held = learning.words(None, ["pet", "cat"], 1.0)
    held = learning.words(held, ["pet"], 1.0)
    assert b'"pet": 2.0' in held
    assert learning.words(held, ["pet", "cat"], -1.0) == b'{"pet": 1.0}'


def test_state_travels_with_the_file_and_goes_with_the_item(tmp_path):
    path = tmp_path / "a.db"
    with Memory(path) as memory:
        ids = memory.add(["Ana adopted a kitten", "Bo sails a boat"])
        memory.learn(memory.recall("what pet has Ana?", k=1), 1.0)
        (ana,) = memory.get([ids[0]])
        assert (ana.value, ana.uses) == (1.0, 1)
    with Memory(path) as memory:
        with memory._store.read() as db:
            view = memory._view(db, "default")
            assert Policy.loads(view.state(learning.STATE)).steps == 1
            assert set(view.states("item:")) == {f"item:{ids[0]}"}
        memory.forget(ids[0], scope="default", erase=True)
        with memory._store.read() as db:
            assert memory._view(db, "default").states("item:") == {}
    assert b"adopted a kitten" not in path.read_bytes()


@pytest.mark.parametrize("reward", [2, -1.5, float("nan"), True, "1"])
def test_a_reward_out_of_range_is_refused(reward):
    with Memory(":memory:") as memory:
        memory.add("Ana adopted a kitten")
        with pytest.raises(ValueError, match="reward="):
            memory.learn(memory.recall("kitten"), reward)


def test_threads_that_praise_the_same_items_all_count():
    with Memory(":memory:") as memory:
        ids = memory.add(["Ana: I adopted a kitten", "Ana: I sail a boat"], session="1")
        hits = memory.recall("what did Ana adopt?").only(ids[:1])
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(memory.learn, hits, 1.0) for _ in range(40)]:
                done.result()
        (item,) = memory.get(ids[:1])
        assert (item.uses, item.value) == (40, 40.0)

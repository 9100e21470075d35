"""Abstention: who said it matters; the mixture is recovered; held-out error is near the stated one."""

import json

import numpy as np
import pytest

from loci import Item, Memory
from loci.lab import data
from loci.lab.recall import auroc
from loci.records import calibrate
from loci.records.calibrate import Features, Model, fit, probability

TALK = [
    Item(text="Ana: I sold my car last week.", session="1"),
    Item(text="Bo: How was your race on Sunday?", session="1"),
    Item(text="Ana: I ran the charity race in two hours!", session="1"),
    Item(text="Bo: I baked bread with my sister.", session="2"),
]


@pytest.mark.parametrize(
    ("there", "not_there"),
    [
        ("What did Ana sell?", "What did Bo sell?"),
        ("How long did Ana's charity race take?", "How long did Bo's charity race take?"),
        ("Who baked bread with Bo?", "Who baked bread with Ana?"),
        ("What did Ana sell?", "What did Ana paint in the desert?"),
    ],
)
def test_what_was_said_by_or_about_the_other_is_less_known(there, not_there):
    with Memory(":memory:") as memory:
        memory.add(TALK)
        assert memory.recall(there).known > memory.recall(not_there).known + 0.1


def test_an_empty_memory_knows_nothing():
    with Memory(":memory:") as memory:
        hits = memory.recall("anything?")
        assert (hits.known, hits.abstain, list(hits)) == (0.0, True, [])


def test_the_mirror_null_recovers_the_mixture_without_labels():
    rng = np.random.default_rng(0)
    size = rng.uniform(0.05, 0.8, 4000)
    right = rng.uniform(size=4000) < 0.7
    sign = np.where(rng.uniform(size=4000) < 1 / (1 + np.exp(-8 * size)), 1, -1)
    assert fit(np.where(right, sign, -sign) * size) == pytest.approx(0.3, abs=0.03)


def test_sleep_fits_the_calibration_from_the_scopes_own_questions():
    asked = ["What did Ana sell?", "What did Ana run?", "Who has Ana's car?", "How long was Ana's race?"]
    with Memory(":memory:") as memory:
        memory.add(TALK)
        before = memory.recall("What did Ana sell?").known
        for _ in range(10):
            for question in asked:
                memory.recall(question)
        memory.consolidate()
        with memory.reading() as db:
            assert 0 < json.loads(memory.view(db, "default").state(calibrate.STATE))["pi"] < 0.25
        assert memory.recall("What did Ana sell?").known > before  # here nobody puts words into another's mouth


def test_known_rises_with_what_is_there():
    values = [probability(Features(cov, 0.2, 1), Model()) for cov in (0, 0.3, 0.6, 1)]
    assert values == sorted(values)
    assert probability(Features(1, -0.9, 1), Model()) < 0.05


def test_the_stated_error_is_within_five_points_on_every_conversation(data_dir):
    for book in data.books(data_dir / "locomo"):
        with Memory(":memory:", log_queries=False) as memory:
            memory.add(book.items)
            beliefs = [(memory.recall(q.text, k=1), q.answerable) for q in book.questions]
        stated = np.mean([hits.error for hits, _ in beliefs])
        observed = np.mean([hits.abstain == answerable for hits, answerable in beliefs])
        assert abs(stated - observed) < 0.05, book.name
        known = [[hits.known for hits, answerable in beliefs if answerable is side] for side in (True, False)]
        assert auroc(*known) > 0.8, book.name


def test_about_reads_pronouns():
    about = calibrate.about("Ana: I ran a race. Did you bake bread?")
    assert about["race"] == (1.0, 0.0)
    assert about["bread"] == (0.1, 1.0)

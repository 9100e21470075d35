"""Families of proteins, parity, and recall of pairs: tasks for xLSTM."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from loci.lab.tasks.pairs import texts
from loci.lab.tasks.parity import odd
from loci.lab.tasks.proteins import EOS, LENGTH, LETTERS, concatenated, family

torch.set_num_threads(1)


def test_a_family_is_a_consensus_with_letters_drawn_anew():
    random = np.random.default_rng(3)
    drawn = [family(random, homologs=40) for _ in range(50)]
    same = []
    for each in drawn:
        consensus = np.array([np.bincount(column, minlength=LETTERS).argmax() for column in each.T])
        same.append((each == consensus).mean())
    assert np.mean(same) == pytest.approx(1 - 0.15 * 19 / 20, abs=0.01)
    text = concatenated(drawn[0])
    assert text.shape == (40 * (LENGTH + 1),)
    assert (text.reshape(40, -1)[:, 0] == EOS).all()
    assert (text.reshape(40, -1)[:, 1:] == drawn[0]).all()


def test_eight_homologs_are_worth_two_nats_to_who_reads_them():
    random, said = np.random.default_rng(4), []
    for _ in range(300):
        each = family(random)
        counts = np.stack([np.bincount(column, minlength=LETTERS) for column in each[:-1].T])
        posterior = (1 + 20 * 0.85 / 0.15) ** counts.astype(float)  # of the consensus, column by column
        known = 0.85 * posterior / posterior.sum(1, keepdims=True) + 0.15 / LETTERS
        said.append(-np.log(known[np.arange(LENGTH), each[-1]]).mean())
    letter, other = 0.85 + 0.15 / 20, 0.15 / 20
    entropy = -letter * math.log(letter) - 19 * other * math.log(other)
    assert np.mean(said) == pytest.approx(entropy, abs=0.06)
    assert np.mean(said) < math.log(20) - 2


def test_questions_are_the_keys_and_answers_what_stood_behind_them():
    ids, answers = texts(50, 5, 16, torch.Generator().manual_seed(0))
    assert ids.shape == (50, 15)
    for text, said in zip(ids.tolist(), answers.tolist(), strict=True):
        pairs = dict(zip(text[:10:2], text[1:10:2], strict=True))
        assert len(pairs) == 5
        assert max(pairs) < 8 <= min(pairs.values())
        assert [pairs[key] for key in text[10:]] == said
        assert sorted(text[10:]) == sorted(pairs)


def test_parity_is_the_oddness_of_a_sum():
    bits = torch.randint(0, 2, (4, 9), generator=torch.Generator().manual_seed(0))
    assert odd(bits).tolist() == [[sum(row[: t + 1]) % 2 for t in range(9)] for row in bits.tolist()]

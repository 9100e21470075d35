"""Families of proteins, fill-in-the-middle over them, parity, and recall of pairs: tasks for xLSTM."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from loci.lab.tasks.pairs import texts
from loci.lab.tasks.parity import odd
from loci.lab.tasks.proteins import (
    EOS,
    LENGTH,
    LETTERS,
    LONGEST,
    MASKS,
    MOST_SPANS,
    concatenated,
    family,
    infilled,
    restored,
)

torch.set_num_threads(1)


def taken(text):
    """The letters between masks behind the EOS, by mask."""
    if EOS not in text:
        return {}
    spans, now = {}, None
    for symbol in text[text.index(EOS) + 1 :]:
        if symbol in MASKS:
            now = spans.setdefault(symbol, [])
        else:
            now.append(symbol)
    return spans


def test_spans_put_back_are_the_protein_and_every_letter_kept_its_place():
    random = np.random.default_rng(0)
    for draw in range(10_000):
        whole = [int(letter) for letter in random.integers(0, LETTERS, 2 + draw % 60)]
        text, places = infilled(whole, random)
        assert len(text) == len(places)
        assert restored(text) == whole
        letters = [(place, symbol) for symbol, place in zip(text, places, strict=True) if symbol < LETTERS]
        assert sorted(letters) == list(enumerate(whole))
        for mask, span in taken(text).items():
            first, second = (n for n, symbol in enumerate(text) if symbol == mask)
            assert places[first] == places[second] == places[second + 1]  # a mask stands where its span began
            assert 1 <= len(span) <= max(math.ceil(len(whole) * LONGEST), 1)
        assert list(taken(text)) == list(MASKS[: len(taken(text))])


def test_positions_start_at_nought_in_every_protein():
    random = np.random.default_rng(1)
    for whole in family(random, homologs=50):
        assert infilled(whole, random)[1][0] == 0


def test_the_number_of_spans_is_a_truncated_poisson():
    random = np.random.default_rng(0)
    weights = np.array([math.exp(-1) / math.factorial(n) for n in range(MOST_SPANS + 1)])
    share = weights / weights.sum()
    counts = np.bincount([len(taken(infilled([0] * 100, random)[0])) for _ in range(20_000)], minlength=MOST_SPANS + 1)
    assert counts.size == MOST_SPANS + 1
    chi = ((counts - 20_000 * share) ** 2 / (20_000 * share)).sum()
    assert chi < 20.5  # 0.1 % of chi-square with 5 degrees of freedom
    assert counts @ np.arange(MOST_SPANS + 1) / 20_000 == pytest.approx(share @ np.arange(MOST_SPANS + 1), abs=0.03)


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


@pytest.mark.parametrize("length", [0, 1, 2])
def test_the_shortest_proteins_are_infilled_too(length):
    random = np.random.default_rng(5)
    for _ in range(50):
        assert restored(infilled(range(length), random)[0]) == list(range(length))


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

"""Families of proteins, fill-in-the-middle over them, and parity: the tasks of the xLSTM claims."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from loci.lab.tasks import proteins
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


class Oracle(torch.nn.Module):
    """Knows how families are made: the posterior of each letter of the consensus, and then a letter or a mutation."""

    def forward(self, ids):
        said = torch.full((*ids.shape, proteins.SYMBOLS), 1 / LETTERS)
        for t in range(LENGTH + 1, ids.shape[1]):
            n, place = divmod(t, LENGTH + 1)
            if place < LENGTH:
                past = torch.nn.functional.one_hot(ids[:, place + 1 : t : LENGTH + 1], LETTERS + 6).sum(1)[:, :LETTERS]
                posterior = (past * math.log(1 + 20 * 0.85 / 0.15)).softmax(-1)
                said[:, t, :LETTERS] = 0.85 * posterior + 0.15 / LETTERS
        said[..., LETTERS:] = 1e-9
        return said.log()


def test_eight_homologs_are_worth_two_nats_to_who_reads_them():
    letter, other = 0.85 + 0.15 / 20, 0.15 / 20
    known = -letter * math.log(letter) - 19 * other * math.log(other)
    assert proteins._gain(Oracle(), seed=0) == pytest.approx(math.log(20) - known, abs=0.08)


def test_parity_is_the_oddness_of_a_sum():
    bits = torch.randint(0, 2, (4, 9), generator=torch.Generator().manual_seed(0))
    assert odd(bits).tolist() == [[sum(row[: t + 1]) % 2 for t in range(9)] for row in bits.tolist()]

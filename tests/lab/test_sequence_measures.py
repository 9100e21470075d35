"""BLEU, METEOR-exact and edit distance: by hand, by brute force, and beside nltk and sacrebleu."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from fractions import Fraction

import pytest

from loci.core.checking import refused
from loci.lab.sequence_measures import alignment, bleu, clipped, edit_distance, meteor_exact

MAT = "the cat is on the mat".split()
# Papineni et al. 2002, examples 1 and 2
GUIDE = "It is a guide to action which ensures that the military always obeys the commands of the party".split()
TROOPS = "It is to insure the troops forever hearing the activity guidebook that party direct".split()
TOLD = [
    "It is a guide to action that ensures that the military will forever heed Party commands".split(),
    "It is the guiding principle which guarantees the military forces always being under the command of the Party".split(),
    "It is the practical guide for the army always to heed the directions of the party".split(),
]


def texts(seed, count, *, shortest=1, longest=8):
    source = random.Random(seed)
    return [[source.choice("abc") for _ in range(source.randint(shortest, longest))] for _ in range(count)]


# BLEU


def test_the_the_the_matches_no_more_often_than_the_reference_has_it():
    assert clipped(["the"] * 7, [MAT], 1) == (2, 7)
    assert clipped(["the"] * 7, [MAT, "there is a cat on the mat".split()], 1) == (2, 7)
    assert clipped(["the"] * 7, [MAT], 2) == (0, 6)


def test_the_examples_of_the_paper():
    assert clipped(GUIDE, TOLD, 1) == (17, 18)
    assert clipped(TROOPS, TOLD, 1) == (8, 14)
    assert clipped(GUIDE, TOLD, 2) == (10, 17)
    assert clipped(TROOPS, TOLD, 2) == (1, 13)
    precisions = [Fraction(17, 18), Fraction(10, 17), Fraction(7, 16), Fraction(4, 15)]  # r = 18: no penalty
    assert bleu([GUIDE], [TOLD]) == pytest.approx(math.prod(map(float, precisions)) ** 0.25, abs=1e-15)
    assert bleu([TROOPS], [TOLD]) == 0.0, "no three words in a row, and nothing is smoothed"


def test_identical_texts_have_one_and_strangers_nothing():
    assert bleu([MAT], [[MAT]]) == 1.0
    assert bleu([MAT, GUIDE], [[GUIDE, MAT], [GUIDE]]) == 1.0
    assert bleu([MAT], [["a dog".split()]]) == 0.0
    assert bleu([[]], [[MAT]]) == 0.0


def test_a_short_text_pays_for_its_shortness_and_a_long_one_by_its_precision():
    assert bleu([MAT[:5]], [[MAT]]) == pytest.approx(math.exp(1 - 6 / 5), abs=1e-15)
    assert bleu([[*MAT, "x"]], [[MAT]]) == pytest.approx((6 / 7 * 5 / 6 * 4 / 5 * 3 / 4) ** 0.25, abs=1e-15)
    assert bleu([list("abcd")], [[list("abcdefg"), list("abc"), list("abcde")]]) == 1.0, "nearest: 3 and 5, of which 3"


def test_counts_are_of_the_corpus_and_not_means_of_texts():
    said, against = [list("abcd"), list("wxyz")], [[list("abcd")], [list("wxzy")]]
    want = (8 / 8 * 4 / 6 * 2 / 4 * 1 / 2) ** 0.25
    assert bleu(said, against) == pytest.approx(want, abs=1e-15)
    assert bleu(said[1:], against[1:]) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_it_is_nltk_s(seed):
    theirs = pytest.importorskip("nltk.translate.bleu_score").corpus_bleu
    said, one, two = (
        texts(seed + 100 * n, 30, shortest=4, longest=14) for n in range(3)
    )  # it counts one where there is none
    against = [list(pair) for pair in zip(one, two)]
    for order in (1, 2, 4):
        want = theirs(against, said, weights=[1 / order] * order)
        assert bleu(said, against, order=order) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_sacrebleu_s(seed):
    sacrebleu = pytest.importorskip("sacrebleu")
    said, one, two = (texts(seed + 100 * n, 30, longest=14) for n in range(3))
    line = [[" ".join(words) for words in side] for side in (said, one, two)]
    want = sacrebleu.corpus_bleu(line[0], line[1:], tokenize="none", smooth_method="none").score
    assert bleu(said, [list(pair) for pair in zip(one, two)]) == pytest.approx(want / 100, abs=1e-12)


# METEOR


def test_meteor_by_hand():
    assert meteor_exact(MAT, [MAT]) == pytest.approx(1 - 0.5 * (1 / 6) ** 3)
    turned = "on the mat sat the cat".split()  # 6 matches in 3 chunks: on the mat, sat, the cat
    assert meteor_exact(turned, ["the cat sat on the mat".split()]) == pytest.approx(1 - 0.5 * (3 / 6) ** 3)
    assert meteor_exact(list("ab"), [list("abcd")]) == pytest.approx(10 * 0.5 / (0.5 + 9) * (1 - 0.5 / 8))
    assert meteor_exact(list("abcd"), [list("ab")]) == pytest.approx(10 * 0.5 / (1 + 4.5) * (1 - 0.5 / 8))
    assert meteor_exact(list("ab"), [list("xy"), list("ab")]) == meteor_exact(list("ab"), [list("ab")])
    assert meteor_exact([], [MAT]) == meteor_exact(MAT, [[]]) == meteor_exact(["x"], [MAT]) == 0.0


def every_alignment(text, reference):
    """Brute force: over all one-to-one maps, the most matches and then the fewest chunks."""
    best = (0, 0)
    for places in itertools.product([None, *range(len(reference))], repeat=len(text)):
        kept = [(i, j) for i, j in enumerate(places) if j is not None]
        if len({j for _, j in kept}) < len(kept) or any(text[i] != reference[j] for i, j in kept):
            continue
        joined = sum((i + 1, j + 1) in kept for i, j in kept)
        best = max(best, (len(kept), joined - len(kept)))
    return best[0], -best[1]


def test_alignments_are_the_best_of_all():
    words = [list(word) for length in range(5) for word in itertools.product("ab", repeat=length)]
    source = random.Random(0)
    pairs = [
        *source.sample(list(itertools.product(words, words)), 300),
        *zip(texts(1, 40, longest=5), texts(2, 40, longest=5)),
    ]
    for text, reference in pairs:
        assert alignment(text, reference) == every_alignment(text, reference), (text, reference)


def test_a_narrow_beam_finds_as_many_matches_and_no_fewer_chunks():
    for text, reference in zip(texts(3, 50, longest=12), texts(4, 50, longest=12)):
        (wide, fewest), (narrow, chunks) = alignment(text, reference, beam=10**6), alignment(text, reference, beam=1)
        assert wide == narrow == len(text) - (Counter(text) - Counter(reference)).total()
        assert fewest <= chunks


def test_it_is_nltk_s_where_no_word_repeats_and_never_less():
    theirs = pytest.importorskip("nltk.translate.meteor_score")
    source = random.Random(5)

    def score(text, reference):  # nltk's with exact matches only, from its alignment and its count of chunks
        found, _, _ = theirs.exact_match(text, reference)
        if not found:
            return 0.0
        P, R = len(found) / len(text), len(found) / len(reference)
        return P * R / (0.9 * P + 0.1 * R) * (1 - 0.5 * (theirs._count_chunks(sorted(found)) / len(found)) ** 3)

    for _ in range(100):
        text, reference = (source.sample("abcdefgh", source.randint(1, 8)) for _ in range(2))
        assert meteor_exact(text, [reference]) == pytest.approx(score(text, reference), abs=1e-12)
    for text, reference in zip(texts(6, 100), texts(7, 100)):
        assert meteor_exact(text, [reference]) >= score(text, reference) - 1e-12


# Edit distance


def walked(start, letters="ab", longest=5):
    """Breadth first from a string by single edits: the distance of every string within `longest` letters."""
    known, edge = {start: 0}, [start]
    while edge:
        after = []
        for word in edge:
            near = {word[:i] + word[i + 1 :] for i in range(len(word))}
            near |= {word[:i] + letter + word[i + 1 :] for i in range(len(word)) for letter in letters}
            near |= {word[:i] + letter + word[i:] for i in range(len(word) + 1) for letter in letters}
            for other in near:
                if len(other) <= longest and other not in known:
                    known[other] = known[word] + 1
                    after.append(other)
        edge = after
    return known


def test_edit_distance_is_the_length_of_the_shortest_walk():
    words = ["".join(word) for length in range(5) for word in itertools.product("ab", repeat=length)]
    assert len(words) == 31
    for start in words:
        known = walked(start)
        assert [edit_distance(start, word) for word in words] == [known[word] for word in words]


def test_edit_distance_is_over_any_symbols():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("the cat sat".split(), "the dog sat down".split()) == 2
    assert edit_distance([1, 2, 3], [3, 2, 1]) == 2
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3


@pytest.mark.parametrize("seed", range(3))
def test_edit_distance_is_nltk_s(seed):
    theirs = pytest.importorskip("nltk.metrics.distance").edit_distance
    for one, two in zip(texts(seed, 50, longest=30), texts(seed + 50, 50, longest=30)):
        assert edit_distance(one, two) == theirs(one, two)


# What is refused


def test_what_cannot_be_measured_is_refused():
    refused(lambda: bleu([], []), "0 texts")
    refused(lambda: bleu([MAT], [[MAT], [MAT]]), "1 texts", "2 lists")
    refused(lambda: bleu([MAT], [[]]), "at least one")
    refused(lambda: bleu([MAT], [[MAT]], order=0), "order=0")
    refused(lambda: bleu(["the cat"], [[MAT]]), "string", kind=TypeError)
    refused(lambda: meteor_exact(MAT, ["the cat"]), "string", kind=TypeError)
    refused(lambda: meteor_exact(MAT, []), "at least one")
    refused(lambda: alignment(MAT, MAT, beam=0), "beam=0")

"""DNA-xLSTM: strands exchanged give outputs exchanged for any weights, against wrapped sub-layers, twins that break it, and texts."""

from __future__ import annotations

import collections
import itertools

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.lab.tasks import genomes
from loci.state.encoder.base import Encoder
from loci.state.encoder.bidirectional import turned
from loci.state.encoder.dna_xlstm import DNAxLSTM, flipped, on_both_strands
from loci.state.encoder.reverse_complement import (
    MASK,
    NUCLEOTIDES,
    MaskedDNA,
    either_strand,
    hidden,
    masked_loss,
    other_strand,
)
from loci.state.lstm import LSTM
from loci.state.strands import (
    COMPLEMENT,
    LETTERS,
    BothWays,
    DNASize,
    bidirectional,
    encode,
    equivariant,
    reverse_complement,
)

torch.set_num_threads(1)
DOUBLE = torch.float64
SITES = {"mlstm": (), "slstm": (0, 1), "mixed": (1,)}
COMPLEMENTS = list(COMPLEMENT)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def fresh(make, *, seed=0, dtype=DOUBLE, std=0.5):
    """Weights drawn at random, all of them: none is left where the start would put it."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        made = make()
        for param in made.parameters():
            param.normal_(std=std)
    return made.to(dtype)


def encoder(sites=(), *, seed=0, dtype=DOUBLE):
    return fresh(lambda: DNAxLSTM(8, layers=2, heads=2, slstm_at=sites, feed=6, chunk=5), seed=seed, dtype=dtype)


def model(sites=(), *, seed=0, dtype=DOUBLE):
    return fresh(lambda: MaskedDNA(DNAxLSTM(8, layers=2, heads=2, slstm_at=sites, feed=6)), seed=seed, dtype=dtype)


def rows(T, *, batch=3, D=8, seed=1, dtype=DOUBLE):
    return torch.randn(batch, T, D, generator=random(seed), dtype=DOUBLE).to(dtype)


def any_text(T, *, batch=3, seed=0):
    return torch.randint(len(LETTERS), (batch, T), generator=random(seed))


def strands_apart(one, x, lengths=None):
    """How far the output of the other strand is from the other strand of the output."""
    return float((one(flipped(x, lengths)) - flipped(one(x), lengths)).abs().max().detach())


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
@pytest.mark.parametrize("T", [1, 2, 7, 12, 33])
def test_flipped_strands_give_flipped_outputs(sites, T):
    for seed in range(3):
        assert strands_apart(encoder(sites, seed=seed), rows(T)) < 1e-10
    assert strands_apart(encoder(sites, dtype=torch.float32), rows(T, dtype=torch.float32)) < 1e-5


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
def test_each_row_is_flipped_within_its_own_length(sites):
    lengths, one = torch.tensor([12, 7, 2, 1]), encoder(sites)
    x = rows(12, batch=4)
    assert strands_apart(lambda given: one(given, lengths=lengths), x, lengths) < 1e-10
    alone = one(flipped(x[1:2, :7]))
    torch.testing.assert_close(one(flipped(x, lengths), lengths=lengths)[1:2, :7], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
def test_the_fast_form_is_every_sublayer_wrapped(sites):
    one, x, lengths = encoder(sites), rows(12), torch.tensor([12, 7, 1])
    heard = torch.arange(12) < lengths.unsqueeze(1)
    given = torch.where(heard.unsqueeze(-1), x, 0.0)
    slow = one.encode_by_layers(given, heard)[heard]
    torch.testing.assert_close(one.encode(given, heard)[heard], slow, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
def test_it_is_the_stack_of_wrapped_blocks_over_whole_texts(sites):
    """Blocks of `strands`, each wrapped, with the same weights in the same order."""
    mine = fresh(lambda: MaskedDNA(DNAxLSTM(8, layers=2, heads=2, slstm_at=sites)))
    theirs = equivariant(DNASize(D=4, layers=2, heads=2, slstm_at=sites)).double()
    params = list(mine.parameters())
    assert [p.shape for p in params] == [p.shape for p in theirs.parameters()]
    with torch.no_grad():
        for one, other in zip(theirs.parameters(), params, strict=True):
            one.copy_(other)
    ids = any_text(13)
    torch.testing.assert_close(mine(ids), theirs(ids), rtol=1e-10, atol=1e-10)


def test_one_strand_of_it_is_blocks_read_from_both_ends():
    one, x = encoder(), rows(9)
    y = x[..., :4]
    for block in one.blocks:
        y = BothWays(block.block)(y)
    torch.testing.assert_close(one(x)[..., :4], one.norm(y), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
def test_a_turned_text_gives_a_turned_output_and_gradients_come_from_both_sides(sites):
    one, x = encoder(sites), rows(9).requires_grad_()
    lengths = torch.tensor([9, 6, 9])
    there = one(turned(x, lengths), lengths=lengths)
    torch.testing.assert_close(there, turned(one(x, lengths=lengths), lengths), rtol=0, atol=1e-10)
    (back,) = torch.autograd.grad(one(x, lengths=lengths)[:, 4, :4].square().sum(), x)
    assert back[:, :4, :4].any(-1).all(), "no gradient from before"
    assert back[[0, 2], 5:, :4].any(-1).all(), "no gradient from behind"
    assert back[1, 5, :4].any(), "no gradient from behind, within the length"
    assert not back[1, 6:].any(), "a gradient from beyond the length"
    assert not back[..., 4:].any(), "strands are not mixed before the head"


class Kept(Encoder):
    """Blocks over both strands as given; twins below say what is reversed before and after the second."""

    def __init__(self, inner, flip):
        super().__init__()
        self.D, self.inner, self.flip = inner.D, inner, flip
        self.forth = fresh(lambda: LSTM(inner.d, 5))  # reads one way alone, so that a missing turn shows

    def shapes(self, batch):
        return {}

    def encode(self, x, heard):
        this, other = x.chunk(2, -1)
        out = [self.forth(part)[0] for part in (this, self.flip(other))]
        return torch.cat([out[0], self.flip(out[1])], -1)


@pytest.mark.parametrize(
    ("flip", "holds"),
    [(flipped, True), (lambda x: x.flip(1), False), (lambda x: x.flip(2), False), (lambda x: x, False)],
    ids=["both", "length alone", "channels alone", "nothing"],
)
def test_time_and_channels_have_to_be_flipped(flip, holds):
    assert (strands_apart(Kept(encoder(), flip), rows(9)) < 1e-10) == holds


def test_any_map_can_be_wrapped():
    net = fresh(lambda: nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 4)))
    mixer = fresh(lambda: LSTM(4, 6))
    lengths = torch.tensor([9, 4, 1])
    for F in (net, lambda x: mixer(x)[0]):
        x = rows(9)
        one, other = on_both_strands(F, flipped(x, lengths), lengths), flipped(on_both_strands(F, x, lengths), lengths)
        heard = torch.arange(9) < lengths.unsqueeze(1)
        torch.testing.assert_close(one[heard], other[heard], rtol=0, atol=1e-12)


def said_of_the_other(logits, lengths=None):
    """What the other strand should say: moments reversed within their lengths, letters paired."""
    return turned(logits, lengths)[..., COMPLEMENTS]


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
def test_logits_of_the_reverse_complement_are_those_of_the_text(sites):
    for T in (1, 2, 9, 16):
        for seed in range(2):
            one, ids = model(sites, seed=seed), any_text(T, seed=seed)
            gap = one(reverse_complement(ids)) - said_of_the_other(one(ids))
            assert gap.abs().max() < 1e-10
    single, ids, lengths = model(sites, dtype=torch.float32), any_text(11), torch.tensor([11, 6, 3])
    heard = torch.arange(11) < lengths.unsqueeze(1)
    there = single(other_strand(ids, lengths=lengths), lengths=lengths)
    wanted = said_of_the_other(single(ids, lengths=lengths), lengths)
    assert (there - wanted)[heard].abs().max() < 1e-5


def test_other_heads_and_encoders_break_it():
    ids = any_text(9)

    def gap(one):
        return float((one(reverse_complement(ids)) - said_of_the_other(one(ids))).abs().max().detach())

    unpaired = model()
    unpaired.head.complement = torch.arange(len(LETTERS))
    unflipped = model()
    unflipped.encoder = Kept(encoder(), lambda x: x)
    assert gap(model()) < 1e-10
    assert gap(unpaired) > 0.01
    assert gap(unflipped) > 0.01
    assert gap(fresh(lambda: bidirectional(DNASize(D=4, layers=2, heads=2)))) > 0.01


def test_both_strands_of_a_text_teach_the_same():
    one, ids = model((1,)), encode("GATTACAGATTTC")[None]
    seen, asked = hidden(ids, random(3), share=0.5)
    assert asked.any()
    grads = []
    for text, given, where in ((ids, seen, asked), (reverse_complement(ids), reverse_complement(seen), asked.flip(1))):
        grads.append(torch.autograd.grad(masked_loss(one(given), text, where), list(one.parameters())))
    for this, other in zip(*grads, strict=True):
        torch.testing.assert_close(this, other, rtol=1e-8, atol=1e-9)


def test_the_other_strand_is_read_within_lengths():
    ids = torch.stack([encode("AACGTN"), encode("GGCATN")])
    turned_over = other_strand(ids, lengths=torch.tensor([6, 4]))
    assert turned_over[0].tolist() == encode("NACGTT").tolist()
    assert turned_over[1, :4].tolist() == encode("TGCC").tolist()
    assert other_strand(turned_over, lengths=torch.tensor([6, 4])).equal(ids)
    assert other_strand(ids).equal(reverse_complement(ids))


def test_a_strand_is_chosen_for_each_row():
    ids = any_text(9, batch=400)
    chosen = either_strand(ids, random())
    as_it_is, other = (chosen == ids).all(1), (chosen == reverse_complement(ids)).all(1)
    assert (as_it_is | other).all()
    assert 160 < int(other.sum()) < 240  # 4 standard deviations
    assert either_strand(ids, random()).equal(chosen)


def test_fifteen_percent_are_asked_and_four_fifths_of_them_masked():
    ids = any_text(1000, batch=200)
    seen, asked = hidden(ids, random())
    nucleotide = torch.isin(ids, NUCLEOTIDES)
    assert not asked[~nucleotide].any()
    assert seen[~asked].equal(ids[~asked])
    share = float(asked.sum() / nucleotide.sum())
    assert share == pytest.approx(0.15, abs=0.006)
    masked, as_it_was = (float(part[asked].float().mean()) for part in (seen == MASK, seen == ids))
    assert masked == pytest.approx(0.8, abs=0.015)
    assert as_it_was == pytest.approx(0.1 + 0.1 / 4, abs=0.015)  # a random letter may be the right one
    assert torch.isin(seen[asked & (seen != MASK)], NUCLEOTIDES).all()
    again, where = hidden(ids, random())
    assert again.equal(seen)
    assert where.equal(asked)


def test_only_what_is_asked_is_in_the_loss():
    logits, ids = rows(7, D=12), any_text(7)
    asked = torch.zeros(3, 7, dtype=torch.bool)
    assert masked_loss(logits, ids, asked) == 0
    asked[0, 3] = asked[2, 6] = True
    by_hand = -sum(float(logits[at].log_softmax(-1)[ids[at]]) for at in ((0, 3), (2, 6))) / 2
    assert float(masked_loss(logits, ids, asked)) == pytest.approx(by_hand, abs=1e-12)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"D=7.*even"):
        DNAxLSTM(7)
    with pytest.raises(ValueError, match=r"slstm_at=\[2\] of 2 layers"):
        DNAxLSTM(8, layers=2, heads=2, slstm_at=[2])
    with pytest.raises(ValueError, match="layers=0"):
        DNAxLSTM(8, layers=0)
    with pytest.raises(ValueError, match="heads=3"):
        DNAxLSTM(8, heads=3)
    with pytest.raises(ValueError, match=r"share=0.0"):
        hidden(any_text(4), random(), share=0.0)
    with pytest.raises(ValueError, match=r"5 wide.*even"):
        MaskedDNA(Odd())


class Odd(Kept):
    def __init__(self):
        nn.Module.__init__(self)
        self.D = 5


# genomes


def test_words_are_as_likely_as_their_reverse_complements_and_stationary():
    for order in (1, 2, 3):
        words = genomes.symmetric_words(order, random(order))
        assert float(words.sum()) == pytest.approx(1, abs=1e-12)
        for word in itertools.product(range(4), repeat=order + 1):
            other = tuple(3 - letter for letter in reversed(word))
            assert float(words[word]) == pytest.approx(float(words[other]), abs=1e-15)
        torch.testing.assert_close(words.sum(0), words.sum(-1), rtol=0, atol=1e-14)
        assert words.max() > 4 * words.min()  # and not all alike


def test_texts_are_of_the_chain():
    kind = genomes.species(random(), order=2)
    text = genomes.background(kind, 400, 300, random(1))
    counts = collections.Counter(zip(*(text[:, i : 298 + i].flatten().tolist() for i in range(3)), strict=True))
    found = torch.tensor([counts[word] / counts.total() for word in itertools.product(range(4), repeat=3)])
    torch.testing.assert_close(found.double(), kind.words.flatten(), rtol=0, atol=2e-3)


def test_motifs_are_planted_on_either_strand():
    kind = genomes.species(random(), motifs=1, length=10)
    blank = torch.full((600, 60), 9)
    text = genomes.planted(blank, kind.motifs, random(1), parts=3)
    assert (text.view(600, 3, 20) != 9).sum(-1).eq(10).all()
    for part in text.view(600, 3, 20)[:50].flatten(0, 1):
        found = part[part != 9]
        assert found.equal(kind.motifs[0]) or found.equal(genomes.paired(kind.motifs[0]))
    there = sum(int(row[row != 9].equal(kind.motifs[0])) for row in text.view(1800, 20))
    assert 800 < there < 1000
    with pytest.raises(ValueError, match=r"7 motifs of 10.*at most 6"):
        genomes.planted(blank, kind.motifs, random(), parts=7)


def test_arms_are_equal_in_parameters_and_one_of_them_is_consistent():
    counts, gaps = [], []
    kind = genomes.species(random())
    seen, _ = hidden(genomes.texts(kind, 4, random(1)), random(2))
    for arm in ("both strands", "one strand"):
        made = fresh(lambda: genomes.built(arm), dtype=torch.float32, std=0.3)  # noqa: B023 - called at once
        counts.append(sum(param.numel() for param in made.parameters()))
        gaps.append(genomes.inconsistency(made, seen))
    assert counts[0] == counts[1]
    assert gaps[0] < 1e-5
    assert gaps[1] > 0.01


def test_learning_lowers_the_loss():
    kind = genomes.species(random())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = genomes.built("both strands")
    ids = genomes.texts(kind, 64, random(1))
    seen, asked = hidden(ids, random(2))
    with torch.no_grad():
        before = masked_loss(made(seen), ids, asked)
    genomes.trained(made, kind, random(3), steps=8, twice=False)
    with torch.no_grad():
        after = masked_loss(made(seen), ids, asked)
    assert after < before - 0.2

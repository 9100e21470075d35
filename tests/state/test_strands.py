"""Both strands of DNA: equivariance exact for any weights, both directions of a block, and what breaks them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.state.mlstm import MLSTM
from loci.state.slstm import SLSTM
from loci.state.strands import (
    COMPLEMENT,
    LETTERS,
    BothStrands,
    BothWays,
    DNASize,
    OneWay,
    StrandEmbedding,
    StrandHead,
    averaged,
    bidirectional,
    causal,
    encode,
    equivariant,
    reverse_complement,
)
from loci.state.xlstm import Block

torch.set_num_threads(1)
SMALL = DNASize(D=8, layers=2, heads=2)
MIXED = DNASize(D=8, layers=3, heads=2, slstm_at=(1,))
ONLY_S = DNASize(D=8, layers=2, heads=2, slstm_at=(0, 1))


def fresh(make, *args, seed=0, dtype=torch.float64):
    """Weights drawn at random, all of them: none is left where the start would put it."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        made = make(*args)
        for param in made.parameters():
            param.normal_(std=0.5)
    return made.to(dtype)


def text(T, *, rows=2, seed=0):
    return torch.randint(0, len(LETTERS), (rows, T), generator=torch.Generator().manual_seed(seed))


def gap(model, ids):
    """How far what is said of the other strand is from what is said of this one."""
    there, back = model(ids), model(reverse_complement(ids))
    return float((back - there.flip(1)[..., COMPLEMENT]).abs().max().detach())


@pytest.mark.parametrize("size", [SMALL, MIXED, ONLY_S], ids=["mlstm", "mixed", "slstm"])
@pytest.mark.parametrize("T", [1, 2, 7, 16, 33])
def test_a_text_and_its_reverse_complement_are_one(size, T):
    for seed in range(3):
        assert gap(fresh(equivariant, size, seed=seed), text(T, seed=seed)) < 1e-10
    assert gap(fresh(equivariant, size, dtype=torch.float32), text(T)) < 1e-5


@pytest.mark.parametrize("make", [bidirectional, causal])
def test_models_of_one_strand_are_not_equivariant_and_their_average_is(make):
    model, ids = fresh(make, SMALL), text(16)
    assert gap(model, ids) > 0.01
    assert gap(lambda rows: averaged(model, rows), ids) < 1e-10


def test_any_map_becomes_equivariant_when_its_parameters_are_shared():
    twice = BothStrands(fresh(lambda: nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 4))))
    x = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(twice(x.flip(1, 2)), twice(x).flip(1, 2))


class Flagged(BothStrands):
    """Norms the heads of the second strand in another order, as the authors' code does for sLSTM."""

    def forward(self, x):
        this, other = x.chunk(2, -1)
        norm = self.inner.block.mixer.norm
        first = self.inner(this)
        norm.weight.data = norm.weight.data.unflatten(0, (2, -1)).flip(0).flatten()
        second = self.inner(other.flip(1, 2))
        norm.weight.data = norm.weight.data.unflatten(0, (2, -1)).flip(0).flatten()
        return torch.cat([first, second.flip(1, 2)], -1)


def test_treating_the_strands_differently_breaks_it():
    block = fresh(lambda: OneWay(Block(SLSTM(8, heads=2))))
    for wrap, holds in ((BothStrands, True), (Flagged, False)):
        model = nn.Sequential(fresh(StrandEmbedding, 12, 8), wrap(block), fresh(StrandHead, 8, 12))
        assert (gap(model, text(9)) < 1e-10) == holds


@pytest.mark.parametrize("kind", [MLSTM, SLSTM])
def test_a_block_read_both_ways_turns_with_its_text_and_learns_from_both(kind):
    block = fresh(lambda: BothWays(Block(kind(8, heads=2))))
    x = torch.randn(2, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    torch.testing.assert_close(block(x.flip(1)), block(x).flip(1), rtol=0, atol=1e-10)
    (back,) = torch.autograd.grad(block(x)[:, 4].square().sum(), x)
    assert back[:, :4].any(-1).all(), "no gradient from before"
    assert back[:, 5:].any(-1).all(), "no gradient from behind"


def test_gradients_of_one_strand_are_those_of_the_other():
    model, ids = fresh(equivariant, SMALL), text(11)
    grads = []
    for rows, wanted in ((ids, slice(None)), (reverse_complement(ids), list(COMPLEMENT))):
        logits = model(rows) if rows is ids else model(rows).flip(1)
        loss = (logits[..., wanted] * torch.arange(12.0)).square().sum()
        grads.append(torch.autograd.grad(loss, model.parameters()))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_only_the_causal_model_looks_back_alone():
    ids, changed = text(10), text(10)
    changed[:, 6] = (changed[:, 6] + 1) % 12
    for make, looks in ((causal, False), (bidirectional, True), (equivariant, True)):
        model = fresh(make, SMALL)
        assert bool((model(ids)[:, :6] != model(changed)[:, :6]).any()) == looks


def test_strands_are_letters_paired_and_turned():
    ids = encode("AACGTN")
    assert reverse_complement(ids).tolist() == encode("NACGTT").tolist()
    assert torch.equal(reverse_complement(reverse_complement(text(7))), text(7))
    assert [LETTERS[other] for other in COMPLEMENT] == [*LETTERS[:7], "T", "G", "C", "A", "N"]


def test_weights_are_those_of_one_strand():
    for size in (SMALL, MIXED):
        counts = [sum(p.numel() for p in make(size).parameters()) for make in (causal, bidirectional, equivariant)]
        assert len(set(counts)) == 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"'U'.*ACGTN"):
        encode("ACU")
    with pytest.raises(ValueError, match="complement="):
        StrandEmbedding(4, 8, complement=(1, 2, 3, 0))
    with pytest.raises(ValueError, match="complement="):
        StrandHead(8, 5, complement=(1, 0, 3, 2))
    with pytest.raises(ValueError, match="slstm_at"):
        equivariant(DNASize(D=8, layers=2, heads=2, slstm_at=(2,)))

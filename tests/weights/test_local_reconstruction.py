"""Local reconstruction: PCA as the oracle, the detached target, greedy and end-to-end limits, decoders, and the bytes."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.lab.tasks.gratings import CLASSES, draw, unit
from loci.weights.local.checks import peak_saved_bytes
from loci.weights.local.cut import Classified, Cut, features
from loci.weights.local.decoders import TokenDecoder, as_map, as_tokens, decoder, normalised
from loci.weights.local.heads import Pooled
from loci.weights.local.infopro import image_losses
from loci.weights.local.local_reconstruction import FeatureLoss, ReconstructingTransformer, feature_losses
from loci.weights.local.nets import Block, Merging, Residual, conv_stem, merging_transformer
from loci.weights.local.saved import Saved

torch.set_num_threads(1)
SMALL = {"width": 8, "heads": 2, "modules": 4, "size": 8, "classes": 3}


def batch(trainer, rows=8, seed=1):
    return trainer.draw(rows, torch.Generator().manual_seed(seed))


def gradients(module):
    return {name: param.grad for name, param in module.named_parameters() if param.grad is not None}


def transformer(blocks, *, losses=None, width=16, shape=(1, 12, 12), **options):
    """The small transformer of the claim, with any losses."""
    torch.manual_seed(0)
    stem, parts, head = merging_transformer(width, 2, layers=4, blocks=blocks, shape=shape, patch=2, classes=9)
    made = losses(stem, parts, shape=shape, classes=9, **options) if losses else []
    return Cut(stem, parts, head, made, shape=shape, classes=9)


def least(h, out, steps=60):
    """The smallest raw reconstruction that a linear decoder reaches, by L-BFGS on the loss of the library."""
    loss = FeatureLoss(
        TokenDecoder(out.shape[-1], (h.shape[-1],)), nn.Identity(), lam1=1.0, lam2=0.0, normalise=False
    ).double()
    optimizer = torch.optim.LBFGS(
        loss.decoder.parameters(),
        max_iter=steps,
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        value = loss(out, h, h, torch.zeros(len(h), dtype=torch.int64))
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(closure)
    return float(closure().detach())


def test_what_an_identity_gives_is_rebuilt_exactly():
    torch.manual_seed(0)
    h = torch.randn(200, 6, dtype=torch.float64)
    assert least(h, h) < 1e-6


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_projection_costs_the_discarded_eigenvalues(rank):
    torch.manual_seed(0)
    h = torch.randn(300, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) + 2
    values, vectors = torch.linalg.eigh(torch.cov(h.T, correction=0))
    kept = h @ vectors[:, -rank:]
    assert 6 * least(h, kept) == pytest.approx(float(values[:-rank].sum()), rel=1e-3)


def test_the_target_is_what_the_block_was_given_normalised_and_detached():
    trainer = ReconstructingTransformer(**SMALL)
    x, y = batch(trainer)
    h = [trainer.stem(x)]
    for part in trainer.parts:
        h.append(part(h[-1]))
    for number, loss in enumerate(trainer.block_losses(x, y)):
        if number == 3:
            break
        given = h[number].detach()
        target = (given - given.mean(-1, keepdim=True)) / (given.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        rebuilt = trainer.losses[number].decoder(h[number + 1])
        scores = trainer.losses[number].head.map(h[number + 1].mean(1))
        due = (rebuilt - target).square().mean() + nn.functional.cross_entropy(scores, y)
        torch.testing.assert_close(loss, due)


def test_no_gradient_goes_through_the_target():
    loss = FeatureLoss(nn.Linear(4, 4), Pooled(4, 3), lam1=1.0, lam2=0.0)
    given = torch.randn(5, 4, requires_grad=True)
    value = loss(torch.randn(5, 4), given, given, torch.zeros(5, dtype=torch.int64))
    assert torch.autograd.grad(value, [given], allow_unused=True) == (None,)


def test_the_stem_learns_by_the_first_block_though_its_features_are_the_target():
    trainer = ReconstructingTransformer(**SMALL)
    loss = next(trainer.block_losses(*batch(trainer)))
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(loss, list(trainer.stem.parameters())))


def test_without_reconstruction_it_is_greedy():
    trainer = transformer(4, losses=feature_losses, lam1=(0.0, 0.0))
    twin = copy.deepcopy(trainer)
    greedy = Cut(
        twin.stem,
        list(twin.parts),
        twin.head,
        [Classified(loss.head) for loss in twin.losses],
        shape=(1, 12, 12),
        classes=9,
    )
    ours, theirs = ([float(v) for v in t.backward_blocks(*batch(trainer))] for t in (trainer, greedy))
    assert ours == theirs
    for mine, other in zip(trainer.parts.parameters(), greedy.parts.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)


def test_one_module_is_end_to_end():
    trainer = transformer(1, losses=feature_losses)
    twin, (x, y) = copy.deepcopy(trainer), batch(trainer)
    list(trainer.backward_blocks(x, y))
    nn.functional.cross_entropy(twin(x), y).backward()
    assert all(torch.equal(grad, gradients(twin)[name]) for name, grad in gradients(trainer).items())


def test_weights_go_linearly_from_the_first_block_to_the_last_that_has_a_loss():
    trainer = transformer(4, losses=feature_losses, lam1=(5.0, 0.0), lam2=(0.5, 1.5))
    assert [(loss.lam1, loss.lam2) for loss in trainer.losses] == [(5.0, 0.5), (2.5, 1.0), (0.0, 1.5)]


@pytest.mark.parametrize("decoding", ["linear", "mlp", "attention", "conv"])
@pytest.mark.parametrize("modules", [2, 4])
def test_every_decoder_learns_to_rebuild(modules, decoding):
    trainer = transformer(modules, losses=feature_losses, decoding=decoding, heads=2)
    optimizer = torch.optim.AdamW(trainer.parameters(), lr=3e-3)
    x, y = batch(trainer, 16)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        losses.append([float(loss) for loss in trainer.backward_blocks(x, y)])
        optimizer.step()
    assert all(end < start for end, start in zip(losses[-1], losses[0], strict=True))


@pytest.mark.parametrize("kind", ["linear", "mlp", "attention", "conv"])
@pytest.mark.parametrize(
    ("out", "target"), [((9, 16), (36, 8)), ((36, 8), (36, 8)), ((9, 8), (3, 12, 12)), ((8, 4, 4), (4, 8, 8))]
)
def test_decoders_give_the_shape_that_they_are_to_rebuild(kind, out, target):
    width = out[0] if len(out) == 3 else out[-1]
    made = decoder(kind, out, target, block=Block(width, 2))
    assert made(torch.randn(5, *out)).shape == (5, *target)


def test_a_linear_decoder_undoes_merging_place_by_place():
    """A decoder whose map is the identity puts four channels of a coarse token where the merging had taken them from."""
    x = torch.randn(2, 36, 5)
    four = as_tokens(nn.functional.pixel_unshuffle(as_map(x), 2))
    made = TokenDecoder(20, (36, 5), side=3)
    with torch.no_grad():
        made.map.weight.copy_(torch.eye(20))
        made.map.bias.zero_()
    torch.testing.assert_close(made(four), x)


def test_merging_takes_four_neighbours():
    merging = Merging(2)
    x = torch.zeros(1, 16, 2)
    x[0, [0, 1, 4, 5]] = torch.randn(4, 2)  # the upper left corner of a 4 x 4 grid
    moved = (merging(x) - merging(torch.zeros_like(x))).abs().sum(2)
    assert moved.shape == (1, 4)
    assert moved[0, 0] > 0
    assert moved[0, 1:].sum() == 0


def test_normalised_is_torchs_layer_norm_on_maps_too():
    maps = torch.randn(3, 5, 4, 4)
    due = nn.functional.layer_norm(maps.permute(0, 2, 3, 1), (5,)).permute(0, 3, 1, 2)
    torch.testing.assert_close(normalised(maps), due)


@pytest.mark.parametrize("modules", [2, 4])
def test_the_peak_is_the_largest_module_with_its_decoder_and_head(modules):
    trainer = ReconstructingTransformer(**SMALL | {"modules": modules})
    x, y = batch(trainer)
    alone, h = [], x
    for number, part in enumerate(trainer.parts):
        with Saved(trainer, x, y) as saved:
            given = trainer.stem(h) if number == 0 else h
            out = part(given)
            if number < modules - 1:
                loss = trainer.losses[number](out, given.detach(), x, y)
            else:
                loss = nn.functional.cross_entropy(trainer.head(out), y)
            alone.append(saved.now)
            h = out.detach()
            del loss, out, given
    assert peak_saved_bytes(trainer, x, y) == max(alone) < sum(alone)


@pytest.mark.parametrize(("modules", "share"), [(2, 0.75), (4, 0.65)])
def test_it_holds_less_than_end_to_end_and_than_images(modules, share):
    options = {"width": 64, "losses": feature_losses, "lam1": (1.0, 1.0)}
    x, y = draw(16, torch.Generator().manual_seed(0))
    whole = peak_saved_bytes(transformer(1, width=64), x, y)
    ours = peak_saved_bytes(transformer(modules, **options), x, y)
    images = peak_saved_bytes(transformer(modules, width=64, losses=image_losses, lam1=(1.0, 1.0), restore=unit), x, y)
    assert ours <= share * whole
    assert ours <= 0.95 * images


def test_it_takes_a_convolutional_net():
    torch.manual_seed(0)
    stem, blocks = conv_stem(1, 4), [Residual(4), Residual(4, 8, stride=2), Residual(8)]
    losses = feature_losses(stem, blocks, shape=(1, 8, 8), classes=3)
    trainer = Cut(stem, blocks, Pooled(8, 3), losses, shape=(1, 8, 8), classes=3)
    assert len(list(trainer.backward_blocks(*batch(trainer)))) == 3


def test_looking_at_features_changes_no_statistic_and_no_mode():
    stem, blocks = conv_stem(1, 4), [Residual(4).eval(), Residual(4, 8, stride=2)]
    before = copy.deepcopy([part.state_dict() for part in (stem, *blocks)])
    assert features(stem, blocks, (1, 8, 8)) == [(4, 8, 8), (4, 8, 8), (8, 4, 4)]
    assert [part.training for part in (stem, *blocks)] == [True, False, True]
    for part, old in zip((stem, *blocks), before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in part.state_dict().items())


def test_what_does_not_fit_is_one_sentence():
    with pytest.raises(ValueError, match=r"modules=3 does not fit 4 layers; choose an even divisor of 4"):
        ReconstructingTransformer(modules=3)
    with pytest.raises(ValueError, match=r"35 tokens are no square grid"):
        decoder("linear", (35, 8), (35, 8))
    with pytest.raises(ValueError, match=r"side=5 does not divide the target's 12; use ConvDecoder"):
        TokenDecoder(8, (1, 12, 12), side=5)
    with pytest.raises(ValueError, match=r"kind='attention' needs block="):
        decoder("attention", (36, 8), (36, 8))
    with pytest.raises(ValueError, match=r"kind='magic' is no decoder; choose one of linear, mlp, attention, conv"):
        decoder("magic", (36, 8), (36, 8))
    with pytest.raises(ValueError, match=r"is not a square map"):
        decoder("conv", (4, 4, 4), (1, 4, 6))


def test_gratings_are_what_their_class_says():
    """Without noise the columns left of the split hold the left grating alone: its gradient has the grating's direction."""
    x, y = draw(600, torch.Generator().manual_seed(0))
    assert x.shape == (600, 1, 12, 12)
    assert set(y.tolist()) == set(range(CLASSES))
    assert float(x.var()) == pytest.approx(1.8**2 + 0.5, rel=0.05)
    again, _ = draw(600, torch.Generator().manual_seed(0))
    assert torch.equal(x, again)
    assert 0 <= float(unit(x).min()) <= float(unit(x).max()) <= 1
    horizontal, vertical = (x[y // 3 == kind, 0, :, :4].mean(1).square().mean() for kind in (0, 1))
    assert (
        horizontal > 1.3 * vertical
    )  # kind 0 varies along columns, so the mean over rows keeps it; kind 1 averages out


def test_the_nuisance_is_strong_and_says_nothing():
    plain, y = draw(4000, torch.Generator().manual_seed(0))
    loud, same = draw(4000, torch.Generator().manual_seed(0), nuisance=True)
    assert torch.equal(y, same)
    added = loud - plain
    assert float(added.var()) == pytest.approx(4.5, rel=0.05)
    per_class = torch.stack([added[y == kind].mean((0, 1)) for kind in range(CLASSES)])
    assert float(per_class.abs().max()) < 0.6  # 9 x 144 means of about 440 draws of sd 2.1

"""SSAMBA and its pretraining: the block against two Mambas, masks by their statistics, losses in closed form, and no leaks."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.lab.tasks.audio import FRAMES, MEL, RATE, WINDOW, OneWay, fitted, log_mel, sounds, spectrograms, triangles
from loci.state.encoder.masked_patches import MaskedPatches, at, clustered, contrast
from loci.state.encoder.ssamba import SSAMBA, Block, ClipClassifier, PatchEncoder, normalised
from loci.state.mamba import Mamba

torch.set_num_threads(1)
DOUBLE = torch.float64


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=random(seed), dtype=DOUBLE).to(dtype)


def fresh(kind, *args, seed=0, dtype=DOUBLE, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*args, **options).to(dtype)


def block(seed=0):
    return fresh(Block, 6, E=12, N=3, K=4, rank=2, chunk=5, seed=seed)


def model(dtype=DOUBLE):
    """4 x 6 patches of 4 x 4."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MaskedPatches(PatchEncoder(SSAMBA(8, depth=2, N=3), mel=16, frames=24, patch=4)).to(dtype)


def as_mamba(two_ways, system):
    """A Mamba with the maps of a block and one of its systems."""
    one = fresh(Mamba, 6, N=3, rank=2)
    one.inward, one.outward, one.system = two_ways.inward, two_ways.outward, system
    return one


def test_a_block_is_the_mean_of_two_mambas_one_of_which_reads_from_the_end():
    two_ways, x = block(), drawn(2, 11, 6)
    normed = two_ways.norm(x)
    forth, _ = as_mamba(two_ways, two_ways.forth)(normed)
    back, _ = as_mamba(two_ways, two_ways.back)(normed.flip(1))
    found = two_ways(x, torch.full((2,), 11))
    torch.testing.assert_close(found, (forth + back.flip(1)) / 2, rtol=1e-10, atol=1e-10)


def test_a_turned_input_and_exchanged_systems_give_the_turned_output():
    one, other, x = block(), block(), drawn(2, 11, 6)
    other.forth, other.back = one.back, one.forth
    all_of_it = torch.full((2,), 11)
    torch.testing.assert_close(other(x.flip(1), all_of_it), one(x, all_of_it).flip(1), rtol=1e-10, atol=1e-10)
    assert (one(x.flip(1), all_of_it) - one(x, all_of_it).flip(1)).abs().max() > 1e-4  # the systems do differ


def test_pairs_are_those_of_the_authors_code():
    """Hidden states and residuals side by side, both added over a pair, as in its loop over layers."""
    encoder, x = fresh(SSAMBA, 6, depth=4, N=3), drawn(2, 9, 6)
    all_of_it = torch.full((2,), 9)
    hidden, residual = x, None

    def layer(block, hidden, residual):
        residual = hidden if residual is None else hidden + residual
        return block(residual, all_of_it), residual

    for place in (0, 2):
        straight = layer(encoder.blocks[place], hidden, residual)
        turn = layer(encoder.blocks[place + 1], hidden.flip(1), None if residual is None else residual.flip(1))
        hidden, residual = (one + two.flip(1) for one, two in zip(straight, turn, strict=True))
    torch.testing.assert_close(encoder(x), encoder.norm(residual + hidden), rtol=1e-10, atol=1e-10)


def test_each_direction_has_parameters_of_its_own():
    encoder = fresh(SSAMBA, 6, depth=2, N=3)
    names = {name for name, _ in encoder.named_parameters()}
    forth = {name.removeprefix("blocks.0.forth.") for name in names if name.startswith("blocks.0.forth.")}
    assert forth == {name.removeprefix("blocks.0.back.") for name in names if name.startswith("blocks.0.back.")}
    assert {"A_log", "skip", "conv.taps", "select.weight", "step_size.weight", "step_size.bias"} <= forth
    assert len({param.data_ptr() for param in encoder.parameters()}) == len(names)


# masks


def test_masks_are_distinct_places_in_range_and_in_clusters():
    grid, P, source = (8, 64), 300, random()
    alone = clustered(1000, P, grid=grid, random=source)
    assert alone.shape == (1000, P)
    assert alone.dtype == torch.int64
    assert alone.min() == 0  # the first place can be hidden, as the last
    assert alone.max() == 8 * 64 - 1
    assert (alone.sort(1).values.diff(dim=1) > 0).all()

    def together(places):
        """Of neighbours in time of hidden patches, how many are hidden."""
        hidden = torch.zeros(len(places), 512).scatter(1, places, 1.0).view(-1, *grid)
        return float((hidden[..., 1:] * hidden[..., :-1]).sum() / hidden[..., :-1].sum())

    few = clustered(1000, 60, grid=grid, random=source)
    uniform = torch.rand(1000, 512, generator=source).argsort(1)[:, :60]
    assert together(uniform) == pytest.approx(59 / 511, abs=0.01)
    assert together(few) > 4 * together(uniform)


def test_a_mask_of_one_square_is_a_square():
    sides = set()
    for seed in range(60):
        places = clustered(1, 9, grid=(20, 30), random=random(seed))[0]
        rows, columns = places // 30, places % 30
        if int(rows[0]) < 15 and int(columns[0]) < 25:  # not cut by an edge
            side = int(columns.max() - columns.min()) + 1
            due = [(int(rows[0]) + k // side, int(columns[0]) + k % side) for k in range(9)]
            assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == due
            sides.add(side)
    assert sides == {3, 4, 5}


def test_the_same_seed_hides_the_same_and_all_can_be_hidden():
    one, two = (clustered(5, 10, grid=(4, 6), random=random(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert clustered(2, 24, grid=(4, 6), random=random())[0].sort().values.tolist() == list(range(24))


# losses


@pytest.mark.parametrize(("P", "R"), [(4, 1.0), (16, 1.5), (30, 0.1)])
def test_orthogonal_patches_told_perfectly_cost_what_is_left(P, R):
    patches = R * torch.linalg.qr(drawn(2, 40, P))[0].transpose(1, 2)  # (2, P, 40), rows orthogonal and R long
    loss, accuracy = contrast(patches, patches)
    assert loss.item() == pytest.approx(math.log(1 + (P - 1) * math.exp(-(R**2))), rel=1e-12)
    assert float(accuracy) == 1.0


def test_the_contrast_is_by_patches_of_the_same_clip_alone():
    patches, predicted = drawn(3, 5, 7), drawn(3, 5, 7, seed=1)
    due = 0.0
    for x, c in zip(patches.numpy(), predicted.numpy(), strict=True):
        scores = x @ c.T
        due -= np.mean([scores[i, i] - np.log(np.exp(scores[i]).sum()) for i in range(5)]) / 3
    assert float(contrast(patches, predicted)[0]) == pytest.approx(due, rel=1e-12)


def test_the_loss_is_both_by_the_papers_weight_under_masks_of_their_own():
    masked, clips = model(), drawn(3, 16, 24)
    told, painted = clustered(3, 7, grid=(4, 6), random=random(1)), clustered(3, 7, grid=(4, 6), random=random(2))
    found = masked(clips, told, painted)
    total, discriminative, generative, _ = (part.item() for part in found)
    assert total == pytest.approx(discriminative + 10 * generative, rel=1e-12)
    pixels = masked.encoder.pixels(clips)
    patches = masked.encoder.embed(clips)
    said = masked.paint(masked.said(patches, painted))
    due = np.mean([(said[b, i] - pixels[b, painted[b, i]]).square().mean().item() for b in range(3) for i in range(7)])
    assert generative == pytest.approx(due, rel=1e-12)
    assert masked(clips, painted, told).generative.item() != generative
    torch.autograd.backward(found.total)
    assert all(param.grad is not None and param.grad.any() for param in masked.parameters())


def test_what_is_hidden_is_not_seen():
    masked, clips = model(), drawn(2, 16, 24)
    hidden = clustered(2, 7, grid=(4, 6), random=random())
    other = clips.clone()
    for row in range(2):
        for place in hidden[row].tolist():
            top, left = 4 * (place // 6), 4 * (place % 6)
            other[row, top : top + 4, left : left + 4] = 100.0
    one, two = (masked.said(masked.encoder.embed(given), hidden) for given in (clips, other))
    assert torch.equal(one, two)
    assert (at(masked.encoder.pixels(other), hidden) == 100).all()  # the targets are what changed
    seen = masked.said(masked.encoder.embed(clips), hidden.sort(1).values[:, :3])
    assert not torch.equal(seen, masked.said(masked.encoder.embed(other), hidden.sort(1).values[:, :3]))


def test_no_gradient_reaches_a_hidden_patch():
    masked, clips = model(), drawn(1, 16, 24).requires_grad_()
    hidden = torch.tensor([[0, 7, 23]])
    (back,) = torch.autograd.grad(masked.said(masked.encoder.embed(clips), hidden).square().sum(), clips)
    by_patch = masked.encoder.pixels(back)[0].abs().sum(1)
    assert not by_patch[hidden[0]].any()
    assert (by_patch > 0).sum() == 21


def test_earlier_hidden_patches_need_the_way_back():
    """Of what comes after a hidden patch, a one-way encoder says nothing in its place."""
    hidden = torch.tensor([[2]])
    for encoder, hears in ((SSAMBA(8, depth=2, N=3), True), (OneWay(8, depth=3), False)):
        masked = MaskedPatches(PatchEncoder(encoder, mel=16, frames=24, patch=4)).to(DOUBLE)
        patches = drawn(1, 24, 8).requires_grad_()
        (back,) = torch.autograd.grad(masked.said(patches, hidden).square().sum(), patches)
        assert bool(back[0, 3:].any()) == hears
        assert back[0, :2].any()


# spectrograms


def test_patches_are_tiles_in_the_order_of_frequency_then_time():
    encoder, clips = model().encoder, drawn(2, 16, 24)
    tiles = clips.reshape(2, 4, 4, 6, 4).transpose(2, 3).reshape(2, 24, 16)
    assert torch.equal(encoder.pixels(clips), tiles)
    weight = encoder.project.weight.flatten(1)
    torch.testing.assert_close(encoder.embed(clips), tiles @ weight.T + encoder.project.bias, rtol=1e-10, atol=1e-10)


def test_places_and_cls_are_added_and_pooling_leaves_cls_out():
    encoder, clips = model().encoder, drawn(2, 16, 24)
    rows = torch.cat([encoder.cls.expand(2, 1, 8), encoder.embed(clips)], 1) + encoder.places
    said = encoder.encoder(rows)
    torch.testing.assert_close(encoder(clips), said[:, 1:], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(encoder.pooled(clips), said[:, 1:].mean(1), rtol=1e-12, atol=1e-12)
    classifier = ClipClassifier(encoder, 5).to(DOUBLE)
    assert classifier(clips).shape == (2, 5)


def test_the_papers_input_is_512_patches():
    encoder = PatchEncoder(SSAMBA(4, depth=2, N=1))
    assert encoder.grid == (8, 64)
    assert encoder.places.shape == (513, 4)
    assert encoder.project.weight.shape == (4, 1, 16, 16)
    assert float(normalised(torch.tensor(-4.2677393 + 2 * 4.5689974))) == pytest.approx(1.0)


def test_the_tiny_model_of_the_paper_has_its_blocks():
    with torch.device("meta"):
        tiny = SSAMBA(192)
    assert (tiny.depth, tiny.E, tiny.N, tiny.K, tiny.rank) == (24, 384, 16, 4, 12)
    each = 192 * 2 * 384 + 384 * 192 + 2 * (384 * (4 + 1) + 384 * (12 + 32) + 384 * 12 + 384 + 384 * 16 + 384) + 2 * 192
    assert sum(param.numel() for param in tiny.parameters()) == 24 * each + 2 * 192


# refusals


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: SSAMBA(8, depth=3), "depth=3"),
        (lambda: SSAMBA(0), "D=0"),
        (lambda: PatchEncoder(SSAMBA(4, depth=2), mel=30), "patch=16"),
        (lambda: clustered(1, 0, grid=(4, 6), random=random()), "P=0"),
        (lambda: clustered(1, 25, grid=(4, 6), random=random()), "P=25"),
        (lambda: model().encoder(drawn(2, 16, 25)), r"16, 25.*16, 24"),
        (lambda: model().encoder(torch.ones(2, 16, 24, dtype=torch.int64)), "int64"),
        (lambda: model()(drawn(2, 16, 24), torch.tensor([[24], [0]]), torch.tensor([[0], [0]])), "0 to 23"),
        (lambda: model()(drawn(2, 16, 24), torch.tensor([[1]]), torch.tensor([[0], [0]])), r"\(1, 1\)"),
        (lambda: model()(drawn(2, 16, 24), torch.ones(2, 1), torch.tensor([[0], [0]])), "float32"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# the sounds of the claim


def test_mel_triangles_cover_and_overlap():
    weights = triangles().numpy()
    assert weights.shape == (MEL, WINDOW // 2 + 1)
    assert weights.min() >= 0
    top = 1127 * math.log(1 + RATE / 2 / 700)
    middles = 700 * (np.exp(np.linspace(0, top, MEL + 2) / 1127) - 1)
    hertz = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    for k in range(MEL):
        np.testing.assert_allclose(weights[k], np.interp(hertz, middles[k : k + 3], [0, 1, 0]), atol=1e-4)


def test_a_spectrogram_is_of_the_power_of_each_window():
    clips = sounds(torch.tensor([0, 5]), random())
    found = log_mel(clips)
    assert found.shape == (2, MEL, FRAMES)
    samples, hop = clips[1].double().numpy(), RATE // FRAMES
    frame = samples[20 * hop - WINDOW // 2 : 20 * hop + WINDOW // 2] * (
        0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    )
    due = np.log(triangles().double().numpy() @ np.abs(np.fft.rfft(frame)) ** 2 + 1e-6)
    np.testing.assert_allclose(found[1, :, 20], due, rtol=1e-3, atol=1e-3)


def test_kinds_are_what_they_are_called():
    kinds = torch.arange(8).repeat(10)
    clips = sounds(kinds, random())
    power = torch.stft(clips, WINDOW, 125, window=torch.hann_window(WINDOW), return_complex=True).abs().square()
    loudest = power[:, :, 3:-3].sum(2).argmax(1) * RATE / WINDOW
    assert loudest.min() > 120  # an octave around 200 to 400 Hz
    assert loudest.max() < 600
    low = power[:, :40]  # up to 625 Hz
    centre = (low * torch.arange(40).view(1, -1, 1)).sum(1) / low.sum(1)
    up = centre[:, 42:58].mean(1) > centre[:, 6:22].mean(1)
    assert (up == (kinds >= 4)).float().mean() > 0.9
    envelope = clips.square().view(80, 100, 80).mean(2)
    tones = torch.fft.rfft(envelope - envelope.mean(1, keepdim=True), dim=1).abs()
    assert ((tones[:, 5] > tones[:, 3]) == (kinds // 2 % 2 == 1)).float().mean() > 0.9


def test_the_same_seed_makes_the_same_clips_and_the_probe_learns_what_is_linear():
    one, two = (spectrograms(30, random(4)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    kinds = torch.randint(8, (600,), generator=random())
    vectors = nn.functional.one_hot(kinds, 8) + 0.1 * drawn(600, 8)
    assert fitted((vectors[:200], vectors[200:]), (kinds[:200], kinds[200:])) > 99
    assert fitted((drawn(200, 8), drawn(400, 8, seed=1)), (kinds[:200], kinds[200:])) < 25

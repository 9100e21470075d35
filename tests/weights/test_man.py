"""MAN: the average in closed form, gradients by hand, ablations, one block, and what the authors' code does in a step."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.core import formula
from loci.weights.local.checks import peak_saved_bytes
from loci.weights.local.cut import Classified, Cut
from loci.weights.local.decoders import decoder
from loci.weights.local.heads import ConvPooled, Pooled, contrast
from loci.weights.local.infopro import ImageLoss, between, image_losses
from loci.weights.local.man import MAN, Average, Bias, Copy, MANResNet
from loci.weights.local.nets import Residual, conv_stem, grouped
from loci.weights.local.saved import Saved

torch.set_num_threads(1)
SMALL = {"width": 4, "layers": 4, "blocks": 4, "size": 6, "classes": 3}


def batch(trainer, rows=8, seed=1):
    return trainer.draw(rows, torch.Generator().manual_seed(seed))


def step(trainer, lr=0.05, seed=1):
    optimizer = torch.optim.SGD(trainer.parameters(), lr=lr)
    losses = [float(loss) for loss in trainer.backward_blocks(*batch(trainer, seed=seed))]
    optimizer.step()
    return losses


def gradients(module):
    return {name: param.grad for name, param in module.named_parameters() if param.grad is not None}


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.995, 1.0])
def test_with_a_constant_layer_the_average_is_its_closed_form(momentum):
    average, layer = Average(Residual(3)), Residual(3)
    start = [param.clone() for param in average.parameters()]
    for _ in range(40):
        average.follow(layer, momentum)
    share = momentum**40
    for mine, first, theirs in zip(average.parameters(), start, layer.parameters(), strict=True):
        torch.testing.assert_close(mine.detach(), share * first + (1 - share) * theirs.detach(), rtol=0, atol=1e-6)
        assert not mine.requires_grad
        if momentum in (0.0, 1.0):
            assert torch.equal(mine, first if momentum else theirs)


def test_the_average_follows_the_next_layer_as_it_is_before_the_step():
    trainer = MANResNet(**SMALL, momentum=0.0)
    before = [copy.deepcopy(block[0]) for block in trainer.parts]
    step(trainer)
    for number, branches in enumerate(trainer.branches):
        for mine, old, new in zip(
            branches[0].parameters(),
            before[number + 1].parameters(),
            trainer.parts[number + 1].parameters(),
            strict=True,
        ):
            assert torch.equal(mine, old)
        assert any(
            not torch.equal(old, new)
            for old, new in zip(before[number + 1].parameters(), trainer.parts[number + 1].parameters(), strict=True)
        )


def test_averages_start_at_the_layer_they_follow_and_copies_too():
    trainer = MANResNet(**SMALL)
    for number, branches in enumerate(trainer.branches):
        for branch in branches:
            theirs = trainer.parts[number + 1][0].state_dict()
            assert all(torch.equal(mine, theirs[name]) for name, mine in branch.layer.state_dict().items())


def test_in_evaluation_the_losses_move_no_average():
    trainer = MANResNet(**SMALL, momentum=0.5)
    step(trainer)
    trainer.eval()
    before = copy.deepcopy(trainer.state_dict())
    list(trainer.block_losses(*batch(trainer)))
    assert all(torch.equal(value, before[name]) for name, value in trainer.state_dict().items())


def test_buffers_of_the_average_are_its_own():
    trainer = MANResNet(**SMALL, momentum=1.0)
    for _ in range(2):
        step(trainer)
    average = trainer.branches[0][0].layer
    assert average.norm1.num_batches_tracked == 2
    assert not torch.equal(average.norm1.running_mean, trainer.parts[1][0].norm1.running_mean)


def by_hand(trainer, x, y):
    """The authors' step, block by block, with autograd alone: gradients, and the averages after it."""
    cross_entropy = nn.functional.cross_entropy
    moved, h = [], trainer.stem(x)
    for number in range(len(trainer.parts) - 1):
        h = trainer.parts[number](h)
        average, learned = trainer.branches[number]
        seen = learned.layer(h) + average.layer(h)
        scores = trainer.losses[number].head.map(seen.mean((2, 3)))
        cross_entropy(scores, y).backward()
        h = h.detach()
        moved.append(
            [
                old * trainer.momentum + new * (1 - trainer.momentum)
                for old, new in zip(average.parameters(), trainer.parts[number + 1][0].parameters(), strict=True)
            ]
        )
    cross_entropy(trainer.head(trainer.parts[-1](h)), y).backward()
    return gradients(trainer), moved


def test_a_step_is_the_authors_step():
    trainer = MANResNet(**SMALL, momentum=0.9)
    step(trainer)
    trainer.zero_grad()
    twin = copy.deepcopy(trainer)
    grads, moved = by_hand(twin, *batch(trainer, seed=3))
    list(trainer.backward_blocks(*batch(trainer, seed=3)))
    assert gradients(trainer).keys() == grads.keys()
    for name, grad in gradients(trainer).items():
        torch.testing.assert_close(grad, grads[name], rtol=0, atol=1e-6, msg=name)
    for branches, averages in zip(trainer.branches, moved, strict=True):
        for mine, due in zip(branches[0].parameters(), averages, strict=True):
            torch.testing.assert_close(mine.detach(), due.detach(), rtol=0, atol=1e-6)


def test_gradients_pass_through_the_average():
    trainer = MANResNet(**SMALL, branches=[Average])
    loss = next(trainer.block_losses(*batch(trainer)))
    grads = torch.autograd.grad(loss, list(trainer.parts[0].parameters()))
    assert all(grad.abs().sum() > 0 for grad in grads)


def end_to_end(trainer, x, y):
    nn.functional.cross_entropy(trainer.head(trainer.parts[0](trainer.stem(x))), y).backward()
    return gradients(trainer)


def test_one_block_is_end_to_end_training():
    trainer = MANResNet(**SMALL | {"blocks": 1})
    twin = copy.deepcopy(trainer)
    x, y = batch(trainer)
    list(trainer.backward_blocks(x, y))
    due = end_to_end(twin, x, y)
    assert all(torch.equal(grad, due[name]) for name, grad in gradients(trainer).items())
    assert gradients(trainer).keys() == due.keys()
    assert not list(trainer.branches.parameters())


def test_without_branches_it_is_the_base_method():
    trainer = MANResNet(**SMALL, branches=[])
    plain = Cut(trainer.stem, list(trainer.parts), trainer.head, list(trainer.losses), shape=(1, 6, 6), classes=3)
    twin, x, y = copy.deepcopy(plain), *batch(trainer)
    ours = [float(loss) for loss in trainer.backward_blocks(x, y)]
    base = [float(loss) for loss in twin.backward_blocks(x, y)]
    assert ours == base
    assert all(torch.equal(grad, gradients(twin)[name]) for name, grad in gradients(trainer).items())


@pytest.mark.parametrize("branches", [[Average], [Copy], [Copy, Copy], [Average, lambda layer: Bias(4, 1, 1)], []])
def test_ablations_train_and_keep_their_formula(branches):
    trainer = MANResNet(**SMALL, branches=branches)
    losses = [step(trainer) for _ in range(30)]
    assert sum(losses[-1]) < sum(losses[0])
    if not any(isinstance(branch, Bias) for branch in trainer.branches[0]):
        said = formula.evaluate(trainer.card.bytes, trainer.shapes(8))
        assert peak_saved_bytes(trainer, *batch(trainer)) == said


def test_the_peak_is_the_largest_block_counted_alone():
    trainer = MANResNet(**SMALL)
    x, y = batch(trainer)
    alone = []
    for number, h in enumerate(inputs(trainer, x)):
        with Saved(trainer, x, y) as saved:
            given = trainer.stem(h) if number == 0 else h
            out = trainer.parts[number](given)
            scores = trainer.head(out) if number == 3 else trainer.losses[number].head(trainer.look(number, out))
            loss = nn.functional.cross_entropy(scores, y)
            alone.append(saved.now)
            del loss, scores, out, given
    assert peak_saved_bytes(trainer, x, y) == max(alone) < sum(alone)


def inputs(trainer, x):
    with torch.no_grad():
        hs = [x, trainer.parts[0](trainer.stem(x))]
        for part in trainer.parts[1:-1]:
            hs.append(part(hs[-1]))
    return hs


def test_six_blocks_hold_at_most_three_fifths_of_end_to_end():
    local, whole = (formula.evaluate(MANResNet.card.bytes, MANResNet(blocks=b).shapes(64)) for b in (6, 1))
    assert local / whole == pytest.approx(14 / 26, abs=0.005)
    assert local <= 0.6 * whole


def strided(losses=None, **options):
    """A net that halves its sides and doubles its width at a cut; heads and decoders fit what the next layer gives."""
    torch.manual_seed(0)
    stem, blocks = conv_stem(3, 4), [Residual(4), nn.Sequential(Residual(4, 8, stride=2), Residual(8)), Residual(8)]
    losses = losses or [
        ImageLoss(decoder("conv", (8, 4, 4), (3, 8, 8)), ConvPooled(8, 5, channels=6, hidden=10), lam1=one, lam2=0.5)
        for one in between(5.0, 0.5, 2)
    ]
    return MAN(stem, blocks, Pooled(8, 5), losses, shape=(3, 8, 8), classes=5, **options)


def test_it_takes_a_net_with_strides_and_the_papers_base_loss():
    trainer = strided(momentum=0.9)
    losses = [step(trainer, lr=0.1) for _ in range(60)]
    assert all(later < first for later, first in zip(losses[-1], losses[0], strict=True))
    assert trainer.eval()(batch(trainer)[0]).shape == (8, 5)


def test_infopros_loss_is_its_two_terms():
    trainer = strided()
    x, y = batch(trainer)
    loss = trainer.losses[0].eval()
    out = torch.randn(8, 8, 4, 4)
    pixels = torch.sigmoid(loss.decoder(out))
    bce = -(x * pixels.log() + (1 - x) * (1 - pixels).log()).mean()
    ce = -torch.log_softmax(loss.head(out), 1)[range(8), y].mean()
    torch.testing.assert_close(loss(out, out, x, y), 5.0 * bce + 0.5 * ce)


def test_pixels_out_of_range_are_refused():
    trainer = strided()
    x, y = batch(trainer)
    with pytest.raises(ValueError, match=r"not within 0 to 1; give restore="):
        next(trainer.block_losses(x * 3, y))
    losses = image_losses(
        trainer.stem, list(trainer.parts), shape=(3, 8, 8), classes=5, lam1=(1, 1), restore=lambda x: x / 3
    )
    assert len(losses) == 2
    Cut(trainer.stem, list(trainer.parts), trainer.head, losses, shape=(3, 8, 8), classes=5)
    assert losses[0](torch.randn(8, 4, 8, 8), x, x * 3, y).isfinite()


def test_contrast_is_its_definition():
    random = torch.Generator().manual_seed(0)
    z, y = torch.randn(7, 5, generator=random), torch.tensor([0, 1, 0, 2, 1, 0, 3])
    unit, terms = z / z.norm(dim=1, keepdim=True), []
    for i in range(7):
        others = sum(torch.exp(unit[i] @ unit[a] / 0.07) for a in range(7) if a != i)
        friends = [p for p in range(7) if p != i and y[p] == y[i]]
        if friends:
            terms.append(-sum(torch.log(torch.exp(unit[i] @ unit[p] / 0.07) / others) for p in friends) / len(friends))
    torch.testing.assert_close(contrast(z, y), sum(terms) / len(terms))


def test_it_trains_with_the_contrastive_loss():
    losses = [Classified(Pooled(8, 16, hidden=16), criterion=contrast) for _ in range(2)]
    trainer = strided(losses)
    values = [step(trainer, lr=0.05) for _ in range(40)]
    assert values[-1][0] < values[0][0]
    assert all(param.isfinite().all() for param in trainer.parameters())


def test_what_does_not_fit_is_one_sentence():
    with pytest.raises(ValueError, match=r"momentum=1.5 is no share"):
        MANResNet(**SMALL, momentum=1.5)
    with pytest.raises(ValueError, match=r"6 layers do not make 4 blocks"):
        grouped([nn.Identity() for _ in range(6)], 4)
    with pytest.raises(ValueError, match=r"0 local losses do not fit 2 blocks"):
        Cut(nn.Identity(), [nn.Linear(2, 2), nn.Linear(2, 2)], nn.Linear(2, 2), [], shape=(2,), classes=2)
    tied = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"in block 0 and in block 1, as tied weights are"):
        Cut(nn.Identity(), [tied, tied], nn.Linear(2, 2), [Classified(nn.Linear(2, 2))], shape=(2,), classes=2)

"""tpSGD and DRTP: deltas in closed form, the least-squares limit, random features, the laws on all kinds of layers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn import functional

from loci.weights.local import checks
from loci.weights.local.base import seeded
from loci.weights.local.layers import Recurrent
from loci.weights.local.tpsgd import DRTP, TPSGD
from loci.weights.optim.backward import fuse_into_backward
from loci.weights.optim.rules import Momentum
from loci.weights.optim.sgd_sai import SGDSaI

torch.set_num_threads(1)


def conv(member=TPSGD, **options):
    with seeded(3):
        layers = [nn.Conv2d(1, 5, 3, stride=2), 20]
    return member(layers, [1, 7, 7], classes=3, **options)


def recurrent(member=TPSGD, steps=5, **options):
    with seeded(3):
        layers = [Recurrent(4, 32), Recurrent(32, 24)]
    return member(layers, [steps, 4], classes=3, **options)


def dense(member=TPSGD, **options):
    return member([32, 24], [10], classes=3, **options)


def a_pass(trainer, rows=5):
    x, y = trainer.draw(rows, torch.Generator().manual_seed(2))
    losses = [float(loss) for loss in trainer.backward_blocks(x, y)]
    return x, y, losses


def numpy(tensor):
    return tensor.detach().double().numpy()


def slope(loss, y, t):
    """dJ/dy, by hand."""
    if loss == "l2":
        return -2 * (t - y)
    if loss == "l1":
        return -np.sign(t - y)
    ny, nt = (np.linalg.norm(part, axis=1, keepdims=True) for part in (y, t))
    dot = (y * t).sum(1, keepdims=True)
    return -(t / (ny * nt) - dot * y / (ny**3 * nt))


@pytest.mark.parametrize("loss", ["l1", "l2", "cosine"])
def test_each_dense_layer_moves_by_the_outer_product_of_delta_and_input(loss):
    trainer = dense(loss=loss)
    x, y, _ = a_pass(trainer)
    rows = numpy(x)
    for layer, targets in zip(trainer.layers, trainer.targets, strict=True):
        out = np.tanh(rows @ numpy(layer.weight).T + numpy(layer.bias))
        t = np.eye(3)[y.numpy()] @ numpy(targets.P)  # P y*, the slow form of the lookup
        delta = slope(loss, out, t) * (1 - out**2) / len(rows)
        np.testing.assert_allclose(layer.weight.grad, delta.T @ rows, atol=1e-6)
        np.testing.assert_allclose(layer.bias.grad, delta.sum(0), atol=1e-6)
        rows = out


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("steps", ["all", "last"])
def test_a_recurrent_layer_takes_its_past_as_given(loss, steps):
    trainer = recurrent(loss=loss, target_steps=steps)
    x, y, _ = a_pass(trainer)
    sequence = numpy(x)
    for layer, targets in zip(trainer.layers, trainer.targets, strict=True):
        W, U, b = numpy(layer.W.weight), numpy(layer.U.weight), numpy(layer.W.bias)
        t, h = numpy(targets.P)[y.numpy()], np.zeros((len(x), len(b)))
        dW, dU, outs = 0, 0, []
        for turn in range(5):
            before, h = h, np.tanh(sequence[:, turn] @ W.T + h @ U.T + b)
            if steps == "all" or turn == 4:
                delta = slope(loss, h, t) * (1 - h**2) / len(x)
                dW, dU = dW + delta.T @ sequence[:, turn], dU + delta.T @ before
            outs.append(h)
        np.testing.assert_allclose(layer.W.weight.grad, dW, atol=1e-5)
        np.testing.assert_allclose(layer.U.weight.grad, dU, atol=1e-5)
        sequence = np.stack(outs, 1)


@pytest.mark.parametrize("loss", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("targets", ["flat", "channels"])
def test_a_convolution_moves_as_autograd_says_of_its_own_loss(loss, targets):
    trainer = conv(loss=loss, targets=targets)
    x, y, _ = a_pass(trainer)
    layer = trainer.layers[0]
    weight, bias = (part.detach().clone().requires_grad_() for part in (layer.weight, layer.bias))
    out = torch.tanh(functional.conv2d(x, weight, bias, stride=2))
    t = torch.einsum("bc,cijk->bijk", functional.one_hot(y, 3).float(), trainer.targets[0].P).expand_as(out)
    assert trainer.targets[0].P.shape[1:] == ((5, 3, 3) if targets == "flat" else (5, 1, 1))
    if loss == "cosine":
        total = -(out.flatten(1) * t.flatten(1)).sum(1) / (out.flatten(1).norm(dim=1) * t.flatten(1).norm(dim=1))
    else:
        total = (out - t).abs().pow(2 if loss == "l2" else 1).sum((1, 2, 3))
    total.mean().backward()
    torch.testing.assert_close(layer.weight.grad, weight.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(layer.bias.grad, bias.grad, atol=1e-6, rtol=1e-5)


def test_drtp_is_the_projected_class_times_the_slope_of_the_activation():
    trainer = dense(DRTP)
    x, y, _ = a_pass(trainer)
    rows = numpy(x)
    for layer, targets in zip(trainer.layers, trainer.targets, strict=True):
        out = np.tanh(rows @ numpy(layer.weight).T + numpy(layer.bias))
        delta = (np.eye(3)[y.numpy()] @ numpy(targets.P)) * (1 - out**2) / len(rows)
        np.testing.assert_allclose(layer.weight.grad, delta.T @ rows, atol=1e-6)
        assert np.abs(numpy(targets.P)).max() <= np.sqrt(6 / layer.out_features)
        rows = out


@pytest.mark.parametrize("build", [dense, conv, recurrent])
def test_a_layer_does_not_hear_of_later_ones(build):
    one, two = build(), build()
    with torch.no_grad():
        for module in (two.layers[1], two.head, two.targets[1]):
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.mul_(-3)
    a_pass(one)
    a_pass(two)
    for param, other in zip(one.layers[0].parameters(), two.layers[0].parameters(), strict=True):
        assert torch.equal(param.grad, other.grad)
    assert not torch.equal(one.head.weight.grad, two.head.weight.grad)


def test_a_linear_layer_under_l2_goes_to_least_squares():
    trainer = TPSGD([5], [4], classes=3, activation="identity")
    x, y = trainer.draw(40, torch.Generator().manual_seed(2))
    optimizer = torch.optim.SGD(trainer.layers.parameters(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        list(trainer.backward_blocks(x, y))
        optimizer.step()
    with_ones = np.hstack([numpy(x), np.ones((40, 1))])
    best = np.linalg.lstsq(with_ones, numpy(trainer.targets[0].P)[y.numpy()], rcond=None)[0]  # W* = T X^+
    np.testing.assert_allclose(numpy(trainer.layers[0].weight).T, best[:4], atol=1e-4)
    np.testing.assert_allclose(numpy(trainer.layers[0].bias), best[4], atol=1e-4)


@pytest.mark.parametrize("head", ["cross_entropy", "squares"])
def test_with_frozen_hidden_layers_the_head_learns_on_random_features(head):
    trainer = dense(head=head)
    trainer.layers.requires_grad_(False)
    x, y, losses = a_pass(trainer)
    assert len(losses) == len(trainer.blocks()) == 1
    features = numpy(x)
    for layer in trainer.layers:
        features = np.tanh(features @ numpy(layer.weight).T + numpy(layer.bias))
    scores, truth = features @ numpy(trainer.head.weight).T + numpy(trainer.head.bias), np.eye(3)[y.numpy()]
    soft = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    error = soft - truth if head == "cross_entropy" else 2 * (scores - truth)
    np.testing.assert_allclose(trainer.head.weight.grad, (error / len(x)).T @ features, atol=1e-6)
    assert all(param.grad is None for param in trainer.layers.parameters())


def test_an_adaptor_trains_alone():
    trainer = dense()
    trainer.requires_grad_(False)
    trainer.layers[1].requires_grad_(True)
    a_pass(trainer)
    assert [name for name, param in trainer.named_parameters() if param.grad is not None] == [
        "layers.1.weight",
        "layers.1.bias",
    ]
    checks.each_loss_reaches_its_block_alone(lambda: _only_second())
    checks.peak_saved_bytes_are_the_formula(lambda: _only_second())


def _only_second():
    trainer = dense()
    trainer.requires_grad_(False)
    trainer.layers[1].requires_grad_(True)
    return trainer


class Plain(SGDSaI):
    """w <- w - lr g."""

    def rule(self, group):
        return Momentum()

    def before(self, slot, group):
        return slot.grad


def test_fed_with_the_new_output_the_next_layer_sees_the_step_before_it():
    for feed in ("old", "new"):
        trainer = dense(feed=feed)
        W, b = numpy(trainer.layers[0].weight), numpy(trainer.layers[0].bias)
        second, t = trainer.layers[1], trainer.targets[1].P
        before = numpy(second.weight), numpy(second.bias)
        x, y = trainer.draw(5, torch.Generator().manual_seed(2))
        with fuse_into_backward(Plain(trainer.parameters(), lr=0.1, momentum=0.0, weight_decay=0.0)):
            _, loss, _ = trainer.backward_blocks(x, y)
        if feed == "new":
            W, b = numpy(trainer.layers[0].weight), numpy(trainer.layers[0].bias)
        rows = np.tanh(numpy(x) @ W.T + b)
        out = np.tanh(rows @ before[0].T + before[1])
        assert float(loss) == pytest.approx(((numpy(t)[y.numpy()] - out) ** 2).sum(1).mean(), rel=1e-5)


def test_depth_and_length_cost_no_bytes():
    def peak(trainer):
        return checks.peak_saved_bytes(trainer, *trainer.draw(8, torch.Generator().manual_seed(1)))

    assert peak(TPSGD([16] * 3, [16], classes=3)) == peak(TPSGD([16] * 9, [16], classes=3)) == 4 * 8 * (16 + 2 * 16)
    assert peak(recurrent(steps=3)) == peak(recurrent(steps=12)) == 4 * 8 * ((32 + 24) + 2 * 24)


VARIANTS = {
    "conv": conv,
    "conv-channels": partial(conv, targets="channels"),
    "recurrent": partial(recurrent, steps=2),
    "recurrent-last": partial(recurrent, target_steps="last"),
    "recurrent-drtp": partial(recurrent, DRTP),
    "l1-sigmoid": partial(dense, loss="l1", activation="sigmoid"),
    "relu-new-squares": partial(dense, activation="relu", feed="new", head="squares"),
    "no-hidden-layer": partial(TPSGD, [], [12], classes=4),
    "mixed-losses": partial(dense, loss=["l1", lambda y, t: functional.mse_loss(y, t)]),
}


@pytest.mark.parametrize("law", checks.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_layer_keeps_the_laws(variant, law):
    def make():
        trainer = VARIANTS[variant]()
        assert type(trainer).card.name in ("tpsgd", "drtp")
        return trainer

    law(make)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"loss": "l3"}, "loss='l3' is unknown; choose one of l1, l2, cosine"),
        ({"loss": ["l1"]}, "loss has 1 entries for 2 layers"),
        ({"activation": "step"}, "activation='step' is unknown"),
        ({"targets": "rows"}, "targets='rows' is unknown"),
        ({"target_steps": "first"}, "target_steps='first' is unknown"),
        ({"span": (1.0, 1.0)}, "span=(1.0, 1.0) holds no targets"),
        ({"classes": 1}, "classes=1"),
        ({"layers": [4, 0]}, "layer 1 has 0 units"),
        ({"layers": [nn.Linear(5, 3), 4]}, "does not take rows of shape (6,)"),
    ],
)
def test_what_cannot_be_built_is_one_clear_error(wrong, words):
    with pytest.raises(ValueError) as error:
        TPSGD(**{"layers": [4, 4], "shape": [6], "classes": 3, **wrong})
    assert words in str(error.value)


def test_over_steps_an_average_is_learned_as_well_as_through_time():
    def right(backward):
        random = torch.Generator().manual_seed(0)
        means = 0.5 * torch.randn(4, 10, generator=random)

        def draw(count):
            y = torch.randint(4, (count,), generator=random)
            return means[y][:, None] + 1.5 * torch.randn(count, 8, 10, generator=random), y

        with seeded(0):
            trainer = TPSGD([Recurrent(10, 64)], [8, 10], classes=4, loss="l1")
        optimizer = torch.optim.Adam(trainer.parameters(), lr=0.003)
        for _ in range(150):
            optimizer.zero_grad()
            backward(trainer, *draw(64))
            optimizer.step()
        x, y = draw(2000)
        return float((trainer(x).argmax(1) == y).float().mean() * 100)

    through_time = right(lambda trainer, x, y: functional.cross_entropy(trainer(x), y).backward())
    local = right(lambda trainer, x, y: list(trainer.backward_blocks(x, y)))
    assert through_time > 75
    assert local >= through_time - 5

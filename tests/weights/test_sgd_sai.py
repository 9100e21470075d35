"""SGD-SaI: the ratio by hand and in closed form, torch's SGD, and the degenerate first gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.weights.optim.sgd_sai import SGDSaI, gsnr

torch.set_num_threads(1)


def run(optimizer, param, grads):
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param.detach()


def gradients(shape, steps, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random) for _ in range(steps)]


def test_a_gradient_of_mean_zero_has_the_root_of_its_size():
    grad = gradients((1_000_000,), 1)[0]
    assert float(gsnr(grad, 1e-8)) == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize("c", [1e-3, 7.0, 1e4])
def test_the_scale_of_the_first_gradient_does_not_matter(c):
    grad = gradients((50,), 1)[0]
    torch.testing.assert_close(gsnr(c * grad, 1e-8), gsnr(grad, 1e-8), rtol=1e-5, atol=0)


class Unscaled(SGDSaI):
    """All ratios are 1."""

    def before(self, slot, group):
        slot.state["gsnr"] = torch.ones(())
        return slot.grad


@pytest.mark.parametrize("foreach", [False, True])
def test_with_ratios_of_one_it_is_torch_sgd_with_dampening(foreach):
    one, two = (nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    grads = gradients((6, 4), 10)
    ours = run(Unscaled([one], lr=0.1, weight_decay=0.0, foreach=foreach), one, grads)
    theirs = run(torch.optim.SGD([two], lr=0.1, momentum=0.9, dampening=0.9), two, grads)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_ratio_is_frozen_and_decay_does_not_know_it():
    param = nn.Parameter(torch.ones(4))
    optimizer = SGDSaI([param], lr=0.1, momentum=0.0, weight_decay=0.5)
    first, second = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([-1.0, 5.0, 0.0, 9.0])
    run(optimizer, param, [first, second])
    x, ratio = torch.ones(4), 18**0.5
    for grad in (first, second):
        x = (1 - 0.1 * 0.5) * x - 0.1 * ratio * grad
    torch.testing.assert_close(param.detach(), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("foreach", [False, True])
def test_a_first_gradient_of_zero_waits_for_one_that_is_not(foreach):
    """LoRA's A, whose B starts at zero, must not stay frozen; it then goes as if it had started there."""
    one, two = (nn.Parameter(torch.ones(5)) for _ in range(2))
    grads = gradients((5,), 4)
    late = run(SGDSaI([one], lr=0.01, weight_decay=0.0, foreach=foreach), one, [torch.zeros(5), torch.zeros(5), *grads])
    prompt = run(SGDSaI([two], lr=0.01, weight_decay=0.0, foreach=foreach), two, grads)
    assert torch.equal(late, prompt)


@pytest.mark.parametrize(("grad", "ratio"), [([2.0, 2.0, 2.0, 2.0], 20.0), ([3.0], 10.0)])
def test_a_gradient_without_noise_is_clamped(grad, ratio):
    assert float(gsnr(torch.tensor(grad), 1e-8)) == ratio


def test_it_keeps_one_moment_and_one_number():
    param = nn.Parameter(torch.ones(6, 4))
    optimizer = SGDSaI([param])
    run(optimizer, param, gradients((6, 4), 3))
    assert sum(part.numel() for part in optimizer.state[param].values() if torch.is_tensor(part)) == 24 + 1

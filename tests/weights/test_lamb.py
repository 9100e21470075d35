"""LAMB and LARS: hand-computed steps, invariances, and torch's AdamW."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.weights.optim.backward import fuse_into_backward
from loci.weights.optim.lamb import LAMB, LARS, LARS2017

torch.set_num_threads(1)


def steps(optimizer, params, count=5, scale=1.0):
    """Random gradients, the first tensor's times scale; the values after each step."""
    random = torch.Generator().manual_seed(0)
    path = []
    for _ in range(count):
        for place, param in enumerate(params):
            param.grad = torch.randn(param.shape, generator=random) * (scale if place == 0 else 1)
        optimizer.step()
        path.append([param.detach().clone() for param in params])
    return path


def pair():
    return [nn.Parameter(torch.full((4, 3), 2.0)), nn.Parameter(torch.ones(5))]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(("member", "options"), [(LAMB, {"eps": 0.0}), (LARS, {})])
def test_the_scale_of_a_gradient_does_not_matter(member, options, foreach):
    one, two = pair(), pair()
    plain = steps(member(one, lr=0.1, weight_decay=0.0, foreach=foreach, **options), one)
    scaled = steps(member(two, lr=0.1, weight_decay=0.0, foreach=foreach, **options), two, scale=1000.0)
    torch.testing.assert_close(scaled, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("member", [LAMB, LARS])
def test_every_tensor_moves_by_lr_times_its_norm(member, foreach):
    params = pair()
    old = [param.detach().clone() for param in params]
    for new in steps(member(params, lr=0.1, foreach=foreach), params):
        for before, after in zip(old, new, strict=True):
            torch.testing.assert_close((after - before).norm(), 0.1 * before.norm(), rtol=1e-5, atol=1e-6)
        old = new


@pytest.mark.parametrize("foreach", [None, False, True])
@pytest.mark.parametrize("member", [LAMB, LARS, LARS2017])
def test_float64_is_kept_in_the_norms(member, foreach):
    """1e60 squared is finite in float64 alone: a ratio through float32 would be infinite."""
    params = [nn.Parameter(torch.full((3,), 1e60, dtype=torch.float64))]
    optimizer = member(params, lr=0.1, weight_decay=0.0, foreach=foreach)
    params[0].grad = torch.ones(3, dtype=torch.float64)
    optimizer.step()
    rate = 0.1 * optimizer.defaults.get("trust_coefficient", 1.0)
    torch.testing.assert_close(params[0].detach(), torch.full((3,), (1 - rate) * 1e60, dtype=torch.float64))


def test_without_the_ratio_lamb_is_torch_adamw():
    one, two = pair(), pair()
    ours = steps(LAMB(one, lr=0.01, weight_decay=0.1, eps=1e-3, adapt=False), one, 20)
    theirs = steps(torch.optim.AdamW(two, lr=0.01, weight_decay=0.1, eps=1e-3), two, 20)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("member", [LAMB, LARS, LARS2017])
def test_a_tensor_of_zeros_moves(member):
    param = nn.Parameter(torch.zeros(4))
    param.grad = torch.ones(4)
    member([param], lr=0.1).step()
    assert (param < 0).all()


def test_zero_start_moves_lars_by_its_own_mean():
    """With ratio 1 the paper's m = (1 - b) g is what counts, not torch's g."""
    param = nn.Parameter(torch.zeros(2))
    param.grad = torch.ones(2)
    LARS([param], lr=0.5, momentum=0.9).step()
    torch.testing.assert_close(param.detach(), torch.full((2,), -0.05))


def test_lars_is_the_papers_algorithm_written_out():
    param = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = LARS([param], lr=0.1, momentum=0.8, weight_decay=0.1)
    x, m = torch.tensor([3.0, 4.0]), torch.zeros(2)
    for g in (torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.1]), torch.tensor([-1.0, 3.0])):
        param.grad = g.clone()
        optimizer.step()
        m = 0.8 * m + 0.2 * (g + 0.1 * x)
        x = x - 0.1 * x.norm() / m.norm() * m
    torch.testing.assert_close(param.detach(), x)


def test_lars_2017_is_its_algorithm_written_out_while_lr_changes():
    param = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = LARS2017([param], momentum=0.8, weight_decay=0.1, trust_coefficient=0.02)
    w, v = torch.tensor([3.0, 4.0]), torch.zeros(2)
    for lr, g in ((1.0, torch.tensor([1.0, -2.0])), (0.5, torch.tensor([0.5, 0.1])), (0.0, torch.tensor([-1.0, 3.0]))):
        param.grad = g.clone()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        v = 0.8 * v + lr * 0.02 * w.norm() / (g.norm() + 0.1 * w.norm()) * (g + 0.1 * w)
        w = w - v
    torch.testing.assert_close(param.detach(), w)


@pytest.mark.parametrize("foreach", [False, True])
def test_clip_bounds_phi(foreach):
    param = nn.Parameter(torch.full((4,), 100.0))
    param.grad = torch.tensor([1.0, -1.0, 1.0, -1.0])
    LAMB([param], lr=0.1, weight_decay=0.0, clip=(0.0, 10.0), foreach=foreach).step()
    torch.testing.assert_close((param.detach() - 100).norm(), torch.tensor(1.0), rtol=1e-4, atol=0)


def test_global_clipping_scales_all_gradients_by_one_factor():
    one, two = pair(), pair()
    for params, factor in ((one, 1.0), (two, 1 / 10)):
        params[0].grad = torch.full((4, 3), 10 / 17**0.5) * factor
        params[1].grad = torch.full((5,), 10 / 17**0.5) * factor  # 17 elements: the global norm is 10
    LAMB(one, eps=1.0, max_grad_norm=1.0).step()
    LAMB(two, eps=1.0).step()
    torch.testing.assert_close([p.detach() for p in one], [p.detach() for p in two], rtol=1e-5, atol=1e-6)


def test_global_clipping_cannot_be_had_inside_backward():
    with pytest.raises(ValueError, match=r"max_grad_norm=1.0 needs all gradients"):
        fuse_into_backward(LAMB(pair(), max_grad_norm=1.0))

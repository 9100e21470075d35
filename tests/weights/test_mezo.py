"""MeZO: closed forms on quadratics, unbiasedness, replay to the bit, and the bytes that live while it steps."""

from __future__ import annotations

import weakref

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from loci.weights.optim.mezo import MeZO, replay

torch.set_num_threads(1)


def seeded(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def direction(optimizer, seed):
    return next(optimizer._directions(seed))


def test_on_a_quadratic_the_slope_is_exact():
    """Central differences of x^T A x / 2 are z^T A x."""
    A = seeded(6, 6)
    A = A @ A.T
    x = nn.Parameter(seeded(6, seed=1))
    start = x.detach().clone()
    optimizer = MeZO([x], lr=0.0, eps=0.1)
    optimizer.step(lambda: x @ A @ x / 2)
    (seed,), (slope,), _ = optimizer.log[0]
    assert slope == pytest.approx((direction(optimizer, seed) @ A @ start).item(), abs=1e-6)


def test_on_average_it_is_the_gradient_and_d_plus_2_times_as_long():
    grad = seeded(20)
    x = nn.Parameter(torch.zeros(20, dtype=torch.float64))
    optimizer = MeZO([x], lr=1.0)
    total, lengths = torch.zeros(20, dtype=torch.float64), 0.0
    for _ in range(20_000 // 4):
        before = x.detach().clone()
        optimizer.step(lambda: x @ grad)
        moved = before - x.detach()
        total += moved
        lengths += moved.square().sum().item()
    assert ((total / 5000 - grad).norm() / grad.norm()).item() < 0.1
    assert lengths / 5000 / grad.square().sum().item() == pytest.approx(22, rel=0.1)


@pytest.mark.parametrize("form", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("samples", [1, 3])
def test_replay_ends_at_the_same_bits_without_data(form, samples):
    data = seeded(30, 5, dtype=torch.float32)
    params = [nn.Parameter(seeded(5, seed=2, dtype=torch.float32)), nn.Parameter(torch.zeros(()))]
    first = [param.detach().clone() for param in params]
    options = {"lr": 0.01, "form": form, "samples": samples, "window": 4, "weight_decay": 0.1, "seed": 7}
    optimizer = MeZO(params, **options)
    for _ in range(12):
        optimizer.step(lambda: (data @ params[0] + params[1] - 1).square().mean())
    again = [nn.Parameter(param.clone()) for param in first]
    replay(MeZO(again, **options), optimizer.log)
    assert all(torch.equal(one, two) for one, two in zip(again, params, strict=True))
    assert not torch.equal(params[0], first[0])


def test_the_momentum_and_adam_forms_are_those_of_kept_moments():
    """While the window holds the whole run, they are torch's own over the estimated gradients g z."""
    target = seeded(4)
    for form, build in (
        ("momentum", lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.01)),
    ):
        x, y = (nn.Parameter(torch.zeros(4, dtype=torch.float64)) for _ in range(2))
        ours, theirs = MeZO([x], lr=0.01, form=form, window=20), build([y])
        for _ in range(10):
            ours.step(lambda x=x: (x - target).square().sum())
            (seed,), (slope,), _ = ours.log[-1]
            y.grad = slope * direction(ours, seed)
            theirs.step()
        torch.testing.assert_close(x.detach(), y.detach(), rtol=1e-9, atol=1e-9)


def test_restoring_leaves_at_most_four_units_in_the_last_place():
    x = nn.Parameter(seeded(1000, dtype=torch.float32) + 2)
    before = x.detach().clone()
    MeZO([x], lr=0.0).step(lambda: x.sum())
    ulp = torch.nextafter(before.abs(), torch.tensor(torch.inf)) - before.abs()
    assert ((x.detach() - before).abs() / ulp).max().item() <= 4


class Living(TorchDispatchMode):
    """Counts the bytes of tensors that were made and still live."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in inputs:
            size = out.untyped_storage().nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(out, self.freed, size)
        return out

    def freed(self, size):
        self.now -= size


@pytest.mark.parametrize(("form", "tensors"), [("sgd", 1), ("momentum", 1), ("adam", 3)])
def test_while_it_steps_one_z_of_the_largest_tensor_lives(form, tensors):
    params = [nn.Parameter(torch.ones(size)) for size in (100, 1000, 300)]
    optimizer = MeZO(params, lr=0.01, form=form)
    for _ in range(3):
        optimizer.step(lambda: 0.5)
    with Living() as living:
        optimizer.step(lambda: 0.5)
    assert 4000 <= living.peak <= tensors * 4000


def test_it_climbs_an_accuracy_whose_gradient_is_zero_everywhere():
    x = seeded(400, 2, dtype=torch.float32)
    labels = (x @ torch.tensor([1.0, -2.0]) > 0).float()
    w = nn.Parameter(torch.tensor([-1.0, 0.3]))

    def wrong():
        return ((x @ w > 0).float() != labels).float().mean()

    start = wrong().item()
    optimizer = MeZO([w], lr=0.05, eps=0.1, samples=4)
    for _ in range(200):
        optimizer.step(wrong)
    assert wrong().item() < start / 4


def test_a_loss_that_is_not_finite_or_fails_leaves_the_weights():
    x = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = MeZO([x], lr=0.1)
    optimizer.step(lambda: float("nan"))
    assert optimizer.log == []
    turn = iter([1.0])
    with pytest.raises(StopIteration):
        optimizer.step(lambda: next(turn))
    torch.testing.assert_close(x.detach(), torch.tensor([1.0, 2.0]), rtol=1e-6, atol=0)


def test_parameters_that_are_not_trained_stay_to_the_bit():
    x, frozen = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((3,), 0.1), requires_grad=False)
    MeZO([x, frozen], lr=0.1).step(lambda: (x + frozen).sum())
    assert torch.equal(frozen, torch.full((3,), 0.1))
    assert not torch.equal(x, torch.ones(3))


@pytest.mark.parametrize("options", [{"eps": 0.0}, {"samples": 0}, {"window": 0}, {"form": "lion"}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="="):
        MeZO([nn.Parameter(torch.ones(3))], **options)
    with pytest.raises(ValueError, match="no closure"):
        MeZO([nn.Parameter(torch.ones(3))]).step()

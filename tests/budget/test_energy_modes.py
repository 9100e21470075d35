"""Mixed precision: hand computations, torch's own scaler and autocast, and what is lost without masters or scale."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.budget.energy.modes import Autocast, Masters, Plain, Scale
from loci.budget.meter_checks import held_bytes

torch.set_num_threads(1)
HALF = torch.float16


def sgd(params):
    return torch.optim.SGD(params, lr=1.0)


def single(value, dtype=torch.float32):
    model = nn.Linear(1, 1, bias=False)
    model.weight = nn.Parameter(torch.tensor([[value]], dtype=dtype))
    return model


def test_a_small_gradient_underflows_without_a_scale_and_is_kept_with_one():
    """1e-8 is below half of float16's least number 6e-8; times 2^15 it is 3.3e-4."""
    for scale, expected in ((None, 0.0), (Scale(), 1e-8)):
        model = single(0.0)
        mode = Masters(model, sgd, scale=scale)
        x = torch.tensor([[1e-4]], dtype=HALF)
        assert mode.step(lambda: (model(x).float() * 1e-4).sum())
        assert -mode.masters[0].item() == pytest.approx(expected, rel=0.01)


def test_an_overflow_leaves_the_weights_and_halves_the_scale():
    model = single(2.0)
    mode = Masters(model, sgd, scale=Scale())
    assert not mode.step(lambda: model(torch.ones(1, 1, dtype=HALF)).float().sum() * float("inf"))
    assert (mode.masters[0].item(), model.weight.item(), mode.scale.now) == (2.0, 2.0, 2.0**14)
    assert mode.step(lambda: model(torch.ones(1, 1, dtype=HALF)).float().sum())
    assert mode.masters[0].item() == 1.0


def test_masters_add_up_what_half_precision_rounds_away():
    """A thousand times 1e-4 onto 1: 1.1 with masters, still 1 in float16, whose numbers there are 0.001 apart."""
    model, bare = single(1.0), single(1.0, HALF)
    mode, plain = Masters(model, sgd), Plain(sgd(bare.parameters()))
    x = torch.full((1, 1), -1e-4, dtype=HALF)
    for _ in range(1000):
        mode.step(lambda: model(x).float().sum())
        plain.step(lambda: bare(x).float().sum())
    assert mode.masters[0].item() == pytest.approx(1.1, abs=1e-3)
    assert model.weight.item() == pytest.approx(1.1, abs=1e-3)
    assert bare.weight.item() == 1.0


def test_the_scale_goes_as_torchs_own():
    random = torch.Generator().manual_seed(0)
    ours = Scale(2.0**10, patience=3)
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    param = nn.Parameter(torch.zeros(2))
    optimizer = sgd([param])
    for _ in range(60):
        finite = bool(torch.rand((), generator=random) < 0.8)
        optimizer.zero_grad()
        theirs.scale((param * (1.0 if finite else float("inf"))).sum()).backward()
        theirs.step(optimizer)
        theirs.update()
        ours.update(finite=finite)
        assert ours.now == theirs.get_scale()


def task():
    """Ten clouds in the plane; small inputs and a small loss make small gradients."""
    random = torch.Generator().manual_seed(0)
    means = torch.randn(10, 16, generator=random)
    y = torch.randint(10, (1024,), generator=random)
    return means[y] + 0.3 * torch.randn(1024, 16, generator=random), y


def trained(build, *, weight=1e-5, steps=150):
    """Accuracy in percent after SGD on a loss of small weight, with a step size that makes up for it."""
    x, y = task()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))
    mode, dtype = build(model, lambda params: torch.optim.SGD(params, lr=0.5 / weight))
    x = x.to(dtype)
    for _ in range(steps):
        mode.step(lambda: nn.functional.cross_entropy(model(x).float(), y) * weight)
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean() * 100)


def test_small_gradients_train_in_half_precision_with_scale_and_masters_alone():
    full = trained(lambda model, build: (Plain(build(model.parameters())), torch.float32))
    mixed = trained(lambda model, build: (Masters(model, build, scale=Scale()), HALF))
    torchs = trained(lambda model, build: (Autocast(build(model.parameters()), HALF), torch.float32))
    unscaled = trained(lambda model, build: (Masters(model, build), HALF))
    cast = trained(lambda model, build: (Plain(build(model.to(HALF).parameters())), HALF))
    assert full > 90
    assert abs(mixed - full) <= 1
    assert abs(torchs - full) <= 1
    assert unscaled <= full - 5
    assert cast <= full - 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_takes_the_step_of_float32_to_within_rounding(dtype):
    random = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    twin = copy.deepcopy(model)
    x, y = torch.randn(32, 8, generator=random), torch.randint(4, (32,), generator=random)
    one, two = Autocast(sgd(model.parameters()), dtype), Plain(sgd(twin.parameters()))
    for mode, net in ((one, model), (two, twin)):
        assert mode.step(lambda net=net: nn.functional.cross_entropy(net(x).float(), y))
    for param, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert param.dtype == torch.float32
        torch.testing.assert_close(param, other, rtol=0.05, atol=0.01)


def test_autocast_skips_what_overflows():
    model = single(2.0)
    mode = Autocast(sgd(model.parameters()), HALF)
    assert not mode.step(lambda: model(torch.ones(1, 1)).float().sum() * float("inf"))
    assert (model.weight.item(), mode.scaler.get_scale()) == (2.0, 2.0**14)


def test_mixed_precision_with_adam_keeps_sixteen_bytes_a_weight():
    """2 weight + 2 gradient + 4 master + 8 moments; the masters' own gradients live within a step."""
    model = nn.Linear(64, 32, bias=False)
    mode = Masters(model, torch.optim.Adam, scale=Scale())
    x = torch.ones(4, 64, dtype=HALF)
    mode.step(lambda: model(x).float().square().mean())
    mode.optimizer.zero_grad()
    torch.autograd.backward(model(x).float().square().mean())
    moments = [part for state in mode.optimizer.state.values() for name, part in state.items() if name != "step"]
    assert held_bytes([list(model.parameters()), mode.masters, moments]) == 16 * 64 * 32


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match="float64"):
        Masters(nn.Linear(2, 2).double(), sgd)
    with pytest.raises(ValueError, match="bfloat16"):
        Autocast(sgd(nn.Linear(2, 2).parameters()), torch.float32)

"""Time constants and timescales: vanilla networks, closed forms, finite differences and fits by scipy."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.state.autocorrelation import (
    NetworkTimescale,
    autocorrelation,
    autocorrelation_by_sums,
    dimensionality,
    fit,
    timescales,
)
from loci.state.timescales import EmergentTimescales
from loci.state.timescales_outside import OutsideTimescales

torch.set_num_threads(1)
DOUBLE = torch.float64
CELLS = [EmergentTimescales, OutsideTimescales]


def fresh(kind, *args, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*args, **options).to(DOUBLE)


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def with_taus(cell, tau):
    cell.tau.copy_(torch.as_tensor(tau, dtype=DOUBLE).expand(cell.n))
    return cell


# The cells (check 1)


@pytest.mark.parametrize("kind", CELLS)
@torch.no_grad()
def test_time_constants_of_one_are_torchs_vanilla_network(kind):
    cell = with_taus(fresh(kind, 3, 5, activation="tanh"), 1.0)
    rnn = nn.RNN(3, 5, batch_first=True).double()
    W = cell.recurrent.weight.clone().fill_diagonal_(0.0)
    for mine, theirs in ((cell.inward.weight, rnn.weight_ih_l0), (W, rnn.weight_hh_l0), (cell.inward.bias, rnn.bias_ih_l0)):  # fmt: skip
        theirs.copy_(mine)
    rnn.bias_hh_l0.zero_()
    x, h = normal(2, 9, 3), normal(2, 5, seed=2)
    want, last = rnn(x, h.unsqueeze(0))
    y, (got,) = cell(x, (h,))
    torch.testing.assert_close(y, cell.readout(want), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got, last[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", CELLS)
@torch.no_grad()
def test_a_very_long_time_constant_keeps_the_state(kind):
    cell = with_taus(fresh(kind, 3, 5), 1e12)
    h = normal(2, 5).abs()  # where the leaky ReLU is the identity
    torch.testing.assert_close(cell(normal(2, 50, 3), (h,))[1][0], h, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", CELLS)
@torch.no_grad()
def test_a_lone_unit_fades_by_one_less_one_over_tau(kind):
    tau = torch.tensor([1.5, 4.0, 10.0, 50.0], dtype=DOUBLE)
    cell = with_taus(fresh(kind, 1, 4, activation="identity"), tau)
    for part in (cell.recurrent.weight, cell.inward.weight, cell.inward.bias):
        part.zero_()
    h = normal(3, 4)
    got = cell(torch.zeros(3, 30, 1, dtype=DOUBLE), (h,))[1][0]
    torch.testing.assert_close(got, (1 - 1 / tau) ** 30 * h, rtol=1e-12, atol=0)


@torch.no_grad()
def test_the_estimator_reads_the_timescale_of_lone_units_off_their_decay():
    tau = torch.tensor([2.0, 4.0, 8.0], dtype=DOUBLE)
    cell = with_taus(fresh(EmergentTimescales, 1, 3, activation="identity"), tau)
    for part in (cell.recurrent.weight, cell.inward.weight, cell.inward.bias):
        part.zero_()
    meter = NetworkTimescale(burn=0)
    meter.read(cell.step, torch.zeros(4000, 2, 1, dtype=DOUBLE), (1 + normal(2, 3).abs(),))
    np.testing.assert_allclose(meter.timescales, -1 / np.log(1 - 1 / tau.numpy()), rtol=0.05)


@torch.no_grad()
def test_steps_of_both_models_are_written_out():
    for kind in CELLS:
        cell = fresh(kind, 2, 4)
        with_taus(cell, [0.3, 1.0, 2.0, 5.0])
        x, h = normal(1, 2), normal(1, 4, seed=3)
        W, U, b = (part.detach().numpy() for part in (cell.recurrent.weight, cell.inward.weight, cell.inward.bias))
        tau = [1.0, 1.0, 2.0, 5.0]  # what is below 1 counts as 1
        want = []
        for i in range(4):
            total = sum(W[i, j] * float(h[0, j]) for j in range(4) if j != i) + U[i] @ x[0].numpy() + b[i]
            leak = (1 - 1 / tau[i]) * float(h[0, i])

            def f(z):
                return z if z > 0 else 0.01 * z

            want.append(f(leak + total / tau[i]) if kind is EmergentTimescales else leak + f(total) / tau[i])
        np.testing.assert_allclose(cell.step(x, (h,))[1][0][0], want, rtol=1e-12)


def test_no_unit_is_connected_to_itself_and_no_gradient_connects_it():
    for kind in CELLS:
        cell = fresh(kind, 3, 5)
        x = normal(2, 6, 3)
        before = cell(x)[0]
        torch.autograd.backward(before.square().sum())
        assert not cell.recurrent.weight.grad.diagonal().any()
        assert cell.recurrent.weight.grad.count_nonzero() == 20
        with torch.no_grad():
            cell.recurrent.weight.fill_diagonal_(7.0)
        assert torch.equal(cell(x)[0], before)


# Gradients of tau (check 3)


@pytest.mark.parametrize("kind", CELLS)
def test_the_gradient_of_tau_is_that_of_finite_differences_and_zero_below_one(kind):
    cell = with_taus(fresh(kind, 3, 5, activation="tanh"), [0.5, 0.9, 1.3, 2.0, 6.0])
    fixed = copy.deepcopy(cell).requires_grad_(False)
    x = normal(2, 8, 3)

    def total(tau):
        return torch.func.functional_call(fixed, {"tau": tau}, (x,))[0].square().sum()

    tau = cell.tau.detach().clone().requires_grad_()
    (got,) = torch.autograd.grad(total(tau), tau)
    small, want = 1e-6, []
    for i in range(5):
        nudge = torch.zeros(5, dtype=DOUBLE).index_fill_(0, torch.tensor(i), small)
        want.append(float((total(tau.detach() + nudge) - total(tau.detach() - nudge)) / (2 * small)))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-8)
    assert got[:2].tolist() == [0.0, 0.0]
    assert got[2:].all()


def test_the_start_is_the_papers_and_fixed():
    cell = fresh(EmergentTimescales, 3, 2000)
    (start,) = cell.initial_state(2)
    assert torch.equal(start, cell.initial_state(2)[0])
    assert 0 <= float(start.min()) < 0.001 < 0.099 < float(start.max()) <= 0.1
    assert float(start.mean()) == pytest.approx(0.05, abs=0.003)
    (one,), (two,) = (cell.random_state(2, random=generator(seed)) for seed in (0, 1))
    assert not torch.equal(one, two)
    assert not torch.equal(one[0], one[1])
    assert 0 <= float(one.min()) < 0.001 < 0.099 < float(one.max()) <= 0.1
    tau = cell.tau.detach()
    assert 1 <= float(tau.min()) < 1.01 < 1.99 < float(tau.max()) <= 2


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"activation='softsign' is unknown; choose one of leaky_relu"):
        EmergentTimescales(2, 3, activation="softsign")


# Autocorrelation and its fits (check 5)


def test_the_autocorrelation_is_that_of_the_sums_and_of_numpy():
    activity = normal(40, 3, 4)
    got = autocorrelation(activity, 12)
    torch.testing.assert_close(got, autocorrelation_by_sums(activity, 12), rtol=1e-10, atol=1e-12)
    series = activity.numpy()
    for unit, lag in itertools.product(range(4), (0, 5, 12)):
        trials = [series[:, trial, unit] - series[:, trial, unit].mean() for trial in range(3)]
        want = np.mean([np.correlate(one, one, "full")[39 + lag] / (40 - lag) for one in trials])
        assert float(got[unit, lag]) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("tau", [1.5, 5.0, 15.0])
def test_an_ornstein_uhlenbeck_process_has_its_timescale(tau):
    decay, random = math.exp(-1 / tau), np.random.default_rng(3)
    h = np.zeros((20, 4))
    noise = random.standard_normal((20_000, 20, 4))
    series = np.stack([h := decay * h + one for one in noise])[500:]
    found = timescales(autocorrelation(torch.tensor(series), 30))
    np.testing.assert_allclose(found.mean(), tau, rtol=0.1)
    np.testing.assert_allclose(found.median(), tau, rtol=0.1)


def test_fits_are_at_least_as_good_as_scipys():
    optimize = pytest.importorskip("scipy.optimize")

    def one(k, a, tau):
        return a * np.exp(-k / tau)

    def two(k, a, tau, other, share):
        return a * share * np.exp(-k / tau) + a * (1 - share) * np.exp(-k / other)

    k, random = np.arange(31.0), np.random.default_rng(0)
    curves = []
    for tau, other, share in itertools.product((1.5, 4.0), (9.0, 40.0), (1.0, 0.7, 0.2)):
        curves.append(two(k, 0.95, tau, other, share) + 0.01 * random.standard_normal(31))
    found = fit(torch.tensor(np.array(curves)))
    for i, curve in enumerate(curves):
        best, _ = optimize.curve_fit(one, k, curve, bounds=((0, 0), (1, 100)))
        assert float(found.one[i]) == pytest.approx(best[1], rel=1e-3)
        ends = [(1, 2, 30, 0.5), (1, 1, 100, 0.9), (0.9, 5, 50, 0.3), (1, 1, 5, 0.5)]  # it may end in local minima
        fits = [optimize.curve_fit(two, k, curve, p0=p0, bounds=((0, 0.1, 0.1, 0), (1, 100, 100, 1)))[0] for p0 in ends]
        least = min(((two(k, *parameters) - curve) ** 2).sum() for parameters in fits)
        # valleys are flat: half a percent of a residual is 0.15 of Akaike's criterion, of which 4 decide
        assert float(found.residual_two[i]) <= least * 1.005
        assert float(found.residual_two[i]) <= float(found.residual_one[i])


def test_two_exponentials_are_told_from_one_and_the_slower_is_read():
    k = torch.arange(31, dtype=DOUBLE)
    single, double = torch.exp(-k / 6), 0.6 * torch.exp(-k / 2) + 0.4 * torch.exp(-k / 20)
    found = fit(torch.stack([single, double]))
    assert found.is_double(30).tolist() == [False, True]
    assert timescales(torch.stack([single, 3 * double])).tolist() == pytest.approx([6, 20], rel=1e-3)
    assert found.two[1].tolist() == pytest.approx([20, 2], rel=1e-2)


def test_a_unit_that_never_changes_has_no_timescale():
    activity = torch.cat([normal(60, 2, 1), torch.ones(60, 2, 1, dtype=DOUBLE)], 2)
    found = timescales(autocorrelation(activity, 10))
    assert found.isnan().tolist() == [False, True]

    def still(x, state):
        return (None, state)

    with pytest.raises(ValueError, match="no unit ever changes"):
        NetworkTimescale(burn=0).read(still, torch.zeros(50, 1), (torch.ones(1, 2),))


def test_the_meter_refuses_too_few_inputs():
    with pytest.raises(ValueError, match=r"60 inputs are too few for burn=50 and lags=30; give more than 80"):
        NetworkTimescale(burn=50).read(lambda x, state: (None, state), torch.zeros(60, 1), (torch.ones(1, 2),))


def test_the_dimensionality_is_that_of_the_covariances_eigenvalues():
    activity = normal(200, 3, 8) * torch.tensor([9.0, 5.0, 3.0, 2.0, 1.0, 0.5, 0.1, 0.01], dtype=DOUBLE)
    activity = activity @ torch.linalg.qr(normal(8, 8, seed=4))[0]
    values = np.sort(np.linalg.eigvalsh(np.cov(activity.reshape(-1, 8).numpy().T)))[::-1]
    for share in (0.5, 0.9, 0.99):
        assert (
            dimensionality(activity, share=share) == int(np.searchsorted(np.cumsum(values) / values.sum(), share)) + 1
        )
    assert dimensionality(activity, share=1.0) == 8

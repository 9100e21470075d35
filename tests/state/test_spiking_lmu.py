"""Neurons against loops by hand, and the spiking block in a stream against all moments at once."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.state.lif import LIF
from loci.state.mixer import state_bytes
from loci.state.spiking_lmu import SpikingBlock

torch.set_num_threads(1)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def trained(D, seed=0, **options):
    """In double, with running statistics that are not those of the start, and gains at which all neurons fire at times."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block = SpikingBlock(D, **options).double()
    with torch.no_grad():
        for module in block.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.weight.fill_(3.0)
        for seed in range(20):
            block(2 * drawn(4, 20, D, seed=seed) + 0.5)
    return block.eval()


@pytest.mark.parametrize(("tau", "threshold"), [(2.0, 1.0), (2.0, 0.5), (5.0, 1.0), (1.0, 1.0)])
def test_a_neuron_leaks_integrates_fires_and_falls_to_zero(tau, threshold):
    x, v = 2 * drawn(3, 50, 4), drawn(3, 4, seed=1) / 2
    spikes, last = LIF(tau=tau, threshold=threshold)(x, v)
    due, potential = np.empty_like(x.numpy()), v.numpy().copy()
    for row, t, k in np.ndindex(x.shape):
        h = potential[row, k] + (float(x[row, t, k]) - potential[row, k]) / tau
        due[row, t, k] = float(h >= threshold)
        potential[row, k] = 0.0 if h >= threshold else h
    np.testing.assert_array_equal(spikes, due)
    np.testing.assert_allclose(last, potential, rtol=1e-12, atol=1e-12)
    assert set(spikes.flatten().tolist()) == {0.0, 1.0}


def test_a_neuron_that_cannot_fire_is_a_leaky_integral():
    x, tau = drawn(2, 40, 3), 4.0
    spikes, last = LIF(tau=tau, threshold=float("inf"))(x, torch.zeros(2, 3, dtype=torch.float64))
    assert not spikes.any()
    weights = torch.tensor([(1 - 1 / tau) ** (39 - t) / tau for t in range(40)], dtype=torch.float64)
    torch.testing.assert_close(last, torch.einsum("t,btd->bd", weights, x), rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_the_sigmoid_and_do_not_go_by_the_reset():
    x = torch.tensor([[[1.0], [3.0], [0.7]]], dtype=torch.float64, requires_grad=True)  # h = 0.5, 1.75 (fires), 0.35
    spikes, _ = LIF()(x, torch.zeros(1, 1, dtype=torch.float64))
    assert spikes.flatten().tolist() == [0.0, 1.0, 0.0]
    (back,) = torch.autograd.grad(spikes.sum(), x)

    def slope(h):
        soft = 1 / (1 + np.exp(-4 * (h - 1)))
        return 4 * soft * (1 - soft)

    first = slope(0.5) / 2 + slope(1.75) / 4  # by its own spike, and by the potential that is left to the second
    np.testing.assert_allclose(back.flatten(), [first, slope(1.75) / 2, slope(0.35) / 2], rtol=1e-12)


@pytest.mark.parametrize("T", [1, 5, 60])
def test_a_stream_is_all_moments_at_once(T):
    block, x = trained(4, theta=10.0), 2 * drawn(3, T, 4, seed=99)
    state = begin = tuple(part.detach() for part in block(drawn(3, 6, 4, seed=98))[1])
    whole, last = block(x, begin)
    for t in range(T):
        y, state = block.step(x[:, t], state)
        torch.testing.assert_close(y, whole[:, t], rtol=1e-9, atol=1e-9)
    for got, due in zip(state, last, strict=True):
        torch.testing.assert_close(got, due, rtol=1e-9, atol=1e-9)


def test_every_matrix_is_given_zeros_and_ones():
    block, given = trained(4, theta=10.0), {}
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _, args, name=name: given.update({name: args[0]}))
    block(2 * drawn(3, 60, 4, seed=99))
    assert set(given) == {"signal", "read", "out", "wide", "narrow"}
    for name, spikes in given.items():
        assert set(spikes.unique().tolist()) == {0.0, 1.0}, name


def test_gradients_reach_every_weight():
    block = trained(4, theta=10.0)
    block(2 * drawn(3, 60, 4, seed=99))[0].square().sum().backward()
    assert all(param.grad.any() for param in block.parameters())


def test_a_stream_keeps_the_bytes_it_says():
    block = trained(4, N=6, theta=10.0, ratio=3)
    state = block(drawn(5, 30, 4))[1]
    assert state_bytes(state) == 8 * 5 * (2 * 6 + (3 + 3) * 4 + 1)


def test_what_is_no_neuron_and_no_stream_is_refused():
    with pytest.raises(ValueError, match="tau=0.5"):
        LIF(tau=0.5)
    with pytest.raises(ValueError, match="threshold=0"):
        LIF(threshold=0)
    block = SpikingBlock(4)
    with pytest.raises(ValueError, match="eval"):
        block.step(torch.zeros(2, 4), block.initial_state(2))
    with pytest.raises(ValueError, match=r"\(B, T, 4\)"):
        block(torch.zeros(2, 5, 3))

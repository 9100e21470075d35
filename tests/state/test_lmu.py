"""The Legendre memory against scipy's discretisation, moment by moment in numpy, and the delay it stands for."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scipy.linalg import expm
from scipy.signal import cont2discrete
from scipy.special import eval_legendre

from loci.state.lmu import LMU, Delay, delay, orbit, window

torch.set_num_threads(1)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def fresh(*args, seed=0, dtype=torch.float64, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LMU(*args, **options).to(dtype).requires_grad_(requires_grad=False)


def continuous(N, theta):
    """A and B, element by element."""
    A = [[(2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1)) for j in range(N)] for i in range(N)]
    return np.array(A), np.array([[(2 * i + 1) / theta * (-1) ** i] for i in range(N)])


@pytest.mark.parametrize("T", [1, 2, 3, 17, 64, 128, 129, 300])
@pytest.mark.parametrize("carried", [False, True])
def test_the_fft_is_the_recurrence(T, carried):
    memory, u = Delay(16, 40.0).double(), drawn(2, T)
    m = drawn(2, 16, seed=1) if carried else torch.zeros(2, 16, dtype=torch.float64)
    found, A, B, due = memory.scan(u, m), *(part.numpy() for part in delay(16, 40.0)), m.numpy()
    for t in range(T):
        due = due @ A.T + u[:, t : t + 1].numpy() * B
        np.testing.assert_allclose(found[:, t], due, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("T", [1, 63, 64, 65, 200])
def test_resets_inside_the_scan_are_those_of_the_recurrence(T):
    memory, u, m = Delay(8, 20.0).double(), drawn(3, T).requires_grad_(), drawn(3, 8, seed=1)
    reset = torch.rand(3, T, generator=torch.Generator().manual_seed(2)) < 0.05
    reset[2] = False
    found, due = memory.scan_with_resets(u, m, reset), m.numpy()
    A, B = (part.numpy() for part in delay(8, 20.0))
    for t in range(T):
        due = np.where(reset[:, t : t + 1], 0, due) @ A.T + u[:, t : t + 1].detach().numpy() * B
        np.testing.assert_allclose(found[:, t].detach(), due, rtol=1e-9, atol=1e-9)
    (back,) = torch.autograd.grad(found[0, -1].sum(), u)
    begin = max([0, *reset[0].nonzero().flatten().tolist()])
    assert not back[0, :begin].any()
    assert back[0, begin:].all()


@pytest.mark.parametrize(("N", "theta"), [(1, 3.0), (6, 8.0), (16, 128.0), (64, 128.0), (128, 128.0)])
def test_the_hold_is_scipys_and_that_of_the_augmented_exponential(N, theta):
    A, B = continuous(N, theta)
    Ad, Bd = (part.numpy() for part in delay(N, theta))
    by_scipy = cont2discrete((A, B, np.ones((1, N)), np.zeros((1, 1))), 1.0, method="zoh")
    np.testing.assert_allclose(Ad, by_scipy[0], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(Bd, by_scipy[1][:, 0], rtol=1e-10, atol=1e-10)
    augmented = expm(np.block([[A, B], [np.zeros((1, N + 1))]]))
    np.testing.assert_allclose(np.c_[Ad, Bd], augmented[:N], rtol=1e-10, atol=1e-10)
    assert np.abs(np.linalg.eigvals(Ad)).max() < 1  # whatever was fed, it is forgotten


def test_the_memory_is_a_window_of_its_signal():
    theta, t = 128.0, torch.arange(600, dtype=torch.float64)
    signal = torch.sin(2 * torch.pi * t / 256)
    m = Delay(16, theta).double().scan(signal.unsqueeze(0), torch.zeros(1, 16, dtype=torch.float64))[0]
    lags = torch.arange(0, 129, 8)
    for now in (200, 400, 599):
        seen = window(m[now], lags, theta=theta)
        assert (seen - signal[now - lags]).abs().max() < 0.02


@pytest.mark.parametrize("N", [1, 2, 3, 9])
def test_the_window_is_a_sum_of_legendre_polynomials(N):
    m, lags = drawn(2, N), torch.tensor([0.0, 1.5, 7.0, 10.0], dtype=torch.float64)
    due = sum(m[:, i : i + 1].numpy() * eval_legendre(i, 2 * lags.numpy() / 10.0 - 1) for i in range(N))
    np.testing.assert_allclose(window(m, lags, theta=10.0), due, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("T", [1, 2, 5, 8, 33])
def test_an_orbit_is_powers_times_its_start(T):
    A, start = drawn(4, 4) / 4, drawn(3, 4, seed=1)
    due = np.stack([start.numpy() @ np.linalg.matrix_power(A.numpy(), t).T for t in range(T)], 1)
    np.testing.assert_allclose(orbit(A, start, T), due, rtol=1e-12, atol=1e-12)


def test_one_signal_is_remembered_and_both_memory_and_input_are_read():
    mixer, x = fresh(3, 5, theta=9.0), drawn(2, 20, 3)
    A, B = (part.numpy() for part in delay(5, 9.0))
    w, c, W, b = (part.numpy() for part in (*mixer.inward.parameters(), *mixer.outward.parameters()))
    m, y = np.zeros((2, 5)), mixer(x)[0]
    for t in range(20):
        now = x[:, t].numpy()
        m = m @ A.T + np.maximum(now @ w.T + c, 0) * B
        due = np.maximum(np.concatenate([m, now], 1) @ W.T + b, 0)
        np.testing.assert_allclose(y[:, t], due, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_system_is_not_rounded_by_a_cast(dtype):
    memory = LMU(4, 16, theta=128.0).to(torch.bfloat16).to(dtype).memory
    A, B = delay(16, 128.0)
    assert memory.A.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(memory.A, A.to(memory.A.dtype))
    assert torch.equal(memory.B, B.to(memory.A.dtype))


def test_only_the_maps_are_trained_and_saved():
    mixer = LMU(4, 16)
    assert set(mixer.state_dict()) == {"inward.weight", "inward.bias", "outward.weight", "outward.bias"}


@pytest.mark.parametrize(("N", "theta"), [(0, 4.0), (3, 0.0), (3, float("inf")), (3, float("nan"))])
def test_a_window_that_is_none_is_refused(N, theta):
    with pytest.raises(ValueError, match=f"N={N}, theta={theta}"):
        LMU(4, N, theta=theta)

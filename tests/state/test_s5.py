"""S5 and its scan against numpy loops, scipy's zero-order hold, an FFT, and finite differences."""

from __future__ import annotations

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scipy.signal import cont2discrete

from loci.state.associative import associative_scan, linear, linear_scan, linear_steps, resettable
from loci.state.lyapunov import exponent
from loci.state.mixer import choose, state_bytes
from loci.state.s5 import S5, hippo
from loci.state.s5_rl import S5RL

torch.set_num_threads(1)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=random(seed), dtype=dtype)


def fresh(kind, *args, seed=0, dtype=torch.float64, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*args, **options).to(dtype).requires_grad_(requires_grad=False)


def episodes(B, T, chance=0.15, seed=3):
    return torch.rand(B, T, generator=random(seed)) < chance


def by_hand(mixer, u, x, done):
    """The recurrence of one system in numpy, one row and one moment at a time."""
    Lambda, B, C = (
        np.asarray(part)[..., 0] + 1j * np.asarray(part)[..., 1] for part in (mixer.Lambda, mixer.B, mixer.C)
    )
    step, skip = np.exp(np.asarray(mixer.log_step)), np.asarray(mixer.skip)
    Lbar = np.exp(Lambda * step)
    Bbar = ((Lbar - 1) / Lambda)[:, None] * B
    u, x = np.asarray(u), np.asarray(x)[..., 0] + 1j * np.asarray(x)[..., 1]
    y = np.empty_like(u)
    for row in range(u.shape[0]):
        for t in range(u.shape[1]):
            if done is not None and done[row, t]:
                x[row] = 0
            x[row] = Lbar * x[row] + Bbar @ u[row, t]
            y[row, t] = 2 * (C @ x[row]).real + skip * u[row, t]
    return torch.from_numpy(y), torch.from_numpy(np.stack([x.real, x.imag], -1))


@pytest.mark.parametrize("T", [1, 16, 17, 100, 300])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_scan_is_the_recurrence_that_forgets_where_an_episode_begins(T, dtype):
    mixer, u, x, done = fresh(S5, 5, 8, dtype=dtype), drawn(3, T, 5), drawn(3, 4, 2, seed=1), episodes(3, T)
    y, (last,) = mixer(u.to(dtype), (x.to(dtype),), reset=done)
    within = {torch.float64: 1e-10, torch.float32: 1e-4}[dtype]
    due, due_last = by_hand(mixer.double(), u, x, done)
    torch.testing.assert_close(y.double(), due, rtol=within, atol=within)
    torch.testing.assert_close(last.double(), due_last, rtol=within, atol=within)


def papers_rule(left, right):
    (a_i, b_i, c_i), (a_j, b_j, c_j) = left, right
    return (a_j, b_j, 1) if c_j else (a_j * a_i, a_j * b_i + b_j, c_i)


def test_the_rule_is_associative_and_gives_the_states_of_the_papers():
    for seed in range(50):
        a, b = torch.randn(2, 3, 4, generator=random(seed), dtype=torch.complex128)
        c = torch.rand(3, generator=random(seed)) < 0.5
        ours = [(a[i], b[i], (~c[i]).double()) for i in range(3)]
        one, two = resettable(resettable(*ours[:2]), ours[2]), resettable(ours[0], resettable(*ours[1:]))
        for got, due in zip(one, two, strict=True):
            torch.testing.assert_close(got, due, rtol=1e-12, atol=1e-12)
        papers = functools.reduce(papers_rule, [(a[i], b[i], int(c[i])) for i in range(3)])
        torch.testing.assert_close(one[1], papers[1], rtol=1e-12, atol=1e-12)
        assert float(one[2]) == 1 - papers[2]


@pytest.mark.parametrize("T", [1, 2, 15, 16, 17, 31, 32, 255, 256, 257, 300])
def test_the_scan_takes_any_associative_rule_in_order(T):
    turns = torch.linalg.qr(drawn(2, T, 3, 3))[0]  # rotations: products stay bounded, and do not commute
    (found,) = associative_scan(
        lambda i, j: (i[0] @ j[0],), (torch.eye(3, dtype=torch.float64).expand(2, 3, 3),), (turns,)
    )
    product = torch.eye(3, dtype=torch.float64)
    for t in range(T):
        product = product @ turns[:, t]
        torch.testing.assert_close(found[:, t], product, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("T", [1, 16, 40, 300])
def test_decays_of_each_moment_and_row_are_scanned_as_well(T):
    a, b, x, done = torch.sigmoid(drawn(2, T, 3, 2)), drawn(2, T, 3, 2, seed=1), drawn(2, 3, 2, seed=2), episodes(2, T)
    for reset in (None, done):
        torch.testing.assert_close(
            linear_scan(a, b, x, reset=reset), linear_steps(a, b, x, reset=reset), rtol=1e-12, atol=1e-12
        )
    assert torch.equal(linear((a[:, 0], b[:, 0]), (a[:, -1], b[:, -1]))[0], a[:, -1] * a[:, 0])


@pytest.mark.parametrize("length", [1, 7, 100])
def test_rollouts_in_pieces_are_the_rollout(length):
    memory, u, done = fresh(S5RL, 4, 6, L=3), drawn(2, 100, 4), episodes(2, 100)
    whole, last = memory(u, reset=done)
    carry, pieces = None, []
    for rows, resets in zip(u.split(length, 1), done.split(length, 1), strict=True):
        y, carry = memory(rows, carry, reset=resets)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-6, atol=1e-6)
    for got, due in zip(carry, last, strict=True):
        torch.testing.assert_close(got, due, rtol=1e-6, atol=1e-6)


def test_acting_step_by_step_is_training_over_the_rollout():
    memory, u, done = fresh(S5RL, 4, 6, L=2), drawn(3, 60, 4), episodes(3, 60)
    begin = memory(drawn(3, 9, 4, seed=5))[1]
    carry, acted = begin, []
    for t in range(60):
        y, carry = memory.step(u[:, t], choose(done[:, t], memory.initial_state(3), carry))
        acted.append(y)
    torch.testing.assert_close(memory(u, begin, reset=done)[0], torch.stack(acted, 1), rtol=1e-10, atol=1e-10)


def test_without_resets_it_is_a_convolution():
    mixer, T = fresh(S5, 3, 8), 200
    u = drawn(1, T, 3)
    Lbar, Bbar = (part.numpy() for part in mixer.discrete())
    C = torch.view_as_complex(mixer.C).numpy()
    K = np.stack([2 * (C * Lbar**t @ Bbar).real for t in range(T)])  # (T, D, D)
    product = np.fft.rfft(K, 2 * T, axis=0) @ np.fft.rfft(u[0].numpy(), 2 * T, axis=0)[:, :, None]
    due = np.fft.irfft(product, 2 * T, axis=0)[:T, :, 0] + mixer.skip.numpy() * u[0].numpy()
    torch.testing.assert_close(mixer(u)[0][0], torch.from_numpy(due), rtol=1e-5, atol=1e-5)


def test_the_hold_is_scipys_on_the_dense_real_system():
    mixer = fresh(S5, 3, 8)
    Lbar, Bbar = mixer.discrete()
    for k in range(4):
        re, im = mixer.Lambda[k].tolist()
        A, B = np.array([[re, -im], [im, re]]), mixer.B[k].T.numpy()
        Ad, Bd, *_ = cont2discrete((A, B, np.eye(2), np.zeros((2, 3))), float(mixer.log_step[k].exp()), method="zoh")
        np.testing.assert_allclose([Lbar[k].real, Lbar[k].imag], Ad[:, 0], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(torch.view_as_real(Bbar[k]).T, Bd, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("P", [2, 8, 64])
def test_the_start_is_the_normal_part_of_hippo(P):
    Lambda, V = (part.numpy() for part in hippo(P))
    S = np.empty((P, P))  # -(A + A^T)/2 is half the identity, and what is left turns
    for i in range(P):
        for j in range(P):
            S[i, j] = -0.5 if i == j else np.sign(j - i) * np.sqrt((2 * i + 1) * (2 * j + 1)) / 2
    np.testing.assert_allclose(2 * (V * Lambda @ V.conj().T).real, S, atol=1e-10 * P)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(P // 2), atol=1e-10)
    mixer = fresh(S5, 4, P)
    np.testing.assert_allclose(torch.view_as_complex(mixer.Lambda), Lambda, rtol=1e-6)
    B = 2 * (V @ torch.view_as_complex(mixer.B).numpy()).real  # B', real, is found again
    np.testing.assert_allclose(V.conj().T @ B, torch.view_as_complex(mixer.B), atol=1e-6)
    assert mixer.log_step.min() >= np.log(0.001) - 1e-6
    assert mixer.log_step.max() <= np.log(0.1) + 1e-6


def test_random_maps_have_the_variance_of_lecun():
    mixer = fresh(S5, 256, 128)
    for weight in (mixer.B, mixer.C):
        each = weight.square().sum(-1).mean()  # |B|^2 of B = V* B': 1/P; |C|^2 of a complex C': 2/P
        assert float(each) * 128 == pytest.approx(1.0 if weight is mixer.B else 2.0, rel=0.05)


def test_gradients_are_finite_differences_and_stop_at_a_reset():
    a = torch.polar(torch.rand(1, 20, 2, generator=random(), dtype=torch.float64), drawn(1, 20, 2, seed=1))
    b, x = torch.randn(2, 2, 20, 2, generator=random(2), dtype=torch.complex128)[0], a[:, 0].expand(2, 2).clone()
    done = torch.zeros(2, 20, dtype=torch.bool)
    done[0, 9] = done[1, 17] = True
    a, b, x = (part.requires_grad_() for part in (a, b, x))
    assert torch.autograd.gradcheck(lambda *given: linear_scan(*given, reset=done), (a, b, x))

    memory, u = fresh(S5RL, 4, 6, L=2), drawn(2, 20, 4).requires_grad_()
    y = memory(u, reset=done)[0]
    (back,) = torch.autograd.grad(y[0, 12].sum() + y[1, 19].sum(), u)
    assert not back[0, :9].any()
    assert not back[1, :17].any()
    assert back[0, 9:13].any(-1).all()
    assert back[1, 17:].any(-1).all()


def test_a_layer_is_system_gelu_gate_and_way_around():
    memory, u = fresh(S5RL, 3, 4, L=1), drawn(2, 12, 3)
    layer = memory.layers[0]
    y = by_hand(layer.system, u, np.zeros((2, 2, 2)), None)[0].numpy()
    v = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))  # flax's gelu
    value, gate = (v @ map_.weight.numpy().T + map_.bias.numpy() for map_ in (layer.value, layer.gate))
    due = u.numpy() + value / (1 + np.exp(-gate))
    torch.testing.assert_close(memory(u)[0], torch.from_numpy(due), rtol=1e-10, atol=1e-10)


def test_the_papers_memory_is_four_kilobytes_for_an_agent():
    memory = fresh(S5RL, 256, 256, dtype=torch.float32)
    assert state_bytes(memory.initial_state(64)) == 64 * 4096


def test_a_ceiling_keeps_eigenvalues_in_the_left_half():
    mixer = fresh(S5, 3, 4, ceiling=-1e-4)
    mixer.Lambda[:, 0] = 5.0
    assert (mixer.discrete()[0].abs() < 1).all()
    free = fresh(S5, 3, 4)
    free.Lambda[:, 0] = 5.0
    assert (free.discrete()[0].abs() > 1).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [(lambda: S5(3, 5), "P=5"), (lambda: S5(0, 4), "D=0"), (lambda: S5RL(3, 4, L=0), "L=0")],
)
def test_systems_that_are_none_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_errors_of_the_state_fade_as_the_slowest_eigenvalue_says():
    mixer = fresh(S5, 3, 6)
    mixer.log_step.copy_(torch.tensor([0.9, 0.1, 0.5]).log())  # far apart, so that few steps tell
    found = exponent(mixer.step, list(drawn(150, 1, 3)), mixer.initial_state(1), warmup=100)
    slowest = (mixer.Lambda[:, 0] * mixer.log_step.exp()).max()  # the largest of Re(Lambda) Delta
    assert found == pytest.approx(float(slowest), rel=1e-3)

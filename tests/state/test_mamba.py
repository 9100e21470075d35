"""Mamba against the loop of the paper's algorithm, a convolution, finite differences, and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.lab.tasks.copying import copying, selective
from loci.lab.tasks.ssm import Mamba as PlainMamba
from loci.state.mamba import Mamba, Selective, selective_scan, selective_steps
from loci.state.mixer import state_bytes

torch.set_num_threads(1)
DOUBLE = torch.float64


def drawn(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def fresh(kind=Mamba, *args, seed=0, dtype=DOUBLE, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*args, **options).to(dtype)


def given(T, *, B=2, E=3, N=4, dtype=DOUBLE, span=1.0):
    """u, delta, A, B, C, h of a scan; span widens the logarithm of delta."""
    delta = (span * drawn(B, T, E, seed=1) - 2).exp()
    A = -drawn(E, N, seed=2).exp()
    parts = drawn(B, T, E), delta, A, drawn(B, T, N, seed=3), drawn(B, T, N, seed=4), drawn(B, E, N, seed=5)
    return tuple(part.to(dtype) for part in parts)


def by_loop(u, delta, A, B, C, h):
    """Equations (2) and (4) in numpy, a loop over rows and time."""
    u, delta, A, B, C, h = (np.asarray(part, dtype=np.float64) for part in (u, delta, A, B, C, h))
    h, y = h.copy(), np.empty_like(u)
    for row in range(len(u)):
        for t in range(u.shape[1]):
            h[row] = np.exp(delta[row, t][:, None] * A) * h[row] + np.outer(delta[row, t] * u[row, t], B[row, t])
            y[row, t] = h[row] @ C[row, t]
    return torch.from_numpy(y), torch.from_numpy(h)


@pytest.mark.parametrize("T", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("chunk", [1, 8, 200])
def test_the_scan_is_the_loop_of_the_paper(T, chunk):
    parts = given(T)
    due = by_loop(*parts)
    for found in (selective_scan(*parts, chunk=chunk), selective_steps(*parts)):
        torch.testing.assert_close(found, due, rtol=1e-12, atol=1e-12)
    single = selective_scan(*(part.float() for part in parts), chunk=chunk)
    torch.testing.assert_close(single[0].double(), due[0], rtol=1e-5, atol=1e-5)


def test_steps_of_any_length_are_exact():
    """exp(delta A) from 1 - 1e-9 to 0, beside each other in one chunk: a quotient of running products would be 0 / 0."""
    u, _, _, B, C, h = given(64)
    A = -torch.logspace(0, 3, 12, dtype=DOUBLE).view(3, 4)
    delta = 10 ** (12 * torch.rand(2, 64, 3, generator=torch.Generator().manual_seed(9), dtype=DOUBLE) - 9)
    parts = [u / delta, delta, A, B, C, h]  # inputs of one size, whatever the step
    due, due_h = by_loop(*parts)
    leaves = [part.requires_grad_() for part in parts]
    y, last = selective_scan(*leaves, chunk=16)
    torch.testing.assert_close((y, last), (due, due_h), rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(form(*leaves)[0].square().sum(), leaves) for form in (selective_scan, selective_steps)]
    for got, want in zip(*grads, strict=True):
        assert got.isfinite().all()
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [3, 50])
def test_gradients_are_finite_differences(chunk):
    leaves = [part.requires_grad_() for part in given(7, B=2, E=2, N=2)]
    assert torch.autograd.gradcheck(lambda *parts: selective_scan(*parts, chunk=chunk), leaves)


def test_gradients_of_all_parts_are_those_of_the_steps_at_length():
    leaves = [part.requires_grad_() for part in given(300)]
    weights = drawn(2, 300, 3, seed=8), drawn(2, 3, 4, seed=9)
    grads = []
    for form in (selective_scan, selective_steps):
        y, h = form(*leaves)
        grads.append(torch.autograd.grad((y * weights[0]).sum() + (h * weights[1]).sum(), leaves))
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-10)


def test_it_is_differentiated_once_and_says_so():
    u, delta, *others = (part.requires_grad_() for part in given(5, B=1, E=2, N=2))
    (once,) = torch.autograd.grad(selective_scan(u, delta, *others)[0].square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        torch.autograd.grad(once.sum(), delta)


def test_when_nothing_is_selected_it_is_a_convolution():
    u, delta, A, B, C, h = given(200)
    delta, B, C = (part[:1, :1].expand(2, 200, -1) for part in (delta, B, C))
    taps = torch.arange(200, dtype=DOUBLE).view(-1, 1, 1)
    kernel = ((delta[0, 0, :, None] * A * taps).exp() * B[0, 0] * C[0, 0]).sum(-1) * delta[0, 0]  # (T, E)
    spectrum = np.fft.rfft(kernel.numpy(), 400, axis=0) * np.fft.rfft(u.numpy(), 400, axis=1)
    due = torch.from_numpy(np.fft.irfft(spectrum, 400, axis=1)[:, :200])
    torch.testing.assert_close(selective_scan(u, delta, A, B, C, torch.zeros_like(h))[0], due, rtol=1e-9, atol=1e-9)


def test_with_one_channel_and_state_it_is_a_gated_average():
    """Theorem 1: N = 1, A = -1, B = 1 and the zero-order hold give h = (1 - g) h + g u with g = sigmoid(z)."""
    z, u = drawn(1, 30, 1), drawn(1, 30, 1, seed=1)
    delta, g = nn.functional.softplus(z), torch.sigmoid(z)
    one = torch.ones(1, 30, 1, dtype=DOUBLE)
    held = u * g / delta  # the hold's (1 - exp(-delta)) u in place of Euler's delta u
    h, due = torch.zeros(1, 1, dtype=DOUBLE), []
    for t in range(30):
        h = (1 - g[:, t]) * h + g[:, t] * u[:, t]
        due.append(h)
    A = torch.full((1, 1), -1.0, dtype=DOUBLE)
    found = selective_scan(held, delta, A, one, one, torch.zeros(1, 1, 1, dtype=DOUBLE))[0]
    torch.testing.assert_close(found, torch.stack(due, 1), rtol=1e-12, atol=1e-12)


def whole_block(mixer, x):
    """The layer in numpy from its weights, as the paper's reference computes it, for one row."""
    w = {name: part.detach().double().numpy() for name, part in mixer.state_dict().items()}

    def silu(a):
        return a / (1 + np.exp(-a))

    E, N, rank, T = mixer.E, mixer.system.N, mixer.system.rank, len(x)
    u, z = np.split(x @ w["inward.weight"].T, 2, axis=1)
    padded = np.concatenate([np.zeros((mixer.system.K - 1, E)), u])
    taps = w["system.conv.taps"]
    u = silu(sum(taps[k] * padded[k : k + T] for k in range(len(taps))) + w["system.conv.bias"])
    low, B, C = np.split(u @ w["system.select.weight"].T, [rank, rank + N], axis=1)
    delta = np.log1p(np.exp(low @ w["system.step_size.weight"].T + w["system.step_size.bias"]))
    A, h, y = -np.exp(w["system.A_log"]), np.zeros((E, N)), np.empty((T, E))
    for t in range(T):
        h = np.exp(delta[t][:, None] * A) * h + np.outer(delta[t] * u[t], B[t])
        y[t] = h @ C[t] + w["system.skip"] * u[t]
    return (y * silu(z)) @ w["outward.weight"].T


@pytest.mark.parametrize(("dtype", "within"), [(DOUBLE, 1e-10), (torch.float32, 1e-5)])
def test_two_thousand_moments_are_the_steps_and_the_reference(dtype, within):
    mixer, x = fresh(Mamba, 6, N=5, dtype=dtype), drawn(1, 2048, 6, dtype=dtype)
    with torch.no_grad():
        y, state = mixer(x)
        due, due_state = mixer.scan_by_steps(x, mixer.initial_state(1))
    torch.testing.assert_close((y, state), (due, due_state), rtol=within, atol=within)
    reference = torch.from_numpy(whole_block(mixer, x[0].double().numpy()))
    torch.testing.assert_close(y[0].double(), reference, rtol=within, atol=within)


def test_it_is_the_plain_layer_of_the_stability_meter():
    """Another implementation of the same layer, with weights carried over."""
    plain, mixer = fresh(PlainMamba, 8, dtype=torch.float32), fresh(Mamba, 8, dtype=torch.float32)
    pairs = {
        "in_proj.weight": "inward.weight", "tap_bias": "system.conv.bias", "x_proj.weight": "system.select.weight",
        "dt_proj.weight": "system.step_size.weight", "dt_proj.bias": "system.step_size.bias", "A_log": "system.A_log",
        "skip": "system.skip", "out_proj.weight": "outward.weight",
    }  # fmt: skip
    held = plain.state_dict()
    mixer.load_state_dict({new: held[old] for old, new in pairs.items()} | {"system.conv.taps": held["taps"].T})
    x = drawn(2, 40, 8, dtype=torch.float32)
    torch.testing.assert_close(mixer(x)[0], plain(x), rtol=1e-5, atol=1e-6)


def test_it_starts_as_the_paper_says():
    system = fresh(Selective, 64, N=16, K=4, rank=4, chunk=8, dtype=torch.float32)
    np.testing.assert_allclose(-system.A_log.detach().exp(), -np.tile(np.arange(1, 17.0), (64, 1)), rtol=1e-6)
    delta = nn.functional.softplus(system.step_size.bias.detach())
    assert delta.min() >= 0.001 * 0.999
    assert delta.max() <= 0.1 * 1.001
    assert 0.003 < float(delta.log().mean().exp()) < 0.03  # the middle in logarithms is 0.01
    assert system.step_size.weight.abs().max() <= 0.5  # rank^-1/2
    assert (system.skip == 1).all()
    assert system.conv.taps.abs().max() <= 0.5  # K^-1/2


def test_the_papers_state_is_nineteen_numbers_a_channel():
    mixer = fresh(Mamba, 64, dtype=torch.float32)
    assert mixer.system.rank == 4
    assert state_bytes(mixer.initial_state(1)) == 4 * 128 * (16 + 3)


class Saved:
    """Bytes that autograd keeps for the backward pass, each storage once, weights left out."""

    def __init__(self, module):
        self.own = {param.untyped_storage().data_ptr() for param in module.parameters()}
        self.storages = {}

    def pack(self, part):
        storage = part.untyped_storage()
        if storage.data_ptr() not in self.own:
            self.storages[storage.data_ptr()] = (storage, storage.nbytes())  # held, so that no address is used twice
        return part

    def bytes(self):
        return sum(size for _, size in self.storages.values())


def kept_for_backward(module, call):
    saved = Saved(module)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda part: part):
        out = call()
    assert out.requires_grad
    return saved.bytes()


def test_training_keeps_no_states_but_those_between_chunks():
    mixer = fresh(Mamba, 8, N=32, dtype=torch.float32)
    x = drawn(1, 1024, 8, dtype=torch.float32)
    scan = kept_for_backward(mixer, lambda: mixer.scan(x, mixer.initial_state(1))[0])
    states = 4 * 1024 * mixer.E * 32  # bytes of all h
    assert scan < states / 2
    by_steps = kept_for_backward(mixer, lambda: mixer.scan_by_steps(x, mixer.initial_state(1))[0])
    assert by_steps > 2 * states


def test_what_is_kept_grows_as_the_sequence_where_attention_grows_as_its_square():
    lengths = (256, 1024, 4096)
    mixer, attention = fresh(Mamba, 8, dtype=torch.float32), fresh(nn.Linear, 8, 24, dtype=torch.float32)

    def attended(x):
        q, k, v = attention(x).chunk(3, -1)
        return (q @ k.transpose(-1, -2) / math.sqrt(8)).softmax(-1) @ v

    rows = [drawn(1, T, 8, dtype=torch.float32) for T in lengths]
    ours = [kept_for_backward(mixer, lambda x=x: mixer(x)[0]) for x in rows]
    theirs = [kept_for_backward(attention, lambda x=x: attended(x)) for x in rows]
    growth = [math.log(sizes[-1] / sizes[0]) / math.log(lengths[-1] / lengths[0]) for sizes in (ours, theirs)]
    assert growth[0] <= 1.1
    assert growth[1] >= 1.8


def test_half_precision_weights_carry_a_wide_state():
    mixer = fresh(Mamba, 8, dtype=torch.bfloat16)
    x = drawn(2, 500, 8, dtype=torch.bfloat16)
    y, state = mixer(x)
    assert y.dtype == torch.bfloat16
    assert all(part.dtype == torch.float32 for part in state)
    wide = fresh(Mamba, 8, dtype=torch.bfloat16).float()
    assert (wide(x.float())[0] - y.float()).abs().max() < 0.05


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mamba(0), "D=0"),
        (lambda: Mamba(4, expand=0), "expand=0"),
        (lambda: Mamba(4, N=0), "N=0"),
        (lambda: Mamba(4, K=0), "K=0"),
        (lambda: Mamba(4, rank=0), "rank=0"),
        (lambda: Mamba(4, chunk=0), "chunk=0"),
    ],
)
def test_blocks_that_are_none_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_no_moments_leave_the_state():
    u, delta, A, B, C, h = given(3)
    y, last = selective_scan(u[:, :0], delta[:, :0], A, B[:, :0], C[:, :0], h)
    assert y.shape == (2, 0, 3)
    assert torch.equal(last, h)


def test_copying_tasks_say_what_was_read():
    random = torch.Generator().manual_seed(0)
    ids, answers = copying(50, 4, 20, 8, random)
    assert torch.equal(ids[:, :4], answers)
    assert (ids[:, 4:24] == 8).all()
    assert (ids[:, 24:] == 9).all()
    ids, answers = selective(500, 4, 20, 8, random)
    assert ids.shape == (500, 28)
    assert (ids[:, 24:] == 9).all()
    assert torch.equal(ids[ids < 8].view(500, 4), answers)
    seen = (ids[:, :24] < 8).float().mean(0)
    assert (seen - 4 / 24).abs().max() < 5 * math.sqrt(4 / 24 * 20 / 24 / 500)  # everywhere as often

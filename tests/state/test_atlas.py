"""ATLAS and its kin against loops that differentiate the paper's objective, against SVDs, and in the limits that have names."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import silu

from loci.state import checks, delta_rule
from loci.state.atlas import Atlas
from loci.state.delta_rule import DeltaRule
from loci.state.newton_schulz import COEFFICIENTS, newton_schulz
from loci.state.omega import Fed, Matrix, Net, Omega
from loci.state.omeganet import OmegaNet
from loci.state.polynomial import Polynomial, full
from loci.state.titans import Titans
from tests.state.drawn import DOUBLE, drawn, fresh

torch.set_num_threads(1)
B, H, T, d = 2, 3, 11, 4
KINDS = (OmegaNet, Atlas, Titans)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def fed(*, T=T, seed=0, **gates):
    """Unit queries and keys, values, and gates drawn or, where given, everywhere the same."""
    q, k, v = (drawn(B, H, T, d, seed=seed + part) for part in range(3))
    shares = {name: torch.sigmoid(drawn(B, H, T, seed=seed + 3 + part)) for part, name in enumerate(Fed._fields[3:])}
    shares |= {name: shares[name].log() for name in ("log_alpha", "log_theta")}
    shares |= {name: torch.full((B, H, T), value, dtype=DOUBLE) for name, value in gates.items()}
    return Fed(unit(q), unit(k), v, **shares)


def close(got, want, within=1e-10):
    torch.testing.assert_close(got, want, rtol=0, atol=within)


# Inside: gradients, features, Newton-Schulz


def said(memory, weights, z):
    """M(z) as the paper writes it, one row and head."""
    if isinstance(memory, Matrix):
        return z @ weights[0].T
    return z[:, : weights[0].shape[0]] + silu(z @ weights[1].T) @ weights[0].T


def objective(memory, weights, z, v, gamma):
    """The Omega objective: gamma multiplies the squared error."""
    return (gamma * (said(memory, weights, z) - v).square().sum(-1)).sum()


@pytest.mark.parametrize("memory", [Matrix(), Net(5)], ids=["matrix", "net"])
def test_gradients_in_closed_form_are_those_of_autograd(memory) -> None:
    F, c = 7, 6
    weights = [drawn(*shape, seed=k).requires_grad_() for k, shape in enumerate(memory.shapes(d, F))]
    z, v, gamma = (
        drawn(c, F, seed=3),
        drawn(c, d, seed=4),
        torch.rand(c, generator=torch.Generator().manual_seed(5)).to(DOUBLE),
    )
    due = torch.autograd.grad(objective(memory, weights, z, v, gamma), weights)
    for (left, right), want in zip(memory.factors(tuple(weights), z, v), due, strict=True):
        close((gamma[:, None] * left).T @ right, want)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_features_have_the_inner_products_of_full_tensors(degree) -> None:
    phi = fresh(Polynomial, d, degree=degree)
    a = torch.tensor([1 / math.factorial(i) for i in range(1, degree + 1)], dtype=DOUBLE)
    if degree > 1:
        close(phi.a.detach(), a, 1e-7)
        a = 0.5 + drawn(degree, seed=9).square()
        phi.a.data.copy_(a)
    q, k = drawn(20, d, seed=1), drawn(20, d, seed=2)
    dot = (q * k).sum(-1)
    want = sum(a[i - 1] ** 2 * dot**i for i in range(1, degree + 1)) / a.square().sum()
    close((phi(q) * phi(k)).sum(-1), want)
    close((full(q, a) * full(k, a)).sum(-1) / a.square().sum(), want)
    assert phi(q).shape[-1] == phi.features == sum(math.comb(d + i - 1, i) for i in range(1, degree + 1))
    close(phi(unit(q)).norm(dim=-1), torch.ones(20, dtype=DOUBLE))
    close(phi(q)[:, :d] * a.norm() / a[0], q)


def test_as_many_pairs_fit_as_there_are_features_and_no_more() -> None:
    for degree in (1, 2):
        phi = fresh(Polynomial, 6, degree=degree)
        for n, fits in ((phi.features, True), (phi.features + 4, False)):
            z, v = phi(unit(drawn(n, 6, seed=1))).detach().numpy(), drawn(n, 3, seed=2).numpy()
            left = np.abs(z @ np.linalg.lstsq(z, v, rcond=None)[0] - v).max()
            assert (left < 1e-8) == fits
            assert fits or left > 1e-2


def mapped(s):
    """What five rounds make of singular values."""
    a, b, c = COEFFICIENTS
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (8, 8)])
def test_newton_schulz_keeps_singular_vectors_and_maps_values(shape) -> None:
    S = drawn(5, *shape)
    U, s, Vh = torch.linalg.svd(S, full_matrices=False)
    inside = U.mT @ newton_schulz(S) @ Vh.mT
    values = inside.diagonal(dim1=-2, dim2=-1)
    assert (inside - torch.diag_embed(values)).abs().max() < 1e-12
    close(values, mapped(s / s.norm(dim=-1, keepdim=True)), 1e-5)  # eps beside the norm
    if shape != (8, 8):  # square ones have singular values near 0, which stay small
        assert 0.68 < values.min()
        assert values.max() < 1.20


def test_newton_schulz_of_nothing_is_nothing_and_size_does_not_matter() -> None:
    zero = torch.zeros(3, 4, dtype=DOUBLE, requires_grad=True)
    out = newton_schulz(zero)
    out.sum().backward()
    assert not out.any()
    assert zero.grad.isfinite().all()
    close(newton_schulz(1000 * drawn(4, 6)), newton_schulz(drawn(4, 6)), 1e-4)


# The rules against a loop over tokens that differentiates the objective


def orthogonalised(S):
    U, s, Vh = torch.linalg.svd(S, full_matrices=False)
    return U @ torch.diag(mapped(s / (s.norm() + 1e-7))) @ Vh


def looped(mixer, given, row, head):
    """Token by token, gradients by autograd at the memory of the last chunk's end: reads (T, d), last M, last S."""
    M = [part[head].detach() for part in mixer.start]
    S = [torch.zeros_like(part) for part in M]
    one = Fed(*(part[row, head] for part in given))
    z, asked, out = mixer.phi(one.k).detach(), mixer.phi(one.q).detach(), []
    for t in range(len(one.q)):
        if t % mixer.chunk == 0:
            frozen = [part.clone().requires_grad_() for part in M]
        seen = slice(max(0, t - mixer.window + 1), t + 1)
        G = torch.autograd.grad(objective(mixer.memory, frozen, z[seen], one.v[seen], one.gamma[seen]), frozen)
        alpha, theta, eta = one.log_alpha[t].exp(), one.log_theta[t].exp(), one.eta[t]
        if isinstance(mixer, OmegaNet):
            M = [alpha * m - eta * g for m, g in zip(M, G, strict=True)]
        elif isinstance(mixer, Atlas):
            S = [theta * s + g for s, g in zip(S, G, strict=True)]
            M = [alpha * m - eta * orthogonalised(s) for m, s in zip(M, S, strict=True)]
        else:
            S = [theta * s + eta * g for s, g in zip(S, G, strict=True)]
            M = [alpha * m - s for m, s in zip(M, S, strict=True)]
        out.append(said(mixer.memory, M, asked[t : t + 1])[0])
    return torch.stack(out), M, S


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("hidden", [None, 5], ids=["matrix", "net"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_memory_is_the_loop_over_its_objective(kind, hidden, chunk) -> None:
    size = {} if kind is Titans else {"window": 3}
    mixer = fresh(kind, H * d, heads=H, hidden=hidden, chunk=chunk, degree=2, **size)
    for part in mixer.start:
        part.add_(0.3 * drawn(*part.shape, seed=7))
    given = fed() if kind is not Titans else fed(gamma=1.0)
    given = given._replace(eta=0.1 * given.eta)
    read, last = mixer.moments(given, mixer.empty(B))
    held, steps = mixer.empty(B), []
    for t in range(T):
        y, held = mixer.moment(Fed(*(part[:, :, t : t + 1] for part in given)), held)
        steps.append(y)
    for row in range(B):
        for head in range(H):
            with torch.enable_grad():
                due, M, S = looped(mixer, given, row, head)
            close(torch.cat(steps, 2)[row, head], due, 1e-9)
            close(read[row, head], due, 1e-9)
            for place in range(len(M)):
                for after in (last, held):
                    close(after.M[place][row, head], M[place], 1e-9)
                    assert not after.S or torch.allclose(after.S[place][row, head], S[place], rtol=0, atol=1e-9)


# Limits that have names


@torch.no_grad()
def test_a_window_of_one_token_is_the_delta_rule() -> None:
    mixer = fresh(OmegaNet, H * d, heads=H, window=1, degree=1, chunk=1)
    given = fed(gamma=1.0, log_alpha=0.0, eta=0.5)
    read, held = mixer.moments(given, mixer.empty(B))
    theirs, M_theirs = delta_rule.parallel(
        delta_rule.Fed(given.q, given.k, given.v, given.log_alpha, torch.ones_like(given.eta)), held.M[0] * 0
    )
    for row in range(B):
        for head in range(H):
            M = np.zeros((d, d))
            for k, v in zip(given.k[row, head].numpy(), given.v[row, head].numpy(), strict=True):
                M = M @ (np.eye(d) - np.outer(k, k)) + np.outer(v, k)
                assert np.abs(M @ k - v).max() < 1e-12  # the newest pair is known
            assert np.abs(held.M[0][row, head].numpy() - M).max() < 1e-10
            assert np.abs(M_theirs[row, head].numpy() - M).max() < 1e-10
    close(theirs, read)


@torch.no_grad()
def test_gradients_at_an_empty_memory_are_hebbian_linear_attention() -> None:
    mixer = fresh(OmegaNet, H * d, heads=H, window=1, degree=2, chunk=T)
    given = fed(gamma=1.0, log_alpha=0.0, eta=0.5)
    read, _ = mixer.moments(given, mixer.empty(B))
    scores = (mixer.phi(given.q) @ mixer.phi(given.k).mT).tril()
    close(read, scores @ given.v)


@torch.no_grad()
def test_a_long_window_solves_least_squares() -> None:
    """A window over a whole text, many small steps at its end: the pairs' regression, of as many pairs as features."""
    n = 8
    mixer = fresh(OmegaNet, 4, heads=1, window=n, degree=2, chunk=1)
    k, v = unit(drawn(1, 1, n, 4, seed=1)), drawn(1, 1, n, 4, seed=2)
    k, v = (torch.cat([part] * 400, 2) for part in (k, v))
    still = torch.zeros(1, 1, 400 * n, dtype=DOUBLE)
    _, held = mixer.moments(Fed(k, k, v, still + 1, still, still + 0.2, still), mixer.empty(1))
    z = mixer.phi(k[0, 0, :n]).numpy()
    want = np.linalg.lstsq(z, v[0, 0, :n].numpy(), rcond=None)[0].T
    assert np.abs(held.M[0][0, 0].numpy() - want).max() < 1e-4


@torch.no_grad()
def test_a_token_whose_gamma_is_0_was_never_there() -> None:
    mixer = fresh(OmegaNet, H * d, heads=H, window=4, chunk=1)
    given = fed(log_alpha=0.0)
    given.gamma[:, :, 5] = 0
    other = given._replace(k=given.k.clone(), v=given.v.clone())
    other.k[:, :, 5], other.v[:, :, 5] = unit(drawn(d, seed=20)), 100.0
    close(mixer.moments(given, mixer.empty(B))[0], mixer.moments(other, mixer.empty(B))[0], 0)


# The delta rule


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_the_delta_rule_is_its_equation(chunk) -> None:
    given = fed(seed=30)
    mine = delta_rule.Fed(given.q, given.k, given.v, given.log_alpha, given.eta)
    start = drawn(B, H, d, d, seed=40)
    read, last = delta_rule.chunkwise(mine, start, chunk)
    for row in range(B):
        for head in range(H):
            M = start[row, head].numpy()
            for t in range(T):
                q, k, v, log_alpha, eta = (part[row, head, t].numpy() for part in mine)
                M = np.exp(log_alpha) * M @ (np.eye(d) - eta * np.outer(k, k)) + eta * np.outer(v, k)
                assert np.abs(read[row, head, t].numpy() - M @ q).max() < 1e-10
            assert np.abs(last[row, head].numpy() - M).max() < 1e-10


# Layers


@pytest.mark.parametrize("kind", KINDS)
def test_outer_gradients_are_those_of_differences(kind) -> None:
    mixer = fresh(kind, 4, heads=2, hidden=2, chunk=2)
    with torch.no_grad():
        for param in mixer.parameters():
            param.add_(0.1 * drawn(*param.shape, seed=3))
    x = drawn(1, 5, 4).requires_grad_()
    leaves = [
        mixer.keyed.pairs.weight,
        mixer.keyed.gates.weight,
        mixer.phi.a if kind is not Titans else x,
        *mixer.start,
    ]
    assert torch.autograd.gradcheck(lambda x, *_: mixer(x)[0], (x, *leaves), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_goes_on_learning_in_inference(kind) -> None:
    mixer = fresh(kind, 8, heads=2, hidden=3)
    x = drawn(2, 9, 8)
    y, state = mixer(x)
    mixer.eval()
    with torch.inference_mode():
        same, after = mixer(x)
        assert torch.equal(y, same)
        assert all(torch.equal(one, two) for one, two in zip(state, after, strict=True))
        assert after[4].abs().max() > 1e-4


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (OmegaNet, {"window": 1, "chunk": 1}),
        (OmegaNet, {"window": 6, "chunk": 3, "degree": 3}),
        (OmegaNet, {"window": 2, "chunk": 1, "hidden": 3, "degree": 1}),
        (Atlas, {"window": 4, "chunk": 1}),
        (Atlas, {"window": 4, "chunk": 50, "degree": 1}),
        (Titans, {"chunk": 1}),
        (Titans, {"chunk": 5, "hidden": 6}),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "law",
    [
        checks.splits_anywhere,
        checks.reset_starts_afresh,
        checks.state_bytes_are_the_formula,
        checks.gradient_reaches_every_parameter,
    ],
    ids=lambda law: law.__name__,
)
def test_other_memories_windows_and_chunks_keep_the_laws(law, kind, options) -> None:
    law(lambda: kind(4, heads=2, **options))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_keys_that_are_all_alike_do_not_make_it_overshoot(kind) -> None:
    for options in ({"chunk": 1}, {"chunk": 64}):
        mixer = fresh(kind, 8, heads=2, **options)
        y, _ = mixer(torch.ones(1, 2000, 8, dtype=DOUBLE))
        assert y[0, -200:].abs().max() < 10


def test_what_holds_nothing_is_refused() -> None:
    for kind, options, words in (
        (OmegaNet, {"window": 0}, "window=0"),
        (Atlas, {"chunk": 0}, "chunk=0"),
        (Titans, {"hidden": 0}, "hidden=0"),
        (OmegaNet, {"degree": 0}, "degree=0"),
        (OmegaNet, {"heads": 3}, "heads=3"),
        (Atlas, {"heads": 0, "head": 4}, "heads"),
        (DeltaRule, {"chunk": 0}, "chunk=0"),
        (DeltaRule, {"conv": 0}, "conv=0"),
    ):
        with pytest.raises(ValueError, match=words):
            kind(8, **options)


def test_members_share_the_machinery() -> None:
    assert all(issubclass(kind, Omega) for kind in KINDS)
    assert len(Titans(8).initial_state(2)[1][0, 0]) == 0  # no window

"""Lyapunov exponents: closed forms, dense Jacobians of autograd, and the diagonal of a selective state space."""

from __future__ import annotations

import cmath
import math

import pytest

torch = pytest.importorskip("torch")

from loci.lab.tasks.ssm import Mamba, Mamba2, TanhRNN
from loci.state.lyapunov import Lyapunov, autonomous, deviation, exponent, growths, rounding_deviation, spectrum

torch.set_num_threads(1)
DOUBLE = torch.float64


def fresh(kind, *args, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*args, **options).requires_grad_(requires_grad=False)


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# closed forms


def test_the_logistic_map_at_4_has_ln_2():
    logistic = autonomous(lambda x: 4 * x * (1 - x))
    start = torch.tensor([0.3], dtype=DOUBLE)
    assert exponent(logistic, [None] * 2000, start, warmup=10) == pytest.approx(math.log(2), abs=0.01)


def test_a_diagonal_map_has_the_logarithms_of_its_entries():
    scale = torch.tensor([0.5, 2.0], dtype=DOUBLE)
    linear = autonomous(lambda x: scale * x)
    found = spectrum(linear, [None] * 20, torch.ones(2, dtype=DOUBLE))
    torch.testing.assert_close(found, torch.tensor([math.log(2), -math.log(2)], dtype=DOUBLE), rtol=1e-12, atol=1e-12)
    assert exponent(linear, [None] * 60, torch.ones(2, dtype=DOUBLE), warmup=30) == pytest.approx(
        math.log(2), abs=1e-12
    )


def test_the_exponents_of_the_henon_map_sum_to_the_logarithm_of_its_area_factor():
    """det J = -0.3 everywhere; the largest is known to be 0.4192 at a = 1.4, b = 0.3 (Sprott 2003)."""

    def henon(state):
        x, y = state
        return 1 - 1.4 * x * x + y, 0.3 * x

    start = (torch.tensor([0.1], dtype=DOUBLE), torch.tensor([0.1], dtype=DOUBLE))
    found = spectrum(autonomous(henon), [None] * 1500, start, warmup=20)
    assert float(found.sum()) == pytest.approx(math.log(0.3), abs=1e-9)
    assert float(found[0]) == pytest.approx(0.4192, abs=0.03)


def test_what_forgets_everything_has_minus_infinity():
    assert exponent(autonomous(torch.zeros_like), [None] * 3, torch.ones(2)) == -math.inf


# dense Jacobians as the oracle


def dense(step, inputs, state):
    """The product of dense Jacobians, in float64, and the logarithm of the determinants' product."""
    J, volume = torch.eye(state.numel(), dtype=DOUBLE), 0.0
    for x in inputs:
        one = torch.autograd.functional.jacobian(
            lambda s, x=x: step(x, s.view(state.shape))[1].flatten(), state.flatten()
        )
        J, state, volume = one @ J, step(x, state)[1], volume + float(torch.linalg.slogdet(one).logabsdet)
    return J, volume


@pytest.mark.parametrize("gain", [0.5, 1.5, 3.0])
def test_the_exponent_of_an_rnn_is_that_of_its_dense_jacobians(gain):
    rnn = fresh(TanhRNN, 8, gain=gain).double()
    inputs, start = 0.1 * drawn(30, 1, 8, dtype=DOUBLE), drawn(1, 8, seed=1, dtype=DOUBLE)
    J, volume = dense(rnn.step, inputs, start)
    tangent = torch.randn(1, 8, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)[0]
    by_hand = (J @ tangent).norm().log() - tangent.norm().log()
    assert float(growths(rnn.step, inputs, start, seed=4).sum()) == pytest.approx(float(by_hand), abs=1e-9)
    total = spectrum(rnn.step, inputs, start).sum() * 30
    assert float(total) == pytest.approx(volume, rel=1e-8)


def test_a_few_exponents_are_the_first_of_all():
    rnn = fresh(TanhRNN, 8, gain=2.0).double()
    inputs, start = torch.zeros(400, 1, 8, dtype=DOUBLE), drawn(1, 8, dtype=DOUBLE)
    whole = spectrum(rnn.step, inputs, start, warmup=100)
    few = spectrum(rnn.step, inputs, start, count=2, warmup=100)
    torch.testing.assert_close(few, whole[:2], rtol=0.0, atol=0.01)
    assert exponent(rnn.step, inputs, start, warmup=100) == pytest.approx(float(whole[0]), abs=0.01)


def test_states_may_be_trees_with_counters_and_complex_parts():
    """A rotation that shrinks by 0.9, a float that halves, a counter that the rotation does not depend on."""
    turn = torch.tensor(0.9 * cmath.exp(0.7j), dtype=torch.complex128)

    def step(x, state):
        return None, {"z": turn * state["z"], "n": state["n"] + 1, "m": [0.5 * state["m"][0]]}

    start = {"z": torch.ones(2, dtype=torch.complex128), "n": torch.tensor(3), "m": [torch.ones(1, dtype=DOUBLE)]}
    found = spectrum(step, [None] * 5, start)
    expected = torch.tensor([0.9] * 4 + [0.5], dtype=DOUBLE).log()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert exponent(step, [None] * 80, start, warmup=40) == pytest.approx(math.log(0.9), abs=1e-9)


# selective state spaces


def fixed(layer, inputs):
    """Decays of a Mamba layer (T, E, N), by its own formula written out."""
    low = inputs @ layer.x_proj.weight.T[:, : layer.rank]
    delta = torch.log1p(torch.exp(low @ layer.dt_proj.weight.T + layer.dt_proj.bias))
    return delta[..., None] * -torch.exp(layer.A_log)


def test_under_a_constant_input_the_exponent_is_delta_times_the_largest_a():
    layer = fresh(Mamba, 4, N=3).double()
    u = drawn(1, layer.E, dtype=DOUBLE)
    rates = fixed(layer, u)[0]
    found = spectrum(layer.recurrence, [u] * 12, torch.zeros(1, layer.E, 3, dtype=DOUBLE))
    torch.testing.assert_close(found, rates.flatten().sort(descending=True).values, rtol=1e-6, atol=1e-9)


def test_the_spectrum_of_mamba_is_the_mean_of_delta_a():
    layer = fresh(Mamba, 4, N=3).double()
    inputs = drawn(50, 1, layer.E, dtype=DOUBLE)
    rates = fixed(layer, inputs[:, 0]).mean(0).flatten().sort(descending=True).values
    start = torch.zeros(1, layer.E, 3, dtype=DOUBLE)
    torch.testing.assert_close(spectrum(layer.recurrence, inputs, start), rates, rtol=1e-9, atol=1e-9)
    many = inputs.repeat(60, 1, 1)  # Benettin's tangent must turn to the slowest of 24 directions
    assert exponent(layer.recurrence, many, start, warmup=2000) == pytest.approx(float(rates[0]), abs=1e-5)


@pytest.mark.parametrize("kind", [Mamba, Mamba2])
def test_a_whole_layer_never_grows_and_an_rnn_of_gain_one_and_a_half_does(kind):
    """The convolution's window is forgotten after K - 1 steps; then only the decay is left."""
    layer = fresh(kind, 8)
    assert Lyapunov(warmup=4).read(layer.step, drawn(60, 1, 8), layer.initial_state(1)).value <= 0
    rnn = fresh(TanhRNN, 64, gain=1.5)
    assert exponent(rnn.step, torch.zeros(300, 1, 64), drawn(1, 64), warmup=100) > 0


def test_a_block_that_reads_its_own_outputs_is_metered_whole():
    """Closed over its output, a layer's Jacobian is no longer diagonal: dense Jacobians agree, and it may grow."""
    layer = fresh(Mamba, 2, N=2, K=2).double()
    with torch.no_grad():
        layer.out_proj.weight.mul_(20)
    sizes = (layer.E, layer.E * 2, 2)

    def closed(x, flat):
        window, h, y = flat.split(sizes)
        y, (window, h) = layer.step(y[None] + x, (window.view(1, -1, 1), h.view(1, -1, 2)))
        return y, torch.cat([window.flatten(), h.flatten(), y.flatten()])

    inputs, start = drawn(12, 1, 2, dtype=DOUBLE), torch.zeros(sum(sizes), dtype=DOUBLE)
    J, _ = dense(closed, inputs, start)
    tangent = torch.randn(1, sum(sizes), generator=torch.Generator().manual_seed(0), dtype=DOUBLE)[0]
    by_hand = ((J @ tangent).norm() / tangent.norm()).log()
    found = growths(closed, inputs, start)
    assert float(found.sum()) == pytest.approx(float(by_hand), abs=1e-9)
    assert float(found.max()) > 0


def test_a_perturbed_state_comes_back_coordinate_by_coordinate():
    layer = fresh(Mamba, 4, N=3).double()
    inputs = drawn(40, 1, layer.E, dtype=DOUBLE)
    start = torch.zeros(1, layer.E, 3, dtype=DOUBLE)
    gap = 1e-3 * drawn(1, layer.E, 3, seed=2, dtype=DOUBLE)
    found = deviation(layer.recurrence, inputs, start, start + gap)
    faded = (fixed(layer, inputs[:, 0]).cumsum(0).exp() * gap).flatten(1).norm(dim=1)
    torch.testing.assert_close(found, torch.cat([gap.norm()[None], faded]), rtol=0.0, atol=1e-12)
    assert bool((found.diff() <= 0).all())


@pytest.mark.parametrize("kind", [Mamba, Mamba2])
def test_rounding_the_state_stays_below_the_geometric_sum(kind):
    """b_t = decay b_{t-1} + 2^-8 |largest state|: what bfloat16 loses at each step, faded since."""
    layer = fresh(kind, 8)
    state = layer.initial_state(1)[1].double()
    if kind is Mamba:
        inputs = drawn(200, 1, layer.E, dtype=DOUBLE)
        layer = layer.double()
        decays = layer.selected(inputs)[0][:, 0]
    else:
        layer = layer.double()
        inputs = list(
            zip(drawn(200, 1, layer.C, dtype=DOUBLE), drawn(200, 1, layer.H, seed=1, dtype=DOUBLE), strict=True)
        )
        decays = torch.stack([layer._selected(*each)[0][0] for each in inputs])
    found = rounding_deviation(layer.recurrence, inputs, state, lambda part: part.bfloat16().double())
    h, largest = state, 0.0
    for x in inputs:
        h = layer.recurrence(x, h)[1]
        largest = max(largest, float(h.abs().max()))
    bound, bounds = torch.zeros_like(state[0]), [0.0]
    for decay in decays:
        bound = decay * bound + 2**-8 * largest * 1.01
        bounds.append(float(bound.norm()))
    assert bool((found <= torch.tensor(bounds, dtype=DOUBLE)).all())
    assert float(found[-1]) > 0


# refusals


def test_what_cannot_be_metered_is_refused():
    halve = autonomous(lambda x: 0.5 * x)
    with pytest.raises(ValueError, match="warmup=3"):
        Lyapunov(warmup=3).read(halve, [None] * 3, torch.ones(2))
    with pytest.raises(ValueError, match="negative"):
        Lyapunov(warmup=-1)
    with pytest.raises(ValueError, match="count=3"):
        spectrum(halve, [None], torch.ones(2), count=3)
    with pytest.raises(TypeError, match="holds int"):
        exponent(halve, [None], (torch.ones(2), 3))
    with pytest.raises(ValueError, match="int64"):
        exponent(halve, [None], torch.ones(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"return \(output, state\)"):
        exponent(lambda x, state: (None, (state, state)), [None], torch.ones(2))

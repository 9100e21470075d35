"""sLSTM and mLSTM: the authors' numbers, forms that must be equal, closed forms, and gates that go to extremes.

OFFICIAL_* are outputs of NX-AI/xlstm at 032a6fb8ee19a8c0db80ae6111ff4744a09414a9, run in float64 on the CPU (its vanilla
sLSTM backend) with `wave` for weights, in the order of its named_parameters, and for inputs.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.state import mlstm, slstm
from loci.state.mixer import state_bytes
from loci.state.mlstm import MLSTM, Fed, Memory, chunkwise, parallel, segment_sums
from loci.state.slstm import SLSTM, Cell
from loci.state.xlstm import UNSEEN, Block, CausalConv, GatedFeedForward, Headwise

torch.set_num_threads(1)
DOUBLE = torch.float64
B, H, T, d = 2, 3, 23, 4

OFFICIAL_MLSTM = {
    "sum": -4.965600473227511,
    "first": [0.03718593642743708, -0.0859925377411768, -0.14421318453787707, -0.09349676083945188,
              0.0278460987099769, 0.1281543182720588, 0.13165616018847442, 0.035706371177188945],
    "last": [-0.16737173308886605, 0.11679057107939657, 0.31273054858861093, 0.2724372723440473,
             0.026347844811748025, -0.23964445801485781, -0.32461194469731836, -0.16437110028045646],
}  # fmt: skip
OFFICIAL_SLSTM = {
    "sum": -34.26446815084718,
    "first": [-1.9113353557182118, 0.8665345641205563, 0.46311352719755877, -0.875703451139902,
              0.5338317734119846, 0.6997010327827009, -0.7139896783090418, -1.6344361418078108],
    "last": [-1.0797615006505983, 0.7700140528345526, 0.616581892017343, -1.8212873931885756,
             0.9929790069599788, 0.4823631407129631, -0.780409301026918, -1.665622413458383],
}  # fmt: skip


def wave(*shape, k, scale=0.5):
    return (scale * torch.sin(k * torch.arange(1, math.prod(shape) + 1, dtype=DOUBLE))).reshape(shape)


def drawn(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def fresh(kind, *args, seed=0, nudge=0.1, **options):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        made = kind(*args, **options).to(DOUBLE)
        for param in made.parameters():
            param.add_(torch.randn_like(param) * nudge)
    return made


def fed(*, gates=3.0, seed=0, T=T, dtype=DOUBLE):
    """What the cell may be fed, with input and forget gates of the given size before their activation."""
    q, k, v = (drawn(B, H, T, d, seed=seed + part, dtype=dtype) for part in range(3))
    i, f = (gates * drawn(B, H, T, seed=seed + part, dtype=dtype) for part in (3, 4))
    return Fed(q, k / math.sqrt(d), v, i, nn.functional.logsigmoid(f))


def memory(*, seen, dtype=DOUBLE):
    if not seen:
        return Memory(torch.zeros(B, H, d, d, dtype=dtype), torch.zeros(B, H, d, dtype=dtype), torch.full((B, H), UNSEEN, dtype=dtype))  # fmt: skip
    return Memory(
        drawn(B, H, d, d, seed=7, dtype=dtype), drawn(B, H, d, seed=8, dtype=dtype), drawn(B, H, seed=9, dtype=dtype)
    )


def moments(given, start):
    out = []
    for t in range(given.q.shape[2]):
        h, start = mlstm.moment(Fed(*(part[:, :, t] for part in given)), start)
        out.append(h)
    return torch.stack(out, 2), start


def close(got, want, **within):
    torch.testing.assert_close(got, want, **within)


# The authors' numbers


def matches(y, official):
    close(y[0, 0], torch.tensor(official["first"], dtype=DOUBLE), rtol=1e-9, atol=1e-9)
    close(y[1, -1], torch.tensor(official["last"], dtype=DOUBLE), rtol=1e-9, atol=1e-9)
    assert float(y.sum()) == pytest.approx(official["sum"], abs=1e-8)


@torch.no_grad()
def test_an_mlstm_layer_is_the_authors():
    mixer = MLSTM(8, heads=2, inner=16, chunk=3).to(DOUBLE)
    mixer.skip.copy_(wave(16, k=1.1))
    mixer.up.weight.copy_(wave(32, 8, k=1.2))
    for k, part in ((1.3, mixer.q), (1.4, mixer.k), (1.5, mixer.v)):
        part.weight.copy_(wave(4, 4, 4, k=k).transpose(1, 2))
    mixer.conv.taps.copy_(wave(16, 4, k=1.6).T)
    mixer.conv.bias.copy_(wave(16, k=1.7))
    mixer.gates.weight.copy_(torch.cat([wave(2, 48, k=1.8), wave(2, 48, k=2.0)]))
    mixer.gates.bias.copy_(torch.cat([wave(2, k=1.9), wave(2, k=2.1)]))
    mixer.norm.weight.copy_(1 + wave(16, k=2.2))
    mixer.down.weight.copy_(wave(8, 16, k=2.3))
    x = wave(2, 7, 8, k=0.7, scale=1.0)
    matches(mixer(x)[0], OFFICIAL_MLSTM)
    matches(mixer.scan_by_steps(x, mixer.initial_state(2))[0], OFFICIAL_MLSTM)


@torch.no_grad()
def test_an_slstm_layer_is_the_authors():
    mixer = SLSTM(8, heads=2).to(DOUBLE)
    mixer.conv.taps.copy_(wave(8, 4, k=1.1).T)
    mixer.conv.bias.copy_(wave(8, k=1.2))
    # the authors' layer feeds its `fgate` to i and its `igate` to f: names alone
    mixer.W_if.weight.copy_(torch.cat([wave(2, 4, 4, k=k).transpose(1, 2) for k in (1.3, 1.4)], -1))
    mixer.W_zo.weight.copy_(torch.cat([wave(2, 4, 4, k=k).transpose(1, 2) for k in (1.5, 1.6)], -1))
    mixer.R.copy_(wave(2, 16, 4, k=1.7).transpose(1, 2))
    mixer.b.copy_(wave(4, 2, 4, k=1.8).transpose(0, 1).reshape(2, 16))
    mixer.norm.weight.copy_(1 + wave(8, k=1.9))
    x = wave(2, 7, 8, k=0.7, scale=1.0)
    matches(mixer(x)[0], OFFICIAL_SLSTM)
    matches(mixer.scan_by_steps(x, mixer.initial_state(2))[0], OFFICIAL_SLSTM)


# mLSTM: forms


@pytest.mark.parametrize("gates", [3.0, 50.0])
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 23, 64])
def test_moments_are_the_parallel_and_the_chunkwise_form(gates, seen, chunk):
    given, start = fed(gates=gates), memory(seen=seen)
    h, last = moments(given, start)
    for other, end in (parallel(given, start), chunkwise(given, start, chunk)):
        close(other, h, rtol=1e-8, atol=1e-8)
        for part, want in zip(end, last, strict=True):
            close(part, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("gates", [1.0, 50.0])
def test_the_cell_is_the_sum_over_the_past_without_a_stabiliser(gates):
    given = fed(gates=gates)
    q, k, v, i, log_f = (part.numpy().astype(np.longdouble) for part in given)
    h = np.zeros(q.shape, dtype=np.longdouble)
    for t in range(T):
        weights = np.exp(np.stack([i[..., s] + log_f[..., s + 1 : t + 1].sum(-1) for s in range(t + 1)], -1))
        scores = weights * np.einsum("bhd,bhsd->bhs", q[:, :, t], k[:, :, : t + 1])
        scale = np.maximum(np.abs(scores.sum(-1)), 1) + 1e-6 * weights.max(-1)  # eps is added in units of exp(m)
        h[:, :, t] = np.einsum("bhs,bhsd->bhd", scores, v[:, :, : t + 1]) / scale[..., None]
    found = parallel(given, memory(seen=False))[0].numpy()
    np.testing.assert_allclose(found, h.astype(float), rtol=1e-8, atol=1e-10)


def test_gates_of_fifty_stay_finite_and_right_in_float32():
    given, start = fed(gates=50.0, T=200), memory(seen=False)
    single = Fed(*(part.float() for part in given))
    want = parallel(given, start)[0]
    for h in (parallel(single, Memory(*(part.float() for part in start)))[0], moments(single, Memory(*(part.float() for part in start)))[0]):  # fmt: skip
        assert h.isfinite().all()
        assert float(((h - want).abs() / want.abs().clamp(min=1)).quantile(0.99)) < 1e-4


def test_a_gate_that_shuts_costs_no_precision_behind_it():
    log_f = torch.full((64,), -0.01, dtype=DOUBLE)
    log_f[:8] = -1e4
    exact, single = segment_sums(log_f), segment_sums(log_f.float())
    after = slice(8, None)
    assert float((exact[after, after].exp() - single[after, after].exp()).abs().max()) < 1e-6
    running = log_f.float().cumsum(-1)  # what the differences of one running sum would give
    differences = (running[:, None] - running).masked_fill(~torch.ones(64, 64, dtype=torch.bool).tril(), -math.inf)
    assert float((exact[after, after].exp() - differences[after, after].exp()).abs().max()) > 1e-4


def test_gradients_of_all_forms_are_those_of_finite_differences():
    given = Fed(*(part[:1, :1, :4].clone().requires_grad_() for part in fed(gates=2.0)))
    start = Memory(*(part[:1, :1].clone().requires_grad_() for part in memory(seen=True)))
    for form in (parallel, moments, lambda *pair: chunkwise(*pair, 3)):

        def output(*parts, form=form):
            h, end = form(Fed(*parts[:5]), Memory(*parts[5:]))
            return h, end.n / end.C.sum((-1, -2))[..., None]  # a ratio: how the memory is scaled is m's affair

        assert torch.autograd.gradcheck(output, (*given, *start), atol=1e-5, rtol=1e-3)


def test_a_normaliser_that_overflows_gives_no_nan_gradients():
    given = fed(gates=1.0, dtype=torch.float32)
    i = (given.i - 200).requires_grad_()  # exp(-m) is above what float32 holds
    k = given.k.clone().requires_grad_()
    for form in (parallel, moments):
        h, _ = form(given._replace(i=i, k=k), memory(seen=False, dtype=torch.float32))
        grads = torch.autograd.grad(h.sum(), (i, k))
        assert h.isfinite().all()
        assert all(grad.isfinite().all() for grad in grads)


# sLSTM


def cells(raw, start):
    out = []
    for now in raw.unbind(1):
        start = slstm.moment(now, start)
        out.append(start)
    return out


def unseen(*shape):
    return Cell(torch.zeros(shape, dtype=DOUBLE), torch.zeros(shape, dtype=DOUBLE), torch.zeros(shape, dtype=DOUBLE), torch.full(shape, UNSEEN, dtype=DOUBLE))  # fmt: skip


@pytest.mark.parametrize("gates", [1.0, 50.0, 1e4])
def test_without_feedback_a_cell_is_a_weighted_mean_of_what_it_saw(gates):
    i, f = gates * drawn(B, T, d, seed=1), gates * drawn(B, T, d, seed=2)
    z, o = drawn(B, T, d, seed=3), drawn(B, T, d, seed=4)
    found = cells(torch.cat([i, f, z, o], -1), unseen(B, d))
    log_f = nn.functional.logsigmoid(f)
    for t in range(T):
        log_weights = torch.stack([i[:, s] + log_f[:, s + 1 : t + 1].sum(1) for s in range(t + 1)], 1)
        mean = (log_weights.softmax(1) * z[:, : t + 1].tanh()).sum(1)
        close(found[t].h, o[:, t].sigmoid() * mean, rtol=1e-8, atol=1e-8)
        assert (found[t].n >= 1).all()


def test_a_gate_can_revise_what_was_stored():
    """The paper's case for exponential gates: a stronger input replaces the old value, without being told to forget."""
    i, z = torch.tensor([0.0, 20.0], dtype=DOUBLE), torch.tensor([-3.0, 3.0], dtype=DOUBLE)
    keep, out = torch.full((2,), 30.0, dtype=DOUBLE), torch.full((2,), 40.0, dtype=DOUBLE)
    found = cells(torch.stack([i, keep, z, out], -1)[None], unseen(1, 1))
    assert float(found[0].h) == pytest.approx(math.tanh(-3), abs=1e-9)
    assert float(found[1].h) == pytest.approx(math.tanh(3), abs=1e-7)


def test_slstm_gradients_are_those_of_finite_differences():
    raw, start = (
        drawn(1, 3, 8).requires_grad_(),
        Cell(*(drawn(1, 2, seed=s).abs().add(1).requires_grad_() for s in range(4))),
    )

    def output(raw, *parts):
        return torch.stack([cell.h for cell in cells(raw, Cell(*parts))])

    assert torch.autograd.gradcheck(output, (raw, *start))


def test_heads_feed_back_only_to_themselves():
    mixer = fresh(SLSTM, 8, heads=2)
    x, state = drawn(B, 8), mixer(drawn(B, 5, 8, seed=1))[1]
    other = list(state)
    other[0] = state[0].clone()
    other[0][:, 1] += 1.0
    first, second = mixer.step(x, state)[0], mixer.step(x, tuple(other))[0]
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4:], second[:, 4:])


def test_a_new_row_beside_an_old_one_is_new():
    mixer = fresh(SLSTM, 8, heads=2)
    old = mixer(drawn(1, 5, 8))[1]
    new = mixer.initial_state(1)
    x = drawn(2, 4, 8, seed=1) - 3.0
    beside = mixer(x, tuple(torch.cat(pair) for pair in zip(old, new, strict=True)))[0]
    close(beside[1:], mixer(x[1:])[0])


# What they share


def test_the_convolution_is_torchs_causal_one_and_carries_on():
    conv, u = fresh(CausalConv, 5, width=4), drawn(2, 9, 5)
    y, buffer = conv(u, torch.zeros(2, 3, 5, dtype=DOUBLE))
    want = nn.functional.conv1d(u.transpose(1, 2), conv.taps.T[:, None], conv.bias, padding=3, groups=5)[..., :9]
    close(y, want.transpose(1, 2))
    assert torch.equal(buffer, u[:, -3:])
    one, between = conv(u[:, :2], torch.zeros(2, 3, 5, dtype=DOUBLE))
    close(torch.cat([one, conv(u[:, 2:], between)[0]], 1), y)


def test_a_headwise_map_is_a_block_diagonal_matrix():
    part, x = fresh(Headwise, 6, blocks=3), drawn(4, 6)
    close(part(x), x @ torch.block_diag(*part.weight))


@pytest.mark.parametrize("kind", [MLSTM, SLSTM])
def test_a_block_carries_its_mixers_state(kind):
    block = fresh(lambda: Block(kind(8, heads=2), feed=GatedFeedForward(8, inner=16)))
    x = drawn(2, 9, 8)
    whole, last = block(x)
    first, between = block(x[:, :4])
    second, end = block(x[:, 4:], between)
    close(torch.cat([first, second], 1), whole)
    close(end, last)
    mixed = x + block.mixer(nn.functional.layer_norm(x, (8,), block.norm.weight))[0]
    gate, up = (nn.functional.layer_norm(mixed, (8,), block.feed_norm.weight) @ block.feed.up.weight.T).chunk(2, -1)
    close(whole, mixed + (nn.functional.gelu(gate) * up) @ block.feed.down.weight.T)


@pytest.mark.parametrize("kind", [MLSTM, SLSTM])
def test_the_state_after_ten_and_ten_thousand_moments_is_of_one_size(kind):
    mixer = kind(8, heads=2)
    with torch.no_grad():
        short, long = (mixer(drawn(1, length, 8, dtype=torch.float32))[1] for length in (10, 10_000))
    assert state_bytes(short) == state_bytes(long)
    assert all(part.isfinite().all() for part in long)


def test_the_cards_example_of_bytes():
    mixer = MLSTM(256, heads=4)  # inner 512, heads of 128
    cell = sum(part.numel() * part.element_size() for part in mixer.initial_state(1)[:3])
    assert cell == 4 * (128 * 128 + 128 + 1) * 4 == 264_208


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MLSTM(8, heads=3), "heads=3 does not divide 16 channels"),
        (lambda: MLSTM(8, heads=2, block=5), "block=5 does not divide 16 channels"),
        (lambda: MLSTM(8, heads=2, chunk=0), "chunk=0"),
        (lambda: MLSTM(8, heads=2, conv=0), "conv=0"),
        (lambda: SLSTM(8, heads=3), "heads=3 does not divide 8 channels"),
        (lambda: SLSTM(8, heads=0), "heads=0"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()

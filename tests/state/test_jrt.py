"""Linear attention, its prefix and its loss against quadratic attention in numpy, loops, and torch's cross entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional

from loci.lab.tasks.disjointness import sets
from loci.state.jrt_loss import masked, mixed_loss
from loci.state.jrt_rnn import JRT, quadratic
from loci.state.linear_attention import LinearAttention, Memory, chunkwise, moment
from loci.state.read_twice import read_twice
from loci.state.short_conv import BaseConv
from loci.state.taylor import expanded, similarity, taylor

torch.set_num_threads(1)
OPTIONS = {"heads": 2, "feature": 3, "chunk": 5}


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def fresh(kind, D=8, *, seed=0, dtype=torch.float64, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(D, **(options or OPTIONS)).to(dtype)


def by_hand(mixer, x, M):
    """Prefix linear attention in numpy, pair by pair, from 1 + t + t^2/2 alone."""
    weight = {name: np.asarray(value.detach()) for name, value in mixer.state_dict().items()}
    H, x = mixer.heads, np.asarray(x.detach())
    f, d = mixer.feature, x.shape[-1] // H
    out = np.zeros_like(x)
    for row, seq in enumerate(x):
        heads = {
            name: (seq @ weight[f"{name}.weight"].T).reshape(len(seq), H, -1)
            for name in ("q", "k", "v", "k_e", "v_e")
            if f"{name}.weight" in weight
        }
        for i in range(len(seq)):
            for h in range(H):
                top, bottom = np.zeros(d), 0.0
                reads = [("k", "v", j) for j in range(i + 1)] + [("k_e", "v_e", j) for j in range(M)]
                for key, value, j in reads:
                    t = heads["q"][i, h] @ heads[key][j, h] / math.sqrt(f)
                    near = 1 + t + t * t / 2
                    top, bottom = top + near * heads[value][j, h], bottom + near
                out[row, i, h * d : (h + 1) * d] = top / bottom
    return torch.from_numpy(out @ weight["out.weight"].T)


@pytest.mark.parametrize("f", [1, 3, 16])
def test_features_multiply_to_the_series_of_the_exponential(f):
    q, k = drawn(7, f), drawn(5, f, seed=1)
    t = (q.unsqueeze(1) * k.unsqueeze(0)).sum(-1) / math.sqrt(f)
    due = 1 + t + t**2 / 2
    assert taylor(q).shape == (7, expanded(f))
    for got in (taylor(q) @ taylor(k).T, similarity(q, k)):
        torch.testing.assert_close(got, due, rtol=1e-12, atol=1e-12)
    near = taylor(1e-2 * q) @ taylor(1e-2 * k).T
    torch.testing.assert_close(near, (1e-4 * t).exp(), rtol=1e-9, atol=1e-9)
    assert (due >= 0.5).all()


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_without_a_prefix_it_is_causal_attention_with_a_normaliser(chunk):
    x = drawn(2, 13, 8)
    plain = fresh(LinearAttention, heads=2, feature=3, chunk=chunk)
    torch.testing.assert_close(plain(x)[0], by_hand(plain, x, 0), rtol=1e-10, atol=1e-10)
    prefixed = fresh(JRT, heads=2, feature=3, chunk=chunk)
    torch.testing.assert_close(prefixed(x)[0], by_hand(prefixed, x, 0), rtol=1e-10, atol=1e-10)
    nothing, state = prefixed.prefill(x[:, :0])
    assert nothing.shape == (2, 0, 8)
    torch.testing.assert_close(prefixed(x, state)[0], prefixed(x)[0], rtol=0, atol=0)


@pytest.mark.parametrize("M", [1, 4, 5, 11])
def test_prefill_then_decoding_is_the_parallel_form(M):
    mixer, x = fresh(JRT), drawn(2, 13, 8)
    read, state = mixer.prefill(x[:, :M])
    scanned = mixer(x[:, M:], state)[0]
    said = []
    for t in range(M, 13):
        y, state = mixer.step(x[:, t], state)
        said.append(y)
    due = by_hand(mixer, x, M)
    torch.testing.assert_close(torch.cat([read, scanned], 1), due, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.stack(said, 1), due[:, M:], rtol=1e-10, atol=1e-10)


def test_the_quadratic_form_in_the_library_is_the_equation():
    mixer, x, M = fresh(JRT), drawn(2, 9, 8), 4
    q, k, v = (to(x).unflatten(-1, (2, -1)).transpose(1, 2) for to in (mixer.q, mixer.k, mixer.v))
    k_e, v_e = (to(x[:, :M]).unflatten(-1, (2, -1)).transpose(1, 2) for to in (mixer.k_e, mixer.v_e))
    y = mixer.out(quadratic(q, k, v, k_e, v_e).transpose(1, 2).flatten(2))
    torch.testing.assert_close(y, by_hand(mixer, x, M), rtol=1e-10, atol=1e-10)


def test_the_prefix_sees_all_of_itself_and_the_rest_only_its_past():
    mixer, M, x = fresh(JRT), 6, drawn(1, 12, 8).requires_grad_()
    read, state = mixer.prefill(x[:, :M])
    y = torch.cat([read, mixer(x[:, M:], state)[0]], 1)
    for i in range(12):
        (back,) = torch.autograd.grad(y[0, i].square().sum(), x, retain_graph=True)
        reached = back[0].ne(0).any(-1)
        assert reached[: max(i + 1, M)].all()
        assert not reached[max(i + 1, M) :].any()


def test_equal_projections_count_the_prefix_twice():
    mixer, x, M = fresh(JRT), drawn(2, 10, 8), 6
    with torch.no_grad():
        mixer.k_e.weight.copy_(mixer.k.weight)
        mixer.v_e.weight.copy_(mixer.v.weight)
    twice, state = mixer.prefill(x[:, :M])
    _, (S, z) = mixer(x[:, :M])
    torch.testing.assert_close(state, (2 * S, 2 * z), rtol=1e-12, atol=1e-12)
    doubled = mixer(torch.cat([x[:, :M], x], 1))[0][:, M:]  # causal, over the prefix and then all
    torch.testing.assert_close(mixer(x[:, M:], state)[0], doubled[:, M:], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(twice[:, -1], doubled[:, M - 1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("filling", [0.0, 7.0, math.nan])
def test_padding_is_neither_read_nor_said(filling):
    mixer, x, lengths = fresh(JRT), drawn(4, 11, 8), torch.tensor([11, 7, 1, 0])
    padded = torch.where(torch.arange(11).unsqueeze(1) < lengths.view(-1, 1, 1), x, filling).requires_grad_()
    read, state = mixer.prefill(padded, lengths=lengths)
    for row, M in enumerate(lengths.tolist()):
        alone, kept = mixer.prefill(x[row : row + 1, :M])
        torch.testing.assert_close(read[row : row + 1, :M], alone, rtol=1e-10, atol=1e-10)
        assert not read[row, M:].any()
        for got, due in zip(state, kept, strict=True):
            torch.testing.assert_close(got[row : row + 1], due, rtol=1e-10, atol=1e-10)
    (back,) = torch.autograd.grad(read.sum() + state[0].sum(), padded)
    assert back.isfinite().all()
    assert not back[1, 7:].any()
    parameters = torch.autograd.grad(mixer.prefill(padded, lengths=lengths)[0].sum(), list(mixer.parameters()))
    assert all(grad.isfinite().all() for grad in parameters)


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        (torch.tensor([3, 12]), "12"),
        (torch.tensor([-1, 2]), "-1"),
        (torch.tensor([3]), "one whole number"),
        (torch.tensor([1.0, 2.0]), "float32"),
        (torch.tensor([True, False]), "bool"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, words):
    with pytest.raises(ValueError, match=words):
        fresh(JRT).prefill(drawn(2, 11, 8), lengths=lengths)


def test_a_prefix_of_another_width_is_refused():
    with pytest.raises(ValueError, match="7"):
        fresh(JRT).prefill(drawn(2, 11, 7))


def test_gradient_reaches_every_parameter_through_what_is_decoded():
    mixer, x = fresh(JRT), drawn(2, 12, 8)
    _, state = mixer.prefill(x[:, :6])
    torch.autograd.backward(mixer(x[:, 6:], state)[0].square().sum())
    assert all(param.grad is not None and param.grad.any() for param in mixer.parameters())
    cut = fresh(JRT)
    torch.autograd.backward(cut(x)[0].square().sum())
    assert {name for name, param in cut.named_parameters() if param.grad is None} == {"k_e.weight", "v_e.weight"}


def test_gradients_of_the_chunks_are_those_of_the_equation():
    q, k, k_e = (drawn(1, 2, n, 3, seed=seed).requires_grad_() for seed, n in enumerate((7, 7, 5)))
    v, v_e = drawn(1, 2, 7, 4, seed=3).requires_grad_(), drawn(1, 2, 5, 4, seed=4).requires_grad_()
    start = Memory(taylor(k_e).mT @ v_e, taylor(k_e).sum(-2))
    weight, leaves = drawn(1, 2, 7, 4, seed=9), (q, k, v, k_e, v_e)
    got = torch.autograd.grad((weight * chunkwise(q, k, v, start, chunk=3)[0]).sum(), leaves)
    due = torch.autograd.grad((weight * quadratic(q, k, v, k_e, v_e)).sum(), leaves)
    for one, two in zip(got, due, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_sums_are_float32_under_bfloat16_weights_and_do_not_stall():
    mixer = fresh(LinearAttention, dtype=torch.bfloat16).requires_grad_(requires_grad=False)
    x = drawn(1, 1, 8, dtype=torch.bfloat16).expand(1, 3000, 8)
    y, (S, z) = mixer(x)
    assert (y.dtype, S.dtype, z.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert float(z[0, 0, 0]) == 3000.0  # phi starts with 1; bfloat16 would stop at 256
    step = mixer.step(x[:, 0], (S, z))[1]
    assert float(step[1][0, 0, 0]) == 3001.0
    torch.testing.assert_close(y[0, -1], y[0, 0], rtol=0.02, atol=0.02)  # a mean of equal values is that value


def test_the_recurrence_is_the_chunks():
    q, k, v = drawn(2, 2, 20, 3), drawn(2, 2, 20, 3, seed=1), drawn(2, 2, 20, 4, seed=2)
    memory = start = Memory(torch.zeros(2, 2, 13, 4, dtype=torch.float64), torch.zeros(2, 2, 13, dtype=torch.float64))
    said = []
    for t in range(20):
        y, memory = moment(q[:, :, t], k[:, :, t], v[:, :, t], memory)
        said.append(y)
    for chunk in (1, 7, 64):
        y, last = chunkwise(q, k, v, start, chunk=chunk)
        torch.testing.assert_close(y, torch.stack(said, 2), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(tuple(last), tuple(memory), rtol=1e-10, atol=1e-10)


def test_the_short_convolution_is_torchs_gated():
    mixer, x = fresh(BaseConv, 4, expand=4, width=3), drawn(2, 9, 4)
    u, gate = functional.linear(x, mixer.inward.weight, mixer.inward.bias).split(8, -1)
    kernel = mixer.conv.taps.T.unsqueeze(1)
    filtered = functional.conv1d(functional.pad(u.mT, (2, 0)), kernel, mixer.conv.bias, groups=8).mT
    due = functional.linear(filtered * torch.sigmoid(filtered) * gate, mixer.out.weight, mixer.out.bias)
    torch.testing.assert_close(mixer(x)[0], due, rtol=1e-10, atol=1e-10)


def test_the_loss_is_next_tokens_behind_the_prefix_and_masked_ones_inside():
    logits, M = drawn(2, 9, 6), 5
    targets = torch.full((2, 9), -100)
    targets[0, 1], targets[1, 4], targets[:, M:] = 0, 3, torch.tensor([[1, 2, 0, 5], [4, -100, 0, 1]])
    logs = logits.log_softmax(-1)
    places = [(b, t) for b in range(2) for t in range(9) if targets[b, t] != -100]
    parts = [[-logs[b, t, targets[b, t]] for b, t in places if (t < M) == inside] for inside in (False, True)]
    due = sum(parts[0]) / len(parts[0]) + 0.25 * sum(parts[1]) / len(parts[1])
    torch.testing.assert_close(mixed_loss(logits, targets, prefix=M), due)
    assert len(parts[1]) == 2  # token 0 counts
    only = targets.clone()
    only[:, :M] = -100
    torch.testing.assert_close(mixed_loss(logits, only, prefix=M), sum(parts[0]) / len(parts[0]))
    with pytest.raises(ValueError, match="prefix=10"):
        mixed_loss(logits, targets, prefix=10)
    with pytest.raises(ValueError, match="int64"):
        mixed_loss(logits, targets[:, 1:], prefix=3)


def test_a_share_of_the_prefix_is_masked_and_asked_for():
    tokens = torch.randint(0, 50, (40, 500), generator=torch.Generator().manual_seed(1))
    shown, targets = masked(tokens, mask=77, random=torch.Generator().manual_seed(0))
    hidden = shown == 77
    assert torch.equal(shown[~hidden], tokens[~hidden])
    assert torch.equal(targets[hidden], tokens[hidden])
    assert (targets[~hidden] == -100).all()
    assert 0.14 < float(hidden.float().mean()) < 0.16
    with pytest.raises(ValueError, match="share"):
        masked(tokens, mask=77, random=torch.Generator(), share=2.0)


def test_a_prompt_reads_twice_and_says_what_that_costs():
    assert read_twice("DOC.", " Key:", hint="Information about Key. ", between="\n") == (
        "Information about Key. DOC.\nDOC. Key:", 9, 37,
    )  # fmt: skip
    context = list(range(100))
    prompt, once, twice = read_twice(context, [7, 8])
    assert prompt == [7, 8, *context, *context, 7, 8]
    assert (once, twice) == (102, 204)
    with pytest.raises(TypeError, match="question is a str"):
        read_twice([1], "?")
    with pytest.raises(ValueError, match="hint is empty"):
        read_twice("a", "b", hint="")


@pytest.mark.parametrize("sizes", [(4, 32), (32, 4), (1, 1)])
def test_two_sets_share_one_element(sizes):
    texts, shared = sets(50, sizes, universe=64, random=torch.Generator().manual_seed(0))
    for row, one in zip(texts.tolist(), shared.tolist(), strict=True):
        first, second = row[: sizes[0]], row[sizes[0] :]
        assert len(set(first)) == sizes[0]
        assert len(set(second)) == sizes[1]
        assert set(first) & set(second) == {one}

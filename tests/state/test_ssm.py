"""Selective state spaces, LoRA on them, and the measure of in-context learning: the subjects of the stability meter."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.lab.tasks.divergence import icl_gain, recall_texts
from loci.lab.tasks.lowrank import LowRank, adapt, tying
from loci.lab.tasks.ssm import Mamba, Mamba2, convolved, kernel, parallel, steps

torch.set_num_threads(1)


def fresh(kind, *args, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*args, **options).requires_grad_(requires_grad=False)


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("T", [1, 7, 32])
def test_steps_are_the_parallel_scan_and_under_constant_decay_a_convolution(T):
    decay, fed, h = torch.sigmoid(drawn(2, T, 3, 4)), drawn(2, T, 3, 4, seed=1), drawn(2, 3, 4, seed=2)
    torch.testing.assert_close(parallel(decay, fed, h), steps(decay, fed, h), rtol=1e-5, atol=1e-5)
    same = decay[:1, :1].expand(2, T, 3, 4)
    response = kernel(same[0, 0], T)
    by_convolution = torch.stack([sum(response[t - s] * fed[:, s] for s in range(t + 1)) for t in range(T)], 1)
    torch.testing.assert_close(steps(same, fed, torch.zeros(2, 3, 4)), by_convolution, rtol=1e-5, atol=1e-5)
    by_conv1d = nn.functional.conv1d(nn.functional.pad(fed[..., 0].transpose(1, 2), (T - 1, 0)),
        response[..., 0].T.flip(1).unsqueeze(1), groups=3).transpose(1, 2)  # fmt: skip
    torch.testing.assert_close(by_convolution[..., 0], by_conv1d, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [Mamba, Mamba2])
def test_a_layer_over_a_text_is_its_steps(kind):
    layer = fresh(kind, 8)
    x, state, found = drawn(2, 9, 8), layer.initial_state(2), []
    for t in range(9):
        y, state = layer.step(x[:, t], state)
        found.append(y)
    torch.testing.assert_close(layer(x), torch.stack(found, 1), rtol=1e-5, atol=1e-5)


def test_the_convolution_is_torchs_causal_one():
    u, taps, bias = drawn(2, 7, 5), drawn(5, 4, seed=1), drawn(5, seed=2)
    torchs = nn.functional.conv1d(u.transpose(1, 2), taps[:, None], bias, padding=3, groups=5)[..., :7].transpose(1, 2)
    torch.testing.assert_close(convolved(u, taps, bias), torchs, rtol=1e-5, atol=1e-5)


# LoRA


def test_lora_starts_as_nothing_merges_exactly_and_trains_what_it_says():
    layer, x = fresh(Mamba, 8), drawn(2, 5, 8)
    before = layer(x)
    (lora,) = adapt(layer, ("x_proj",), rank=2, alpha=4.0, seed=0)
    assert torch.equal(layer(x), before)
    trained = sum(param.numel() for param in layer.parameters() if param.requires_grad)
    assert trained == 2 * (layer.E + layer.rank + 2 * layer.N)
    with torch.no_grad():
        lora.L.normal_(generator=torch.Generator().manual_seed(1))
        u = drawn(3, layer.E)
        torch.testing.assert_close(lora.merged()(u), lora(u), rtol=1e-5, atol=1e-6)
        changed = layer(x)
    assert not torch.allclose(changed, before)
    with pytest.raises(ValueError, match=r"rank=99 .* <= 33"):
        LowRank(nn.Linear(64, 33), 99, alpha=1.0, random=torch.Generator())
    with pytest.raises(ValueError, match="no linear map"):
        adapt(layer, ("nowhere",), rank=2, alpha=1.0, seed=0)


def test_one_low_rank_factor_ties_delta_b_and_c():
    layer = fresh(Mamba, 32)
    (lora,) = adapt(layer, ("x_proj",), rank=2, alpha=4.0, seed=0)
    with torch.no_grad():
        lora.L.normal_(generator=torch.Generator().manual_seed(1))
    sizes = (layer.rank, layer.N, layer.N)
    assert tying(lora.change().detach(), sizes) == (2, [2, 2, 2])
    free = drawn(sum(sizes), 6) @ torch.block_diag(*[drawn(2, layer.E // 3, seed=n) for n in range(3)])
    assert tying(free, sizes)[0] == 6


# in-context learning


def test_a_reader_that_looks_up_gains_and_one_that_guesses_does_not():
    def lookup(text):
        logits = torch.zeros(*text.shape, 32)
        for row, codes in enumerate(text.tolist()):
            pairs = dict(zip(codes[0:-1:2], codes[1:-1:2], strict=True))
            logits[row, -1, pairs.get(codes[-1], 16)] = 1.0
        return logits

    by_chance = 1 / 16
    assert icl_gain(lookup, seed=0) == pytest.approx(1 - by_chance, abs=0.03)
    assert icl_gain(lambda text: torch.eye(32)[16].expand(*text.shape, 32), seed=0) == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_a_text_shows_its_key_as_often_as_it_says(k):
    text, answer = recall_texts(k, 20, torch.Generator().manual_seed(0))
    keys, values = text[:, 0:-1:2], text[:, 1::2]
    shown = keys == text[:, -1:]
    assert bool((shown.sum(1) == k).all())
    assert bool(((values == answer[:, None]) | ~shown).all())

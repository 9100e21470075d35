"""LMUFormer and its spiking form against slow forms: convolutions in numpy, neurons by hand, what is certain on the way."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.state.classifier.delayed import DELAY
from loci.state.classifier.lmuformer import Embedding, LMUFormer
from loci.state.classifier.spiking_lmuformer import SpikingEmbedding, SpikingLMUFormer

torch.set_num_threads(1)
MODELS = (LMUFormer, SpikingLMUFormer)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def trained(kind, *args, seed=0, gain=1.0, **options):
    """In double, with running statistics that are not those of the start; at a larger gain, neurons fire more often."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(*args, **options).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.weight.fill_(gain)
        for seed in range(20):
            model(2 * drawn(4, 20, args[0], seed=seed) + 0.5)
    return model.eval().requires_grad_(requires_grad=False)


def conv3(x, weight):
    """Zero-padded, over three frames: (T, C) and (D, C, 3) -> (T, D)."""
    weight, padded = weight.numpy(), np.pad(x, ((1, 1), (0, 0)))
    return np.stack([sum(weight[:, :, k] @ padded[t + k] for k in range(3)) for t in range(len(x))])


def normalised(x, norm):
    """By running statistics: (T, D) -> (T, D)."""
    mean, var, weight, bias = (part.numpy() for part in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / np.sqrt(var + norm.eps) * weight + bias


def fired(x, *, threshold=1.0):
    """A neuron for each column, tau = 2: (T, D) -> zeros and ones (T, D)."""
    spikes, potential = np.zeros_like(x), np.zeros(x.shape[1])
    for t, current in enumerate(x):
        potential = potential + (current - potential) / 2
        spikes[t] = potential >= threshold
        potential = np.where(spikes[t] > 0, 0.0, potential)
    return spikes


def test_the_embedding_is_four_convolutions_and_a_fifth_that_is_added():
    embedding, x = trained(Embedding, 3, 5), drawn(1, 12, 3)
    e = x[0].numpy()
    for conv, norm in zip(embedding.convs, embedding.norms, strict=False):
        e = normalised(np.maximum(conv3(e, conv.weight), 0), norm)
    due = e + conv3(e, embedding.convs[-1].weight)
    np.testing.assert_allclose(embedding(x)[0], due, rtol=1e-10, atol=1e-10)


def test_the_spiking_embedding_fires_before_all_but_the_first_and_adds_currents():
    embedding, x = trained(SpikingEmbedding, 3, 5, gain=3.0), 2 * drawn(1, 30, 3)
    e = conv3(x[0].numpy(), embedding.convs[0].weight)
    for k in range(3):
        e = conv3(fired(normalised(e, embedding.fires[k].norm)), embedding.convs[k + 1].weight)
    spikes = fired(normalised(e, embedding.fires[3].norm))
    assert set(spikes.ravel().tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(embedding(x)[0], e + conv3(spikes, embedding.convs[4].weight), rtol=1e-10, atol=1e-10)


def test_the_spiking_head_is_given_what_neurons_make_of_the_last_block():
    model, x = trained(SpikingLMUFormer, 3, 5, classes=4, theta=10.0, depth=2, gain=3.0), 2 * drawn(1, 30, 3)
    e = model.embedding(x)
    for block in model.blocks:
        e = block(e)[0]
    spikes = fired(normalised(e[0].numpy(), model.fire.norm))
    logits = [model.head.weight.numpy() @ moment + model.head.bias.numpy() for moment in spikes]
    np.testing.assert_allclose(model(x)[0], np.mean(logits, 0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [Embedding, SpikingEmbedding])
def test_a_stream_gives_the_parallel_embedding_five_frames_later(kind):
    embedding, x = trained(kind, 3, 5, gain=3.0), 2 * drawn(2, 30, 3)
    whole, state, never = embedding(x), embedding.initial_state(2), torch.full((2,), 10**9)
    for t in range(30):
        out, state = embedding.step(x[:, t], state, place=torch.full((2,), t), end=never)
        if t >= DELAY:
            torch.testing.assert_close(out, whole[:, t - DELAY], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", MODELS)
def test_what_is_said_on_the_way_is_what_any_future_leaves_as_it_is(kind, depth):
    model = trained(kind, 3, 6, classes=4, N=7, theta=10.0, depth=depth, gain=2.0)
    x, other, state = 2 * drawn(2, 16, 3), 2 * drawn(2, 9, 3, seed=5), model.initial_state(2)
    for t in range(16):
        logits, state = model.step(x[:, t], state)
        if t >= DELAY:
            future = torch.cat([x[:, : t + 1], other], 1)
            sure = model.head(model.features(future)[:, : t + 1 - DELAY]).mean(1)
            torch.testing.assert_close(logits, sure, rtol=1e-9, atol=1e-9)


def test_every_matrix_but_the_first_is_given_zeros_and_ones_at_once_and_in_a_stream():
    model, given = trained(SpikingLMUFormer, 3, 6, classes=4, theta=10.0, depth=2, gain=3.0), {}

    def note(name):
        def hook(_, args):
            given.setdefault(name, set()).update(args[0].unique().tolist())

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d):
            module.register_forward_pre_hook(note(name))
    x = 2 * drawn(3, 60, 3)
    model(x)
    at_once, given = given, {}
    assert len(at_once.pop("embedding.convs.0")) > 2
    assert len(at_once) == 4 + 2 * 5 + 1
    assert all(values == {0.0, 1.0} for values in at_once.values()), at_once
    state = model.initial_state(3)
    for frame in x.unbind(1):
        state = model.step(frame, state)[1]
    model.finish(state)
    assert len(given) == 2 * 5 + 1  # the embedding's neurons are kept as bits: state[2:6]
    assert all(values == {0.0, 1.0} for values in given.values()), given
    assert [part.dtype for part in state[2:6]] == [torch.bool] * 4


@pytest.mark.parametrize("kind", MODELS)
def test_no_counts_below_one(kind):
    with pytest.raises(ValueError, match="classes=0"):
        kind(3, classes=0)
    with pytest.raises(ValueError, match="theta=0"):
        kind(3, 4, classes=2, theta=0)

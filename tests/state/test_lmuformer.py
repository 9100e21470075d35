"""LMUFormer in a stream against all frames at once, and its convolutions against numpy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from loci.state.lmuformer import DELAY, Embedding, LMUFormer
from loci.state.mixer import state_bytes

torch.set_num_threads(1)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def trained(kind, *args, seed=0, **options):
    """In double, with running statistics that are not those of the start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(*args, **options).double()
    with torch.no_grad():
        for seed in range(3):
            model(drawn(4, 20, args[0], seed=seed) + 0.5)
    return model.eval().requires_grad_(requires_grad=False)


def conv3(x, weight):
    """Zero-padded, over three frames: (T, C) and (D, C, 3) -> (T, D)."""
    padded = np.pad(x, ((1, 1), (0, 0)))
    return np.stack([sum(weight[:, :, k] @ padded[t + k] for k in range(3)) for t in range(len(x))])


def test_the_embedding_is_four_convolutions_and_a_fifth_that_is_added():
    embedding, x = trained(Embedding, 3, 5), drawn(1, 12, 3)
    e = x[0].numpy()
    for conv, norm in zip(embedding.convs, embedding.norms, strict=False):
        mean, var, weight, bias = (
            part.numpy() for part in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        e = (np.maximum(conv3(e, conv.weight.numpy()), 0) - mean) / np.sqrt(var + norm.eps) * weight + bias
    due = e + conv3(e, embedding.convs[-1].weight.numpy())
    np.testing.assert_allclose(embedding(x)[0], due, rtol=1e-10, atol=1e-10)


def test_a_stream_gives_the_parallel_embedding_five_frames_later():
    embedding, x = trained(Embedding, 3, 5), drawn(2, 30, 3)
    whole, state, never = embedding(x), embedding.initial_state(2), torch.full((2,), 10**9)
    for t in range(30):
        out, state = embedding.step(x[:, t], state, place=torch.full((2,), t), end=never)
        if t >= DELAY:
            torch.testing.assert_close(out, whole[:, t - DELAY], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("T", [1, 2, 5, 6, 40])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_stream_ends_with_the_logits_of_the_whole(T, depth):
    model, x = trained(LMUFormer, 3, 6, classes=4, N=7, theta=10.0, depth=depth), drawn(2, T, 3)
    state = model.initial_state(2)
    for t in range(T):
        logits, state = model.step(x[:, t], state)
        if t >= DELAY:  # what is certain so far is what any future leaves as it is
            sure = model.features(x[:, : t + 1])[:, : t + 1 - DELAY].mean(1)
            torch.testing.assert_close(logits, model.head(sure), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.finish(state), model(x), rtol=1e-9, atol=1e-9)


def test_a_stream_goes_on_after_it_was_asked_for_its_end():
    model, x = trained(LMUFormer, 3, 6, classes=4, theta=10.0), drawn(2, 20, 3)
    state = model.initial_state(2)
    for t in range(20):
        model.finish(state)
        _, state = model.step(x[:, t], state)
    torch.testing.assert_close(model.finish(state), model(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("T", [0, 1, 50])
def test_a_stream_keeps_the_bytes_it_says(T):
    C, D, N, depth, B = 3, 6, 7, 2, 2
    model, state = trained(LMUFormer, C, D, classes=4, N=N, theta=10.0, depth=depth), None
    state = model.initial_state(B)
    for t in range(T):
        _, state = model.step(drawn(B, C, seed=t), state)
    assert state_bytes(state) == 8 * B * (2 * (C + 4 * D) + depth * N + D) + 8 * B
    assert sum(part.untyped_storage().nbytes() for part in state) == state_bytes(state)


def test_every_parameter_is_trained_that_a_normalisation_does_not_cancel():
    model = LMUFormer(3, 6, classes=4, theta=10.0).double()
    model(drawn(4, 12, 3)).square().sum().backward()
    cancelled = {f"blocks.0.{name}.bias" for name in ("out", "wide", "narrow")}
    reached = {name for name, param in model.named_parameters() if param.grad.abs().max() > 1e-9}
    assert reached == {name for name, _ in model.named_parameters()} - cancelled


def test_a_stream_without_running_statistics_is_refused():
    model = LMUFormer(3, 6, classes=4)
    with pytest.raises(ValueError, match="eval"):
        model.step(torch.zeros(2, 3), model.initial_state(2))
    with pytest.raises(ValueError, match="eval"):
        model.finish(model.initial_state(2))
    with pytest.raises(ValueError, match=r"\(B, T, 3\)"):
        model(torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match="classes=0"):
        LMUFormer(3, classes=0)

"""Soft injection: what the general laws cannot reach."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import refused
from loci.state.context.open_transformer import OpenTransformer
from loci.state.context.soft_injection import (
    SoftInjection,
    asked_loss,
    gathered,
    last_logits,
    prompt_lengths,
    task_embedding,
    tuned,
)

torch.set_num_threads(1)
V = 13


def a_model(dtype=torch.float64, *, depth=2, seed=0):
    torch.manual_seed(seed)
    return OpenTransformer(V, D=16, heads=4, key_heads=2, depth=depth).to(dtype)


def some_tokens(*shape, seed=1):
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed))


def whole(tokens):
    return torch.full((len(tokens),), tokens.shape[1])


def a_task(model):
    """An injection with numbers of its own."""
    t = torch.randn(model.L, model.H, model.d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    injection = SoftInjection.of(model, t)
    with torch.no_grad():
        injection.a.copy_(torch.randn(injection.a.shape, generator=torch.Generator().manual_seed(4)))
    return injection


def test_alpha_zero_is_the_model_without_examples_bit_for_bit() -> None:
    model, tokens = a_model(), some_tokens(3, 6)
    silent = SoftInjection.of(model, torch.randn(2, 4, 4).double(), alpha=0.0)
    assert float(silent.alpha.detach().abs().max()) == 0
    assert torch.equal(silent(model, tokens), model(tokens))


def test_alpha_one_with_what_the_same_prompt_said_is_a_fixed_point() -> None:
    model, tokens = a_model(), some_tokens(1, 6)
    t = task_embedding(model, [(tokens, whole(tokens))])
    for alpha in (1.0, 0.3):
        injection = SoftInjection.of(model, t, alpha=alpha)
        assert torch.allclose(injection(model, tokens), model(tokens), atol=1e-12)


def test_in_one_layer_alpha_one_is_reading_the_examples() -> None:
    model, examples, query = a_model(depth=1), some_tokens(1, 8), some_tokens(1, 3, seed=2)
    shown = torch.cat([examples, query], 1)
    injection = SoftInjection.of(model, task_embedding(model, [(shown, whole(shown))]), alpha=1.0)
    assert torch.allclose(injection(model, query)[:, -1], model(shown)[:, -1], atol=1e-12)
    assert not torch.allclose(model(query)[:, -1], model(shown)[:, -1], atol=1e-2)


def test_in_more_layers_alpha_one_makes_every_layers_heads_those_of_the_examples() -> None:
    model, query, seen = a_model(depth=3), some_tokens(1, 3, seed=2), []
    shown = torch.cat([some_tokens(1, 8), query], 1)
    said = gathered(model, shown, whole(shown))[0]
    inject = SoftInjection.of(model, said, alpha=1.0).edit(whole(query))
    model(query, edit=lambda layer, heads: seen.append(inject(layer, heads)[0, -1]) or inject(layer, heads))
    assert torch.allclose(torch.stack(seen), said, atol=1e-12)


def test_the_mix_is_the_equation_layer_after_layer() -> None:
    model, tokens = a_model(), some_tokens(1, 5)
    injection = a_task(model)
    alpha, t, clean, mixed = injection.alpha.detach(), injection.t, [], []

    def by_hand(layer, heads):
        heads = heads.clone()
        clean.append(heads.clone())
        for head in range(4):
            heads[0, -1, head] = (1 - alpha[layer, head]) * heads[0, -1, head] + alpha[layer, head] * t[layer, head]
        mixed.append(heads)
        return heads

    due = model(tokens, edit=by_hand)
    assert torch.allclose(injection(model, tokens), due, atol=1e-12)
    untouched = []
    model(tokens, edit=lambda layer, heads: untouched.append(heads) or heads)
    assert torch.equal(clean[0], untouched[0])
    assert not torch.allclose(clean[1][0, -1], untouched[1][0, -1])  # the deeper layer stands on what was injected
    assert torch.equal(clean[1][0, :-1], untouched[1][0, :-1])  # and other tokens do not


def test_only_the_prompts_last_token_is_touched_and_what_follows_reads_it() -> None:
    model, tokens, injection = a_model(), some_tokens(2, 7), None
    injection = a_task(model)
    said = injection(model, tokens, lengths=torch.tensor([4, 7]))
    assert torch.equal(said[0, :3], model(tokens)[0, :3])
    assert not torch.allclose(said[0, 3], model(tokens)[0, 3], atol=1e-3)
    assert not torch.allclose(said[0, 4:], model(tokens)[0, 4:], atol=1e-3)  # through the second layer's keys
    # a continuation read token by token from a cache, into which nothing is injected, is the same
    prompt, cache = tokens[:1, :4], []
    mix = injection.edit(torch.tensor([4]))
    cache = model.read(prompt, None, mix)[1]
    after = model(tokens[:1, 4:], prefix=cache)
    assert torch.allclose(after[0], said[0, 4:], atol=1e-10)


def test_the_gradient_is_the_slope_in_every_number() -> None:
    model, tokens = a_model(), some_tokens(3, 5)
    injection, asked = a_task(model), (tokens, torch.tensor([5, 2, 1]), torch.tensor([1, 2, 3]))
    torch.autograd.backward(asked_loss(injection, model, asked))
    for place in range(8):
        ends = []
        for step in (1e-5, -1e-5):
            injection.a.data.view(-1)[place] += step
            ends.append(float(asked_loss(injection, model, asked).detach()))
            injection.a.data.view(-1)[place] -= step
        assert abs((ends[0] - ends[1]) / 2e-5 - float(injection.a.grad.view(-1)[place])) < 1e-8
    assert all(param.grad is None for param in model.parameters())
    assert not injection.t.requires_grad


def test_the_running_mean_is_the_mean_and_lengths_come_from_the_mask() -> None:
    model, tokens = a_model(), some_tokens(10, 6)
    mask = torch.arange(6) < torch.tensor([6, 1, 3, 4, 5, 6, 2, 2, 6, 1]).unsqueeze(1)
    lengths = prompt_lengths(mask)
    alone = torch.cat(
        [gathered(model, tokens[row : row + 1, :n], torch.tensor([n])) for row, n in enumerate(lengths.tolist())]
    )
    pieces = [(tokens[start:end], lengths[start:end]) for start, end in ((0, 1), (1, 6), (6, 10))]
    assert torch.allclose(task_embedding(model, pieces), alone.mean(0), atol=1e-12)
    refused(lambda: prompt_lengths(mask.flip(1)), "right")
    refused(lambda: prompt_lengths(torch.tensor([[1, 0, 1]])), "gaps")
    refused(lambda: task_embedding(model, []), "no prompts")


def test_the_running_mean_of_many_keeps_its_digits_in_single_precision() -> None:
    model = a_model(torch.float32)
    prompts = some_tokens(400, 4)
    every = gathered(model, prompts, whole(prompts)).double().mean(0)
    got = task_embedding(model, [(row.unsqueeze(0), torch.tensor([4])) for row in prompts])
    assert got.dtype == torch.float32
    assert float((got.double() - every).abs().max()) < 1e-6


def test_padding_on_the_right_changes_nothing() -> None:
    model, tokens = a_model(), some_tokens(2, 4)
    injection = a_task(model)
    padded = torch.cat([tokens, some_tokens(2, 3, seed=9)], 1)
    got = last_logits(injection, model, padded, torch.tensor([4, 4]))
    assert torch.allclose(got, injection(model, tokens)[:, -1], atol=1e-10)


def test_the_best_that_was_validated_is_kept_and_not_the_last() -> None:
    model, tokens = a_model(), some_tokens(4, 3)
    train = (tokens, whole(tokens), torch.tensor([1, 2, 3, 4]))
    against = (tokens, whole(tokens), model(tokens)[:, -1].argmin(-1))  # asks for what training does not
    injection = a_task(model)
    losses = tuned(
        injection, model, train, validation=against, random=torch.Generator().manual_seed(0), steps=40, every=5, batch=4
    )
    assert len(losses) == 8
    assert losses[-1] > min(losses), "the last is the best here, so this shows nothing; choose other tokens"
    assert abs(float(asked_loss(injection, model, against).detach()) - min(losses)) < 1e-12


def test_tuning_lowers_the_loss_and_trains_a_alone_from_a_half_on() -> None:
    model, tokens = a_model(), some_tokens(6, 3)
    saved = {name: part.clone() for name, part in model.state_dict().items()}
    t = task_embedding(model, [(some_tokens(9, 8, seed=5), torch.full((9,), 8))])
    injection = SoftInjection.of(model, t)
    assert torch.equal(injection.alpha.detach(), torch.full((2, 4), 0.5).double())
    asked = (tokens, whole(tokens), some_tokens(6, seed=8))
    before = float(asked_loss(injection, model, asked).detach())
    tuned(injection, model, asked, validation=asked, random=torch.Generator().manual_seed(0), steps=60, every=10)
    assert float(asked_loss(injection, model, asked).detach()) < before - 0.01
    assert torch.equal(injection.t, t)
    assert all(torch.equal(part, saved[name]) for name, part in model.state_dict().items())


def test_bytes_are_those_the_paper_counts() -> None:
    injection = SoftInjection(32, 32, d=128).bfloat16()
    assert (injection.t.numel(), injection.a.numel()) == (131_072, 1024)
    refused(lambda: SoftInjection.of(a_model(), torch.zeros(2, 3, 4)), "(2, 3, 4)", "(2, 4, 4)")
    refused(lambda: SoftInjection.of(a_model(), torch.zeros(2, 4, 4), alpha=1.5), "alpha=1.5")

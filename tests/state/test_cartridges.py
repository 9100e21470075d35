"""Cartridges, and the open transformer they are read by: what the general laws cannot reach."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional

from loci.core.checking import refused
from loci.state.context.cartridge import Cartridge
from loci.state.context.open_transformer import OpenTransformer, heads_by_loops
from loci.state.context.self_study import (
    KINDS,
    Answer,
    Example,
    Teacher,
    corpus_loss,
    distillation_loss,
    example_loss,
    mean_divergence,
    self_study,
    spans,
    studied,
    teacher_entropy,
)

torch.set_num_threads(1)
V = 13


def a_model(dtype=torch.float64, *, heads=4, key_heads=2, depth=2, seed=0):
    torch.manual_seed(seed)
    return OpenTransformer(V, D=16, heads=heads, key_heads=key_heads, depth=depth).to(dtype)


def some_tokens(*shape, seed=1):
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed))


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_the_heads_are_those_of_the_loops_over_turned_keys(key_heads) -> None:
    model, tokens, seen = a_model(key_heads=key_heads, depth=1), some_tokens(2, 5), []
    prefix = model.keys_values(some_tokens(2, 3, seed=2))
    model(tokens, prefix=prefix, edit=lambda layer, heads: seen.append(heads) or heads)
    layer, h = model.layers[0], model.embedding(tokens)
    x = h / (h.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    # places as complex numbers: a pair of numbers times e^(i place rate)
    rate = 10000.0 ** -(torch.arange(0, 4, 2, dtype=torch.float64) / 4)
    turn = torch.polar(torch.ones(5, 2, dtype=torch.float64), torch.arange(3, 8).double().unsqueeze(1) * rate)

    def projected(weight, *, turning):
        rows = (x @ weight.T).unflatten(-1, (-1, 4)).transpose(1, 2)
        as_pairs = torch.view_as_complex(rows.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(as_pairs * turn).flatten(-2) if turning else rows

    q, k = projected(layer.q.weight, turning=True), projected(layer.k.weight, turning=True)
    v = projected(layer.v.weight, turning=False)
    keys, values = torch.cat([prefix[0][0], k], 2), torch.cat([prefix[0][1], v], 2)
    assert torch.allclose(
        seen[0].transpose(1, 2), heads_by_loops(q.detach(), keys.detach(), values.detach()), atol=1e-10
    )


def test_the_whole_model_is_the_written_one() -> None:
    model, tokens = a_model(key_heads=4), some_tokens(2, 6)
    got = model(tokens)
    h = model.embedding.weight[tokens]

    def norm(x, weight):
        return functional.rms_norm(x, (16,), weight, 1e-6)

    for layer in model.layers:
        x = norm(h, layer.before.weight)
        rate = 10000.0 ** -(torch.arange(0, 4, 2, dtype=torch.float64) / 4)
        turn = torch.polar(torch.ones(6, 2, dtype=torch.float64), torch.arange(6).double().unsqueeze(1) * rate)

        def projected(weight, x=x, turn=turn):
            rows = (x @ weight.T).unflatten(-1, (-1, 4)).transpose(1, 2)
            return rows, torch.view_as_real(
                torch.view_as_complex(rows.unflatten(-1, (-1, 2)).contiguous()) * turn
            ).flatten(-2)

        q, k, v = projected(layer.q.weight)[1], projected(layer.k.weight)[1], projected(layer.v.weight)[0]
        heads = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        h = h + heads @ layer.out.weight.T
        n = norm(h, layer.between.weight)
        h = h + (functional.silu(n @ layer.gate.weight.T) * (n @ layer.up.weight.T)) @ layer.down.weight.T
    assert torch.allclose(got, norm(h, model.norm.weight) @ model.head.weight.T, atol=1e-10)


def test_the_model_refuses_what_does_not_fit() -> None:
    model = a_model()
    prefix = model.keys_values(some_tokens(2, 3))
    refused(lambda: model(some_tokens(3, 4), prefix=prefix), "2 rows", "3")
    refused(lambda: model(some_tokens(2, 4), prefix=prefix[:1]), "1 layers")
    refused(lambda: model(some_tokens(2, 4), prefix=[(k[..., :2], v[..., :2]) for k, v in prefix]), "(B, 2, p, 4)")
    refused(lambda: model(some_tokens(4)), "(4,)")
    refused(lambda: OpenTransformer(V, D=16, heads=3), "heads=3")


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_a_cartridge_of_the_whole_corpus_is_reading_it(dtype, within) -> None:
    model, corpus, question = a_model(dtype), some_tokens(9), some_tokens(3, 4, seed=2)
    whole = model(torch.cat([corpus.expand(3, -1), question], 1))[:, 9:]
    for frozen in (0, 1, 9):
        got = Cartridge.of(model, corpus, p=9, frozen=frozen)(model, question)
        assert torch.allclose(got, whole, atol=within)
    assert not torch.allclose(Cartridge.of(model, corpus, p=8)(model, question), whole, atol=1e-2)


def test_it_starts_as_the_first_tokens_of_the_corpus() -> None:
    model, corpus, question = a_model(), some_tokens(9), some_tokens(1, 4, seed=2)
    due = model(torch.cat([corpus[:3].unsqueeze(0), question], 1))[:, 3:]
    assert torch.allclose(Cartridge.of(model, corpus, p=3)(model, question), due, atol=1e-10)


def test_the_gradient_is_the_slope_in_every_number_and_the_sink_has_none() -> None:
    model, corpus = a_model(), some_tokens(9)
    cartridge = Cartridge.of(model, corpus, p=3)
    examples = self_study(
        corpus,
        asks=lambda span, turn, draw: span[:2],
        answers=Teacher(model, 2, 5),
        count=3,
        sizes=(4, 9),
        random=random(),
    )
    before = cartridge.sink.clone()
    torch.autograd.backward(example_loss(cartridge, model, examples))
    flat, grad = cartridge.Z.data.view(-1), cartridge.Z.grad.view(-1)
    for place in range(0, len(flat), 5):
        ends = []
        for step in (1e-5, -1e-5):
            flat[place] += step
            ends.append(float(example_loss(cartridge, model, examples).detach()))
            flat[place] -= step
        assert abs((ends[0] - ends[1]) / 2e-5 - float(grad[place])) < 1e-7
    assert all(param.grad is None for param in model.parameters())
    assert cartridge.sink.grad is None
    studied(cartridge, model, examples, steps=3, random=random(), batch=2)
    assert torch.equal(cartridge.sink, before)


def test_composition_is_exact_when_the_second_has_read_the_first_and_else_is_not() -> None:
    model, first, second, question = a_model(), some_tokens(6), some_tokens(5, seed=2), some_tokens(2, 3, seed=3)
    whole = model(torch.cat([first.expand(2, -1), second.expand(2, -1), question], 1))[:, 11:]
    one = Cartridge.of(model, first, p=6)
    behind = Cartridge.holding(model.keys_values(second.unsqueeze(0), prefix=one.prefix()))
    assert torch.allclose(Cartridge.composed([one, behind])(model, question), whole, atol=1e-10)
    alone = Cartridge.of(model, second, p=5)
    both = Cartridge.composed([one, alone])
    assert float((both(model, question) - whole).detach().abs().max()) > 1e-3
    assert (both.p, both.sink.shape[3]) == (11, 2)
    swapped = Cartridge.composed([alone, one])(model, question)
    assert torch.allclose(both(model, question), swapped, atol=1e-10)  # the order along p changes nothing
    refused(lambda: Cartridge.composed([one, Cartridge.of(a_model(torch.float32), second, p=2)]), "float32")


def test_with_the_whole_vocabulary_the_loss_is_kl_and_the_teachers_entropy() -> None:
    logits, teacher = torch.randn(2, 7, V, generator=random(), dtype=torch.float64)
    logp = teacher.log_softmax(-1)
    ids = torch.arange(V).expand(7, -1)
    kl = functional.kl_div(logits.log_softmax(-1), logp, log_target=True, reduction="batchmean")
    assert abs(float(distillation_loss(logits, ids, logp) - teacher_entropy(logp) - kl)) < 1e-10
    assert abs(float(distillation_loss(teacher, ids, logp) - teacher_entropy(logp))) < 1e-10
    order = logp.argsort(-1, descending=True)
    top = distillation_loss(logits, order[:, :3], logp.gather(-1, order[:, :3]))  # not scaled to sum to 1
    by_hand = sum(
        -float(logp[row, v].exp() * logits[row].log_softmax(-1)[v]) for row in range(7) for v in order[row, :3].tolist()
    )
    assert abs(float(top) - by_hand / 7) < 1e-10


def test_a_cartridge_of_the_whole_span_has_nothing_to_learn() -> None:
    model, corpus = a_model(), some_tokens(8)
    whole, part = Cartridge.of(model, corpus, p=8), Cartridge.of(model, corpus, p=2)
    assert abs(float(mean_divergence(model, whole, corpus, some_tokens(5, seed=2)).detach())) < 1e-10
    assert float(mean_divergence(model, part, corpus, some_tokens(5, seed=2)).detach()) > 1e-3
    teacher = Teacher(model, 2, V)

    def asks(span, turn, draw):
        return some_tokens(2, seed=4)

    examples = self_study(corpus, asks=asks, answers=teacher, count=2, sizes=(8, 8), random=random())
    example = examples[0]
    loss = float(example_loss(whole, model, examples).detach())
    assert abs(loss - float(teacher_entropy(example.logp))) < 1e-6  # log-probabilities are kept in float32


def test_the_teacher_says_what_greedy_reading_says_and_how_likely_it_was() -> None:
    model, span, message = a_model(), some_tokens(5), some_tokens(2, seed=2)
    answer = Teacher(model, count=3, k=4)(span, message)
    read = torch.cat([span, message, answer.tokens])
    logp = model(read.unsqueeze(0))[0, 6:9].log_softmax(-1)
    assert torch.equal(logp.argmax(-1), answer.tokens)
    assert torch.allclose(logp.topk(4).values, answer.logp.double(), atol=1e-5)
    assert torch.equal(logp.topk(4).indices, answer.ids)


def test_self_study_draws_spans_kinds_and_wishes_and_leaves_the_span_out() -> None:
    corpus, seen = torch.arange(1000), []

    def asks(span, turn, draw):
        seen.append((span, turn))
        return span[:1]

    def answers(span, message):
        return Answer(torch.tensor([5]), torch.tensor([[5, 6]]), torch.tensor([[-0.1, -3.0]]))

    line = torch.tensor([-7, -8])
    kwargs = {"asks": asks, "answers": answers, "count": 2000, "sizes": (20, 60)}
    examples = self_study(corpus, **kwargs, random=random(3), description=line)
    assert all(torch.equal(span[:2], line) and bool((span[2:].diff() == 1).all()) for span, _ in seen)
    lengths = [len(span) - 2 for span, _ in seen]
    assert (min(lengths), max(lengths)) == (20, 60)
    assert abs(sum(lengths) / 2000 - 40) < 4 * 11.8 / 2000**0.5  # four standard errors of a uniform mean
    counts = [sum(turn.kind == kind for _, turn in seen) for kind in KINDS]
    assert max(abs(count - 400) for count in counts) < 4 * (2000 * 0.2 * 0.8) ** 0.5
    assert abs(sum(turn.thinking for _, turn in seen) - 400) < 4 * (2000 * 0.2 * 0.8) ** 0.5
    assert all(len(example.tokens) == 2 for example in examples)  # message and answer alone
    again = self_study(corpus, **kwargs, random=random(3), description=line)
    assert all(torch.equal(one.tokens, two.tokens) for one, two in zip(examples, again, strict=True))
    refused(lambda: spans(corpus, low=5, high=3, random=random()), "low=5", "high=3")


def test_rows_of_any_length_are_scored_at_their_answers_only() -> None:
    model, cartridge = a_model(), Cartridge.of(a_model(), some_tokens(6), p=3)
    examples = [
        Example(some_tokens(length, seed=length), some_tokens(count, 4, seed=count), torch.randn(count, 4).double() - 2)
        for length, count in ((7, 2), (3, 1), (5, 4))
    ]
    total, places = 0.0, 0
    for example in examples:  # one by one, and place by place
        logp = cartridge(model, example.tokens.unsqueeze(0))[0].detach().log_softmax(-1)
        n = len(example.ids)
        for place in range(n):
            at = len(example.tokens) - n + place - 1
            total -= float((example.logp[place].exp() * logp[at, example.ids[place]]).sum())
        places += n
    assert abs(float(example_loss(cartridge, model, examples).detach()) - total / places) < 1e-10


def test_studying_lowers_the_loss_and_leaves_the_model_bitwise() -> None:
    model, corpus = a_model(torch.float32), some_tokens(12)
    saved = {name: part.clone() for name, part in model.state_dict().items()}
    cartridge = Cartridge.of(model, corpus, p=3)
    asks = lambda span, turn, draw: span[torch.randint(len(span), (2,), generator=draw)]  # noqa: E731
    examples = self_study(corpus, asks=asks, answers=Teacher(model, 2), count=16, sizes=(12, 12), random=random())
    losses = studied(cartridge, model, examples, steps=60, random=random(), batch=16)
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])  # most of it is the teacher's entropy
    assert all(torch.equal(part, saved[name]) for name, part in model.state_dict().items())
    refused(lambda: studied(cartridge, model, [], steps=1, random=random()), "0 examples")


def test_the_loss_of_the_wording_is_the_models_own_behind_the_cartridge() -> None:
    model, corpus = a_model(), some_tokens(7)
    empty = Cartridge.of(model, corpus, p=1).neutral()
    due = functional.cross_entropy(model(corpus.unsqueeze(0))[0, :-1], corpus[1:])
    assert abs(float((corpus_loss(empty, model, corpus) - due).detach())) < 1e-12


def test_bytes_are_those_the_paper_counts() -> None:
    cartridge = Cartridge(28, 8, d=128, p=4).bfloat16()
    held = sum(part.numel() * part.element_size() for part in (cartridge.Z, cartridge.sink))
    assert held == 4 * 114_688  # Llama-3.2-3B: 114,688 bytes a token


def test_making_one_leaves_the_global_generator_alone_and_refuses_what_does_not_fit() -> None:
    model, corpus = a_model(), some_tokens(5)
    before = torch.get_rng_state()
    Cartridge.of(model, corpus, p=2)
    assert torch.equal(torch.get_rng_state(), before)
    refused(lambda: Cartridge.of(model, corpus, p=6), "p=6")
    refused(lambda: Cartridge(2, 2, d=4, p=2, frozen=3), "frozen=3")
    refused(lambda: Cartridge.holding(model.keys_values(some_tokens(2, 3))), "[2] rows")

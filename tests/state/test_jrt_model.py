"""JRT-RNN as a whole model against dense masks in float64, written from the state dict and the equations alone."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import cross_entropy, silu

from loci.lab.tasks.prompts import texts
from loci.state.attention import Attention
from loci.state.decoder.jrt import JRTRNN, scan_to_lengths
from loci.state.mixer import choose
from loci.state.short_conv import BaseConv

torch.set_num_threads(1)
DOUBLE = torch.float64
V, D, HEADS, WINDOW = 11, 8, 2, 3
OPTIONS = {"D": D, "depth": 6, "heads": HEADS, "feature": 3, "window": WINDOW, "chunk": 4}
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def fresh(*, seed=0, dtype=DOUBLE, **options):
    """Weights well off their initial values, so that every layer says something."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = JRTRNN(V, **(OPTIONS | options))
        for param in model.parameters():
            param.add_(torch.randn(param.shape) * 0.2)
    return model.to(dtype)


def text(*shape, seed=1):
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed))


def normed(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * weight


def heads(x):
    return x.unflatten(-1, (HEADS, -1)).transpose(-2, -3)  # (..., H, N, K)


def conv_by_hand(part, x, M):
    u, gate = (x @ part["inward.weight"].T + part["inward.bias"]).chunk(2, -1)
    out = torch.zeros_like(u) + part["conv.bias"]
    for back, tap in enumerate(part["conv.taps"].flip(0)):
        for t in range(back, u.shape[1]):
            out[:, t] += tap * u[:, t - back]
    return silu(out) * gate @ part["out.weight"].T + part["out.bias"]


def pla_by_hand(part, x, M):
    q, k, v, k_e, v_e = (heads(x @ part[f"{name}.weight"].T) for name in ("q", "k", "v", "k_e", "v_e"))
    place = torch.arange(x.shape[1])
    found, total = 0.0, 0.0
    for keys, values, seen in (
        (k, v, place <= place.unsqueeze(1)),
        (k_e, v_e, (place < M).expand(len(place), -1)),
    ):
        t = q @ keys.mT / math.sqrt(q.shape[-1])
        near = (1 + t + t**2 / 2) * seen
        found, total = found + near @ values, total + near.sum(-1, keepdim=True)
    return (found / total).transpose(-2, -3).flatten(-2) @ part["out.weight"].T


def attention_by_hand(part, x, M):
    q, k, v = map(heads, (x @ part["inward.weight"].T).chunk(3, -1))
    place, K = torch.arange(x.shape[1]), q.shape[-1]
    turn = torch.polar(
        torch.ones(1, K // 2, dtype=x.dtype), place.unsqueeze(1) * 10000.0 ** (-torch.arange(0, K, 2, dtype=DOUBLE) / K)
    )
    q, k = (
        torch.view_as_real(torch.view_as_complex(p.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)
        for p in (q, k)
    )
    back = place.unsqueeze(1) - place
    scores = (q @ k.mT / math.sqrt(K)).masked_fill((back < 0) | (back >= WINDOW), -math.inf)
    return (scores.softmax(-1) @ v).transpose(-2, -3).flatten(-2) @ part["out.weight"].T


BY_HAND = {"conv": conv_by_hand, "pla": pla_by_hand, "attention": attention_by_hand}


def by_hand(model, tokens, M):
    """Logits of a text (B, N) whose first M tokens are the prompt."""
    weights = model.state_dict()
    x = weights["embedding.weight"][tokens]
    for place, kind in enumerate(model.named):
        start = f"blocks.{place}."
        own = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
        part = {name.removeprefix("mixer."): value for name, value in own.items() if name.startswith("mixer.")}
        x = x + BY_HAND[kind](part, normed(x, own["norm1.weight"]), M)
        value, gate = (normed(x, own["norm2.weight"]) @ own["mlp.inward.weight"].T).chunk(2, -1)
        x = x + value * silu(gate) @ own["mlp.out.weight"].T
    return normed(x, weights["norm.weight"]) @ weights["head.weight"].T


@pytest.mark.parametrize("M", [0, 1, 2, 7, 12, 13])
def test_the_prompt_and_what_follows_are_the_dense_form(M):
    model, tokens = fresh(), text(2, 13)
    due = by_hand(model, tokens, M)
    torch.testing.assert_close(model.whole(tokens, prefix=M)[0], due, **EXACT)
    known, state = model.prefill(tokens[:, :M])
    said = [known]
    for token in tokens[:, M:].split(1, 1):
        logits, state = model(token, state)
        said.append(logits)
    torch.testing.assert_close(torch.cat(said, 1), due, **EXACT)


@pytest.mark.parametrize("options", [{"tied": False}, {"cycle": ("pla",), "depth": 2}, {"cycle": ("attention", "pla")}])
def test_other_patterns_and_a_head_of_its_own_are_the_dense_form(options):
    model, tokens = fresh(**options), text(2, 11)
    torch.testing.assert_close(model.whole(tokens, prefix=6)[0], by_hand(model, tokens, 6), **EXACT)
    assert torch.equal(model.head.weight, model.embedding.weight) == ("tied" not in options)


def test_float32_is_near_the_dense_form():
    model, tokens = fresh(dtype=torch.float32), text(2, 40)
    got = model.whole(tokens, prefix=25)[0].double()
    torch.testing.assert_close(got, by_hand(model.double(), tokens, 25), rtol=1e-4, atol=1e-4)


def test_without_a_prompt_it_reads_causally():
    model, tokens = fresh(), text(2, 12)
    nothing, state = model.prefill(tokens[:, :0])
    assert nothing.shape == (2, 0, V)
    torch.testing.assert_close(model(tokens, state)[0], model(tokens)[0], rtol=0, atol=0)
    torch.testing.assert_close(model(tokens)[0], by_hand(model, tokens, 0), **EXACT)


def test_the_prompt_sees_all_of_itself_and_the_rest_only_its_past():
    model, tokens, M, N = fresh(), text(1, 12), 6, 12
    plain = model.whole(tokens, prefix=M)[0][0]
    for j in range(N):
        other = tokens.clone()
        other[0, j] = (tokens[0, j] + 1) % V
        moved = (model.whole(other, prefix=M)[0][0] - plain).abs().amax(-1) > 1e-12
        assert moved.tolist() == [(i < M or i >= j) if j < M else i >= j for i in range(N)], f"token {j}"


def test_equal_projections_count_the_prompt_twice():
    """One layer of PLA alone has no places: a doubled prompt is the same prompt read causally two times."""
    model, tokens, M = fresh(cycle=("pla",), depth=1), text(2, 11), 6
    mixer = model.mixers()[0]
    with torch.no_grad():
        mixer.k_e.weight.copy_(mixer.k.weight)
        mixer.v_e.weight.copy_(mixer.v.weight)
    logits, state = model.prefill(tokens[:, :M])
    for got, once in zip(state, model(tokens[:, :M])[1], strict=True):
        torch.testing.assert_close(got, 2 * once, **EXACT)
    doubled = model(torch.cat([tokens[:, :M], tokens], 1))[0]
    torch.testing.assert_close(model(tokens[:, M:], state)[0], doubled[:, 2 * M :], **EXACT)
    torch.testing.assert_close(logits[:, -1], doubled[:, 2 * M - 1], **EXACT)


@pytest.mark.parametrize("filling", [0, -100, V + 5])
def test_a_row_of_a_prompt_is_what_it_is_alone(filling):
    model, tokens, lengths = fresh(), text(6, 9), torch.tensor([9, 5, 1, 0, 2, 5])
    padded = torch.where(torch.arange(9) < lengths.unsqueeze(1), tokens, filling)
    logits, state = model.prefill(padded, lengths=lengths)
    for row, M in enumerate(lengths.tolist()):
        alone, kept = model.prefill(tokens[row : row + 1, :M])
        torch.testing.assert_close(logits[row : row + 1, :M], alone, **EXACT)
        assert not logits[row, M:].any()
        for got, due in zip(state, kept, strict=True):
            torch.testing.assert_close(got[row : row + 1], due, **EXACT)


def test_no_gradient_comes_from_padding():
    model, lengths = fresh(tied=False), torch.tensor([7, 3])
    tokens = torch.tensor([[2] * 7, [3, 3, 3, 1, 1, 1, 1]])
    logits, state = model.prefill(tokens, lengths=lengths)
    parts = [logits[1], *(part[1] for part in state if part.is_floating_point())]
    torch.autograd.backward(sum(part.square().sum() for part in parts))
    assert all(param.grad.isfinite().all() for param in model.parameters())
    assert model.embedding.weight.grad.ne(0).any(-1).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("kind", [BaseConv, lambda D: Attention(D, HEADS, window=WINDOW)])
def test_a_causal_layer_scans_rows_to_their_lengths(kind):
    torch.manual_seed(0)
    mixer = kind(D).double()
    x, lengths = torch.randn(5, 8, D, dtype=DOUBLE), torch.tensor([3, 8, 0, 1, 3])
    start = mixer.initial_state(5)
    y, last = scan_to_lengths(mixer, x, start, lengths)
    for row, M in enumerate(lengths.tolist()):
        state = tuple(part[row : row + 1] for part in start)
        alone, kept = mixer.scan_by_steps(x[row : row + 1, :M], state)
        torch.testing.assert_close(y[row : row + 1, :M], alone, **EXACT)
        for got, due in zip(choose(torch.ones(5, dtype=torch.bool), last, start), kept, strict=True):
            torch.testing.assert_close(got[row : row + 1], due, **EXACT)


def test_it_generates_after_prompts_of_different_lengths():
    model, tokens, lengths = fresh(), text(3, 8), torch.tensor([8, 4, 2])
    last = tokens.gather(1, lengths.unsqueeze(1) - 1)
    said, state = model.generate(last, 5, state=model.prefill(tokens, lengths=lengths - 1)[1])
    for row, M in enumerate(lengths.tolist()):
        longer = tokens[row : row + 1, :M]
        for _ in range(5):
            longer = torch.cat([longer, by_hand(model, longer, M - 1)[:, -1:].argmax(-1)], 1)
        assert said[row].tolist() == longer[0, M:].tolist()
        due = model.whole(longer[:, :-1], prefix=M - 1)[1]
        for got, one in zip(state, due, strict=True):
            torch.testing.assert_close(got[row : row + 1], one, **EXACT)


def test_the_loss_is_that_of_the_dense_form():
    model, tokens, M, mask = fresh(), text(4, 14), 8, 10
    loss = model.learn(tokens, prefix=M, mask=mask, random=torch.Generator().manual_seed(3), share=0.3, weight=0.5)
    hidden = torch.rand(4, M, generator=torch.Generator().manual_seed(3)) < 0.3
    shown = tokens.clone()
    shown[:, :M][hidden] = mask
    logits = by_hand(model, shown, M)
    after = cross_entropy(logits[:, M:-1].flatten(0, 1), tokens[:, M + 1 :].flatten())
    inside = cross_entropy(logits[:, :M][hidden], tokens[:, :M][hidden])
    assert hidden.any()
    torch.testing.assert_close(loss, after + 0.5 * inside, **EXACT)
    only = model.learn(tokens[:, :M], prefix=M, mask=mask, random=torch.Generator().manual_seed(3), share=0.3)
    torch.testing.assert_close(
        only, 0.25 * cross_entropy(by_hand(model, shown[:, :M], M)[hidden], tokens[:, :M][hidden]), **EXACT
    )


@pytest.mark.parametrize(("weight", "N"), [(0.25, 14), (0.0, 14), (1.0, 8)])
def test_a_step_of_training_moves_what_reads_the_prompt(weight, N):
    """Through what is said after the prompt alone, through what is filled in alone, and through both."""
    model, tokens = fresh(dtype=torch.float32), text(4, N)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(8):
        loss = model.learn(tokens, prefix=8, mask=10, random=torch.Generator().manual_seed(0), weight=weight)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    moved = {name for name, param in model.named_parameters() if not torch.equal(param, before[name])}
    assert {name for name in before if "k_e" in name or "v_e" in name} <= moved
    assert moved == set(before)
    assert losses[-1] < losses[0]


def test_reading_on_leaves_what_reads_the_prompt_alone():
    model, tokens = fresh(), text(2, 9)
    torch.autograd.backward(model(tokens)[0].square().sum())
    still = {name for name, param in model.named_parameters() if param.grad is None}
    assert still == {f"blocks.{place}.mixer.{name}.weight" for place in (1,) for name in ("k_e", "v_e")}


def test_as_given_it_is_the_papers_360_million():
    with torch.device("meta"):
        model = JRTRNN(50264)
    places = {kind: [place for place, name in enumerate(model.named) if name == kind] for kind in ("pla", "attention")}
    assert places == {"pla": [1, 6, 11, 16, 21], "attention": [2, 7, 12, 17, 22]}
    count = sum(param.numel() for param in model.parameters())
    assert abs(count - 360e6) < 0.02 * 360e6


@pytest.mark.parametrize(
    "options",
    [
        {"cycle": ("conv", "attention")},
        {"cycle": ("pla", "lstm")},
        {"cycle": ()},
        {"depth": 0},
        {"depth": 1},
        {"hidden": 0},
    ],
)
def test_layers_that_are_no_model_are_refused(options):
    with pytest.raises(ValueError, match="choose layers out of conv, pla, attention"):
        JRTRNN(V, **(OPTIONS | options))


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
        fresh().prefill(text(2, 11), lengths=lengths)


def test_what_is_no_prompt_is_refused():
    model, random = fresh(), torch.Generator()
    for tokens in (text(11), text(2, 11).float(), text(2, 11) + V):
        for call in (
            lambda: model.prefill(tokens),
            lambda: model.prefill(tokens, lengths=torch.full((len(tokens),), 11)),
            lambda: model.whole(tokens, prefix=3),
            lambda: model.learn(tokens, prefix=3, mask=0, random=random),
        ):
            with pytest.raises(ValueError, match="tokens"):
                call()
    for prefix in (-1, 12):
        with pytest.raises(ValueError, match=f"prefix={prefix}"):
            model.whole(text(2, 11), prefix=prefix)
    with pytest.raises(ValueError, match="prefix=12"):
        model.learn(text(2, 11), prefix=12, mask=0, random=random)


def test_a_prompt_asks_for_some_of_its_pairs():
    tokens, due = texts(40, pairs=6, queries=3, symbols=32, random=torch.Generator().manual_seed(0))
    assert tokens.shape == (40, 19)
    for row, answers in zip(tokens.tolist(), due.tolist(), strict=True):
        known = dict(zip(row[:12:2], row[1:12:2], strict=True))
        assert row[12] == 0
        assert row[13:16] == row[16:]
        assert len(set(row[16:])) == 3
        assert [known[key] for key in row[16:]] == answers

"""Mixture of recursions against a plain transformer written here, its own masked form, and counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional

from loci.lab.tasks import brackets
from loci.state.decoder import checks
from loci.state.decoder.mixture_of_recursions import MixtureOfRecursions, MixtureOfRecursionsTokenChoice, falling
from loci.state.decoder.recursion import Cache, Layer, Recursive, angles, gathered, masked
from loci.state.decoder.routers import ExpertChoice, TokenChoice
from loci.state.mixer import state_bytes

torch.set_num_threads(1)
SIZES = {"D": 8, "heads": 2, "hidden": 12, "layers": 2, "recursions": 3, "window": 12}
V, B, T = 11, 3, 12
ELSEWHERE = (
    checks.state_bytes_are_the_formula,
    checks.runs_under_compile,
)  # the first below, the second by its subclasses


def fresh(kind=MixtureOfRecursions, *, seed=0, **options):
    """A decoder in float64 whose weights are large enough that routes differ."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = kind(V, **(SIZES | options)).double()
        for param in model.parameters():
            param.add_(torch.randn(param.shape, dtype=torch.float64) * 0.3)
    return model


def text(*, length=T, batch=B, seed=1):
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(seed))


def plain_layer(layer, h):
    """A pre-norm layer with rotary places, on complex numbers: turning is a product with e^(i place rate)."""
    T, H = h.shape[1], layer.heads
    x = h / (h.square().mean(-1, keepdim=True) + torch.finfo(h.dtype).eps).sqrt() * layer.norm.weight
    q, k, v = (x @ layer.inward.weight.T).chunk(3, -1)
    d = q.shape[-1] // H
    rates = 10000.0 ** (-torch.arange(0, d, 2).double() / d)
    phase = torch.polar(torch.ones(T, d // 2).double(), torch.arange(T).double().outer(rates))
    q, k = (torch.view_as_complex(part.reshape(*part.shape[:2], H, -1, 2)) * phase.unsqueeze(1) for part in (q, k))
    near = torch.einsum("bihc,bjhc->bhij", q, k.conj()).real / math.sqrt(d)
    near = near.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(-1)
    heard = torch.einsum("bhij,bjhd->bihd", near, v.reshape(*v.shape[:2], H, -1)).flatten(2)
    h = h + heard @ layer.out.weight.T
    x = h / (h.square().mean(-1, keepdim=True) + torch.finfo(h.dtype).eps).sqrt() * layer.norm_map.weight
    gate, up = (x @ layer.up.weight.T).chunk(2, -1)
    return h + (gate / (1 + (-gate).exp()) * up) @ layer.down.weight.T


def plain(model, tokens, gates=None):
    """A transformer whose middle layers are the same again and again, all tokens through all."""
    h = plain_layer(model.first[0], model.embedding[tokens])
    for r in range(len(model.capacities)):
        said = h
        for layer in model.shared:
            said = plain_layer(layer, said)
        h = said if gates is None else h + gates(r, h) * said
    h = plain_layer(model.last[0], h)
    h = h / (h.square().mean(-1, keepdim=True) + torch.finfo(h.dtype).eps).sqrt() * model.norm.weight
    return h @ model.embedding.T


def test_all_tokens_through_all_rounds_is_a_transformer_of_tied_layers():
    model = fresh(Recursive)
    assert torch.allclose(model(text())[0], plain(model, text()), atol=1e-10)


def test_full_capacity_is_a_gated_recursive_transformer():
    model = fresh(capacities=(1.0, 1.0, 1.0))
    want = plain(model, text(), lambda r, h: 0.1 / (1 + (-(h @ model.router.theta[r])).exp()).unsqueeze(-1))
    assert torch.allclose(model(text())[0], want, atol=1e-10)
    assert (model.depths(text()) == 3).all()
    assert model.agreement(text()) == 1.0


def test_weights_are_shared_and_depth_costs_none():
    few, many = (fresh(Recursive, recursions=n) for n in (1, 4))
    assert sum(p.numel() for p in few.parameters()) == sum(p.numel() for p in many.parameters())
    layers = [part for part in many.modules() if isinstance(part, Layer)]
    assert len(layers) == 4  # first, two shared, last, for ten in a transformer of that depth
    assert fresh(recursions=4).router.theta.shape == (4, 8)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_gathered_is_masked(share):
    model = fresh()
    random = torch.Generator().manual_seed(3)
    h = torch.randn(B, T, 8, generator=random, dtype=torch.float64)
    active = torch.rand(B, T, generator=random) < share
    turns = angles(torch.arange(T).expand(B, T), 4, h)
    got = gathered(model.shared, h, active, turns, None, T)[0]
    assert torch.allclose(got, masked(model.shared, h, active, turns), atol=1e-10)
    assert not got[~active].any()


def test_gathered_keeps_places_and_order():
    """Two active tokens far apart hear each other at their distance in the text, not at that among the active."""
    model = fresh()
    h = torch.randn(1, T, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    turns = angles(torch.arange(T).expand(1, T), 4, h)
    ends = (torch.arange(T) % (T - 1) == 0).unsqueeze(0)
    near = gathered(model.shared, h, ends, turns, None, T)[0][0, -1]
    pair = h[:, [0, T - 1]]
    moved = gathered(model.shared, pair, torch.ones(1, 2).bool(), turns[:, [0, T - 1]], None, T)[0][0, -1]
    beside = gathered(model.shared, pair, torch.ones(1, 2).bool(), turns[:, :2], None, T)[0][0, -1]
    assert torch.allclose(near, moved, atol=1e-12)
    assert not torch.allclose(near, beside)


def test_a_cache_holds_the_latest_active_tokens():
    model = fresh(layers=1)
    h = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    active = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0]]).bool()
    turns = angles(torch.arange(5).expand(2, 5), 4, h)
    none = Cache(h.new_zeros(2, 1, 2, 8), h.new_zeros(2, 1, 2, 8), torch.zeros(2).long())
    cache = gathered(model.shared, h, active, turns, none, 2)[1]
    value = (model.shared[0].norm(h) @ model.shared[0].inward.weight.T).chunk(3, -1)[2]
    assert torch.allclose(cache.values[0, 0], value[0, [2, 3]])
    assert torch.allclose(cache.values[1, 0, 1], value[1, 3])
    assert not cache.values[1, 0, 0].any()
    assert cache.seen.tolist() == [3, 1]


@pytest.mark.parametrize("kind", [MixtureOfRecursions, MixtureOfRecursionsTokenChoice])
def test_token_by_token_is_the_whole_text(kind):
    model, tokens = fresh(kind, window=5), text(length=19)
    depths = model.depths(tokens)
    assert 1 < len(set(depths.flatten().tolist())) <= 4, "all go equally deep: nothing is tested"
    state, said = model.initial_state(B), []
    for token in tokens.unbind(1):
        logits, state = model(token.unsqueeze(1), state)
        said.append(logits)
    whole, last = model(tokens)
    assert torch.allclose(torch.cat(said, 1), whole, atol=1e-10)
    assert all(torch.allclose(one, two, atol=1e-10) for one, two in zip(state, last, strict=True))
    assert last[-1][:, 1:].tolist() == [[int((row > r).sum()) for r in range(3)] for row in depths]


@pytest.mark.parametrize("kind", [MixtureOfRecursions, MixtureOfRecursionsTokenChoice])
def test_by_rule_later_tokens_change_nothing(kind):
    model, tokens = fresh(kind), text()
    before = model(tokens)[0]
    for cut in range(1, T):
        changed = tokens.clone()
        changed[:, cut:] = (changed[:, cut:] + 1) % V
        assert torch.allclose(model(changed)[0][:, :cut], before[:, :cut], rtol=0, atol=1e-12)
        assert torch.equal(model.depths(changed)[:, :cut], model.depths(tokens)[:, :cut])


def test_capacity_looks_ahead_and_the_threshold_does_not():
    """Why `read` is not routed as `learn` is."""
    router = ExpertChoice(1, (0.5,))
    everyone = torch.ones(1, 4).bool()
    for choose, same in ((router.by_capacity, False), (router.by_threshold, True)):
        one, two = (choose(0, torch.tensor([[0.1, 0.2, *rest]]), everyone) for rest in ((0.0, 0.0), (0.8, 0.9)))
        assert torch.equal(one[:, :2], two[:, :2]) is same


@pytest.mark.parametrize(("N", "layers"), [(2, 1), (3, 2), (4, 3)])
def test_entries_kept_are_the_share_of_the_paper(N, layers):
    window = 12
    caches = {}
    for kind in (MixtureOfRecursions, Recursive):
        model = fresh(kind, recursions=N, layers=layers, window=window)
        state = model(text(length=2 * window))[1]
        caches[kind] = sum(part[0, :, :, 0].numel() for part in state[2:-3:2])
        ends = 2 * 2 * window * 8 * 8
        assert state_bytes(state) == B * (2 * 8 * 8 * caches[kind] + ends + 8 * (N + 1))
    assert caches[Recursive] == N * window * layers
    assert caches[MixtureOfRecursions] / caches[Recursive] == pytest.approx((N + 1) / (2 * N))


def test_training_takes_the_largest_of_those_that_are_left():
    model, taken = fresh(), []
    h = torch.randn(B, T, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def deeper(r, h, active):
        taken.append((model.router.logits(r, h), active))
        return torch.zeros_like(h)

    routed = model.in_training(h, deeper, 1.0)
    left, loss = [set(range(T))] * B, 0.0
    for r, (logits, active) in enumerate(taken):
        values = logits.detach().numpy()
        for row in range(B):
            best = sorted(left[row], key=lambda t, row=row, values=values: -values[row, t])[: (12, 8, 4)[r]]
            assert set(active[row].nonzero().flatten().tolist()) == set(best)
            chance = {t: 1 / (1 + np.exp(-values[row, t])) for t in left[row]}
            terms = [-np.log(chance[t] if t in best else 1 - chance[t]) for t in left[row]]
            loss += 0.001 * sum(terms) / (B * len(terms))
            left[row] = set(best)
    assert float(routed.loss.detach()) == pytest.approx(loss)
    assert routed.depth.sum(1).tolist() == [24] * B


def test_the_gate_multiplies_and_gives_the_router_its_gradient():
    model = fresh(imitation=0.0)
    torch.autograd.backward(sum(model.learn(text())))
    assert model.router.theta.grad.any(1).all()
    h = torch.randn(B, T, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    same = model.by_rule(h, lambda r, h, active: torch.zeros_like(h)).h
    assert torch.equal(same, h)


def test_capacity_comes_down_along_a_cosine():
    router, everyone = ExpertChoice(1, (0.25,)), torch.ones(1, 100).bool()
    logits = torch.arange(100.0).unsqueeze(0)
    counts = [int(router.by_capacity(0, logits, everyone, progress).sum()) for progress in (0.0, 0.5, 1.0, 2.0)]
    assert counts == [100, 62, 25, 25]  # 0.25 + 0.75 / 2 = 0.625


def test_imitation_brings_threshold_and_capacity_together():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MixtureOfRecursions(V, **SIZES, imitation=1.0)
    optimizer, tokens = torch.optim.Adam(model.parameters(), lr=0.01), text(length=13, batch=6)
    first = model.agreement(tokens[:, :-1])
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(model.learn(tokens).routing)
        optimizer.step()
    assert first < 0.7
    assert model.agreement(tokens[:, :-1]) > 0.85


def test_token_choice_by_hand():
    router = TokenChoice(2, 2).double()
    with torch.no_grad():
        router.theta.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    depth, gate, loss = router(torch.tensor([[[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]]).double())
    p = np.exp([[2, 0], [0, 1], [3, 1]])
    size = np.log(p.sum(1))
    p = p / p.sum(1, keepdims=True)
    assert depth.tolist() == [[1, 2, 1]]
    assert np.allclose(gate.detach().flatten(), [p[0, 0], p[1, 1], p[2, 0]])
    even = 2 * (2 / 3 * p[:, 0].mean() + 1 / 3 * p[:, 1].mean())
    assert float(loss.detach()) == pytest.approx(0.1 * even + 0.001 * (size**2).mean())


def test_token_choice_adds_its_last_round_to_where_it_began():
    model = fresh(MixtureOfRecursionsTokenChoice)
    h = torch.randn(B, T, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    depth, gate, _ = model.router(h)
    got = model.by_rule(h, lambda r, h, active: torch.where(active.unsqueeze(-1), h * 2 + r, 0.0)).h
    for row in range(B):
        for t in range(T):
            x = h[row, t]
            for r in range(int(depth[row, t])):
                x = x * 2 + r
            assert torch.allclose(got[row, t], h[row, t] + gate[row, t] * x)


def test_learning_is_predicting_the_next_token():
    model, tokens = fresh(Recursive), text(length=13)
    want = functional.cross_entropy(model(tokens[:, :-1])[0].transpose(1, 2), tokens[:, 1:])
    got = model.learn(tokens)
    assert float(got.text.detach()) == pytest.approx(float(want.detach()))
    assert float(got.routing) == 0


@pytest.mark.parametrize("law", [law for law in checks.LAWS if law not in ELSEWHERE], ids=lambda law: law.__name__)
def test_the_plain_recursion_keeps_the_laws(law):
    law(lambda: Recursive(V, **(SIZES | {"window": 7, "layers": 1, "recursions": 2})))


def test_what_does_not_fit_is_refused():
    for options, words in (
        ({"capacities": (1.0, 0.5)}, "3 recursions"),
        ({"capacities": (0.5, 1.0, 0.5)}, "capacities"),
        ({"D": 10}, "D=10"),
        ({"layers": 0}, "layers=0"),
        ({"alpha": 0.0}, "alpha=0.0"),
    ):
        with pytest.raises(ValueError, match=words):
            fresh(**options)
    with pytest.raises(ValueError, match="2 to 13 tokens"):
        fresh().learn(text(length=14))
    with pytest.raises(ValueError, match="temperature=0"):
        TokenChoice(4, 2, temperature=0)
    assert falling(3) == pytest.approx((1, 2 / 3, 1 / 3))


def test_brackets_close_in_order_and_words_come_twice():
    tokens, copied, closing = brackets.texts(200, 3, torch.Generator().manual_seed(0))
    deepest = 0
    for row, twice, closes in zip(tokens.tolist(), copied.tolist(), closing.tolist(), strict=True):
        for start in range(0, len(row), brackets.PART):
            mark, *part = row[start : start + brackets.PART]
            answers = twice[start + 1 : start + brackets.PART], closes[start + 1 : start + brackets.PART]
            if mark == brackets.COPY:
                assert part[:8] == part[8:]
                assert answers == ([False] * 8 + [True] * 8, [False] * 16)
                continue
            assert mark == brackets.NEST
            open_ones = []
            for symbol, answer in zip(part, answers[1], strict=True):
                assert answer == (symbol >= brackets.KINDS)
                if answer:
                    assert symbol - brackets.KINDS == open_ones.pop()
                else:
                    open_ones.append(symbol)
                deepest = max(deepest, len(open_ones))
            assert not open_ones
            assert not any(answers[0])
    assert 5 <= deepest <= brackets.DEEPEST


def test_operations_are_those_of_torchs_counter():
    from torch.utils.flop_counter import FlopCounterMode

    model = Recursive(V, **SIZES)
    with FlopCounterMode(display=False) as counter:
        model.passed(text(), None, model.by_rule)
    counted = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counted.items() if "attention" not in str(op))
    attention = sum(2 * T * (T + 1) * 8 for _ in range(2 + 3 * 2))
    assert B * (brackets.operations(model, T) - attention) == products


def test_operations_spent_count_the_capacities_as_they_come_down():
    model, layer, head, routers = fresh(layers=1), 2 * (4 * 64 + 3 * 96), 2 * T * 8 * V, 3 * 2 * T * 8
    want = 0
    for shares in (
        (1, 1, 1),
        (1, 5 / 6, 4 / 6),
        (1, 2 / 3, 1 / 3),
        (1, 2 / 3, 1 / 3),
    ):  # of 4 steps, down in the first 2
        rounds = [T, *(round(share * T) for share in shares), T]
        want += sum(n * layer + 2 * n * (n + 1) * 8 for n in rounds) + head + routers
    assert brackets.spent(model, T, 4) == want

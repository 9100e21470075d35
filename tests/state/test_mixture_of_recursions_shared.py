"""Shared keys of the first round against a transformer written here in NumPy, its own obvious form, and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from loci.core import formula
from loci.state.decoder.mixture_of_recursions import MixtureOfRecursions
from loci.state.decoder.recursion import Recursive, angles, beside, gathered
from loci.state.decoder.shared_recursions import SharedRecursions, asked, asked_by_all
from loci.state.mixer import state_bytes

torch.set_num_threads(1)
SIZES = {"D": 8, "heads": 2, "hidden": 12, "layers": 2, "recursions": 3, "window": 12}
V, B, T = 11, 3, 12


def fresh(kind=SharedRecursions, *, seed=0, **options):
    """A decoder in float64 whose weights are large enough that routes differ."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = kind(V, **(SIZES | options)).double()
        for param in model.parameters():
            param.add_(torch.randn(param.shape, dtype=torch.float64) * 0.3)
    return model


def text(*, length=T, batch=B, seed=1):
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(seed))


def drawn(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(model):
    """Its weights by their names, in NumPy."""
    return {name: param.detach().numpy() for name, param in model.named_parameters()}


def normed(h, weight):
    return h / np.sqrt((h**2).mean(-1, keepdims=True) + np.finfo(np.float64).eps) * weight


def turned_by_hand(x, place):
    """One head's vector, its pairs turned by place * 10000^(-2i/d)."""
    out = np.empty_like(x)
    for i in range(len(x) // 2):
        angle = place * 10000.0 ** (-2 * i / len(x))
        out[2 * i] = x[2 * i] * np.cos(angle) - x[2 * i + 1] * np.sin(angle)
        out[2 * i + 1] = x[2 * i] * np.sin(angle) + x[2 * i + 1] * np.cos(angle)
    return out


def layer_by_hand(p, name, h, who, keys=None):
    """A layer over the tokens `who` of h (T, D), by loops; with keys and values given, those answer."""
    H, D = SIZES["heads"], h.shape[1]
    d = D // H
    q, k, v = np.split(normed(h, p[f"{name}.norm.weight"]) @ p[f"{name}.inward.weight"].T, 3, -1)
    k = np.array(
        [np.concatenate([turned_by_hand(row[at : at + d], t) for at in range(0, D, d)]) for t, row in enumerate(k)]
    )
    k, v = (k, v) if keys is None else keys
    out = h.copy()
    for t in who:
        heard = []
        for at in range(0, D, d):
            near = np.array([turned_by_hand(q[t, at : at + d], t) @ k[s, at : at + d] for s in range(t + 1)]) / np.sqrt(
                d
            )
            odds = np.exp(near - near.max())
            heard.append(odds / odds.sum() @ v[: t + 1, at : at + d])
        out[t] = h[t] + np.concatenate(heard) @ p[f"{name}.out.weight"].T
        gate, up = np.split(normed(out[t], p[f"{name}.norm_map.weight"]) @ p[f"{name}.up.weight"].T, 2)
        out[t] += (gate / (1 + np.exp(-gate)) * up) @ p[f"{name}.down.weight"].T
    return out, (k, v)


def by_hand(model, tokens):
    """Logits (T, V) and depths (T,) of one text, read by the threshold."""
    p, everyone = numbers(model), range(len(tokens))
    h, _ = layer_by_hand(p, "first.0", p["embedding"][tokens], everyone)
    who, depth, shared = list(everyone), np.zeros(len(tokens), dtype=int), []
    for r, share in enumerate(model.capacities):
        logits = h @ p["router.theta"][r]
        who = [t for t in who if share == 1 or logits[t] > 0]
        said = h
        for place in range(len(model.shared)):
            said, keys = layer_by_hand(p, f"shared.{place}", said, who, shared[place] if r else None)
            shared += [keys] if r == 0 else []
        new = h.copy()
        for t in who:
            new[t] = h[t] + 0.1 / (1 + np.exp(-logits[t])) * said[t]
            depth[t] += 1
        h = new
    h, _ = layer_by_hand(p, "last.0", h, everyone)
    return normed(h, p["norm.weight"]) @ p["embedding"].T, depth


@pytest.mark.parametrize("capacities", [None, (1.0, 1.0, 1.0)])
def test_a_text_is_read_as_by_hand(capacities):
    model, tokens = fresh(capacities=capacities), text()
    logits, depths = model(tokens)[0].detach().numpy(), model.depths(tokens).numpy()
    assert len(set(depths.flatten().tolist())) == (3 if capacities is None else 1)
    for row in range(B):
        want, depth = by_hand(model, tokens[row].numpy())
        np.testing.assert_allclose(logits[row], want, atol=1e-10)
        assert depths[row].tolist() == depth.tolist()


def test_one_round_shares_with_nobody():
    """Weights of the same seed: with a single round there is nothing to share; with two there is."""
    for recursions, same in ((1, True), (2, False)):
        shared, own = (fresh(kind, recursions=recursions) for kind in (SharedRecursions, MixtureOfRecursions))
        assert torch.allclose(shared(text())[0], own(text())[0], atol=1e-12) is same


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_asking_alone_is_asking_with_all(share):
    model, h = fresh(), drawn(B, T, 8)
    turns = angles(torch.arange(T).expand(B, T), 4, h)
    heard = beside(model.shared, drawn(B, T, 8, seed=4), turns, None, T)[1]
    active = torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < share
    got = asked(model.shared, h, active, turns, heard)
    assert torch.allclose(got, asked_by_all(model.shared, h, active, turns, heard), atol=1e-12)
    assert not got[~active].any()


def test_who_else_goes_deeper_does_not_matter():
    """Nor could it, by the keys of round 1; where each round has keys of its own it does."""
    model, h = fresh(), drawn(1, T, 8)
    turns = angles(torch.arange(T).expand(1, T), 4, h)
    heard = beside(model.shared, h, turns, None, T)[1]
    few, many = (torch.arange(T) % step == step - 1 for step in (4, 2))  # the last among both
    shared = [asked(model.shared, h, who.unsqueeze(0), turns, heard)[0, -1] for who in (few, many)]
    own = [gathered(model.shared, h, who.unsqueeze(0), turns, None, T)[0][0, -1] for who in (few, many)]
    assert torch.allclose(*shared, atol=1e-12)
    assert not torch.allclose(*own)


def test_token_by_token_is_the_whole_text():
    model, tokens = fresh(window=5), text(length=19)
    depths = model.depths(tokens)
    assert len(set(depths.flatten().tolist())) == 3, "some depth is missing: too little is tested"
    state, said = model.initial_state(B), []
    for token in tokens.unbind(1):
        logits, state = model(token.unsqueeze(1), state)
        said.append(logits)
    whole, last = model(tokens)
    assert torch.allclose(torch.cat(said, 1), whole, atol=1e-10)
    assert all(torch.allclose(one, two, atol=1e-10) for one, two in zip(state, last, strict=True))
    assert last[-1].tolist() == [[19, 19]] * B


def test_later_tokens_change_nothing():
    model, tokens = fresh(), text()
    before = model(tokens)[0]
    for cut in range(1, T):
        changed = tokens.clone()
        changed[:, cut:] = (changed[:, cut:] + 1) % V
        assert torch.allclose(model(changed)[0][:, :cut], before[:, :cut], rtol=0, atol=1e-12)
        assert torch.equal(model.depths(changed)[:, :cut], model.depths(tokens)[:, :cut])


@pytest.mark.parametrize(("N", "layers"), [(2, 1), (3, 2), (4, 3)])
def test_entries_kept_are_those_of_one_pass(N, layers):
    window, entries = 12, {}
    for kind in (SharedRecursions, Recursive):
        model = fresh(kind, recursions=N, layers=layers, window=window)
        state = model(text(length=2 * window))[1]
        entries[kind] = sum(part[0, :, :, 0].numel() for part in state[:-1:2])
    assert entries[SharedRecursions] == window * (2 + layers)
    assert (entries[SharedRecursions] - 2 * window) * N == entries[Recursive] - 2 * window
    shared = fresh(recursions=N, layers=layers, window=window)
    want = B * (2 * 8 * 8 * window * (2 + layers) + 16)
    assert state_bytes(shared.initial_state(B)) == want
    assert formula.evaluate(SharedRecursions.card.bytes, shared.shapes(shared.initial_state(B))) == want


def test_the_cache_is_of_round_one():
    model, tokens = fresh(window=T), text()
    keys, values = model(tokens)[1][2:4]
    h = beside(model.first, model.embedding[tokens], angles(torch.arange(T).expand(B, T), 4, keys), None, T)[0]
    _, _, v = (model.shared[0].norm(h) @ model.shared[0].inward.weight.T).chunk(3, -1)
    assert torch.allclose(values[:, 0], v, atol=1e-12)
    norms = (model.shared[0].norm(h) @ model.shared[0].inward.weight.T).chunk(3, -1)[1].norm(dim=-1)
    assert torch.allclose(keys[:, 0].norm(dim=-1), norms, atol=1e-12)  # turning keeps lengths


def test_later_rounds_compute_no_keys():
    from torch.utils.flop_counter import FlopCounterMode

    model, h = fresh(), drawn(B, T, 8)
    turns = angles(torch.arange(T).expand(B, T), 4, h)
    heard = beside(model.shared, h, turns, None, T)[1]
    active = torch.arange(T).expand(B, T) < 5
    with FlopCounterMode(display=False) as counter:
        asked(model.shared, h, active, turns, heard)
    counted = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counted.items() if "attention" not in str(op))
    assert products == B * 5 * 2 * 2 * (2 * 8 * 8 + 3 * 8 * 12)  # two layers: queries and out, three maps


def test_gradient_of_a_later_round_reaches_the_keys_of_the_first():
    model, h = fresh(), drawn(1, T, 8).requires_grad_()
    deeper = model.rounds(angles(torch.arange(T).expand(1, T), 4, h), [None] * 3)
    everyone, last = torch.ones(1, T, dtype=torch.bool), (torch.arange(T) == T - 1).unsqueeze(0)
    deeper(0, h, everyone)
    torch.autograd.backward(deeper(1, h.detach(), last).square().sum())
    assert h.grad[0].any(1).all()


def test_learning_routes_by_capacity():
    model = fresh()
    losses = model.learn(text(length=13))
    torch.autograd.backward(sum(losses))
    assert all(param.grad is not None and param.grad.any() for param in model.parameters())
    assert float(losses.routing.detach()) > 0
    routed = model.passed(text(), None, lambda h, deeper: model.in_training(h, deeper, 1.0))[2]
    assert routed.depth.sum(1).tolist() == [12 + 8 + 4] * B


def test_what_leaves_tokens_without_keys_is_refused():
    with pytest.raises(ValueError, match="choose 1 for the first"):
        fresh(capacities=(0.9, 0.5, 0.2))
    with pytest.raises(ValueError, match="3 recursions"):
        fresh(capacities=(1.0, 0.5))

"""UltraMemV2 and product keys: the authors' numbers, brute force in NumPy, closed forms, and what the search does not see.

OFFICIAL is of ZihaoHuang-notabot/Ultra-Sparse-Memory-Network at 041104bcf636a51845997fe80ec098e8b10a57e8, its UltraMemLayerV2
(mem_q_for_each_tucker_rank, 3 heads, layer 1 of 2) run in float64 on the CPU, with its own gathers in place of its CUDA
kernels, and with `wave` for weights, in the order of our named_parameters, and for tokens.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.core.checking import refused
from loci.lab.tasks.associations import associator
from loci.state.sparse_memory import tucker
from loci.state.sparse_memory.base import groups
from loci.state.sparse_memory.pool import Pool, balanced_std
from loci.state.sparse_memory.product_key import ProductKeyMemory, best_sums
from loci.state.sparse_memory.ultramem_v2 import UltraMemV2

torch.set_num_threads(1)
DOUBLE = torch.float64
N, H, n, r, c = 5, 3, 9, 2, 2

OFFICIAL = {
    "sum": -67.33214904362083,
    "first": [8.458387795698338, 9.50232343328217, -10.890292528809805, -6.715199407065644,
              12.608895914233566, 3.4882377204391752, -13.501631452243334, -0.03280056720223268],
    "last": [-4.056835980925613, -3.8665017116013636, 5.046379630859985, 2.5749949979505153,
             -5.705391352279703, -1.114829141538518, 5.990706652790545, -0.4183567119945174],
    "gradient of the first": [88.57642474707325, -8.60279609303439, -95.57041327952888, 33.33242846403875,
                              93.61994402526837, -53.09812460233551, -81.6753665220604, 67.39835246065557],
    "norms": {"keys": 89.31031928595101, "query.weight": 148.4008156902364, "pool.values": 40.80109613226151,
              "pool.gates": 87.77466076062107},
}  # fmt: skip


def wave(*shape, k):
    return torch.sin(k * torch.arange(1, math.prod(shape) + 1, dtype=DOUBLE)).reshape(shape)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def made(D=8, pool=None, *, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"n": 6, "layers": 2, "d_v": 4, "d_p": 3, "std": 0.5} if pool is None else pool
        return UltraMemV2(D, sizes, **{"K": 6, "m": 4, **options}).to(DOUBLE)


def close(got, want, **within):
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want), **within)


def grid_by_loops(s1, s2, core):
    """S[i, j] of one token and one head, sum by sum."""
    S = np.zeros((len(s1), len(s2)))
    for i in range(len(s1)):
        for j in range(len(s2)):
            S[i, j] = sum(s1[i, a] * core[a, b] * s2[j, b] for a in range(core.shape[0]) for b in range(core.shape[1]))
    return S


def scores_and_cores(*, seed=0, signs=(1, 1)):
    s1, s2, cores = (
        drawn(*shape, seed=seed + at) for at, shape in enumerate([(N, H, n, r), (N, H, n, r), (c, H, r, r)])
    )
    return s1, s2, cores


# The authors' numbers


def test_a_memory_is_the_authors_in_outputs_and_gradients() -> None:
    sizes = {"n": 6, "layers": 2, "d_v": 4, "d_p": 3}
    memory = UltraMemV2(8, sizes, layer=1, K=6, m=4, heads=3, share=0.7).to(DOUBLE)
    with torch.no_grad():
        for k, param in enumerate(memory.parameters(), 1):
            param.copy_(wave(*param.shape, k=k))
        memory.shuffle.copy_((5 * torch.arange(49) + 3) % 49)
        memory.u.fill_(1), memory.v.fill_(1)
    memory.refresh()
    h = wave(5, 8, k=0.7).requires_grad_()
    y = memory(h)
    close(y[0].tolist(), OFFICIAL["first"], rtol=1e-10, atol=1e-10)
    close(y[-1].tolist(), OFFICIAL["last"], rtol=1e-10, atol=1e-10)
    assert y.detach().sum().item() == pytest.approx(OFFICIAL["sum"], rel=1e-10)
    torch.autograd.backward((wave(5, 8, k=1.3) * y).sum())
    close(h.grad[0].tolist(), OFFICIAL["gradient of the first"], rtol=1e-10, atol=1e-10)
    for name, norm in OFFICIAL["norms"].items():
        assert memory.get_parameter(name).grad.norm().item() == pytest.approx(norm, rel=1e-10)


# 1. Without pruning the search is exact


def test_without_pruning_the_places_are_those_of_the_whole_grid() -> None:
    s1, s2, cores = scores_and_cores()
    u, v = tucker.leading(cores, torch.ones(H, r, dtype=DOUBLE), torch.ones(H, r, dtype=DOUBLE))
    found = tucker.search(s1, s2, cores, u, v, m=n)
    for token in range(N):
        for head in range(H):
            parts = [grid_by_loops(s1[token, head].numpy(), s2[token, head].numpy(), C[head].numpy()) for C in cores]
            best = np.argsort(-sum(parts).ravel())[:n]
            assert found.places[token, head].tolist() == best.tolist()
            for core, S in enumerate(parts):
                close(found.weights[core, token, head], S.ravel()[best], rtol=0, atol=1e-10)


# 2. Of rank one, it is exact as far as a product can be


def rank_one(s1, s2, *, m):
    """Places found and best places of S = s1 u v' s2, as sets by token and head."""
    u, v = (nn.functional.normalize(drawn(H, r, seed=seed).abs(), dim=1) for seed in (7, 8))
    cores = 3 * (u.unsqueeze(-1) * v.unsqueeze(-2)).unsqueeze(0)
    lead = tucker.leading(cores, u, v)
    close(lead[0], u), close(lead[1], v)
    found = tucker.search(s1, s2, cores, *lead, m=m).places
    grid = torch.einsum("nhia,ha,hb,nhjb->nhij", s1, u, v, s2).flatten(2)
    best = grid.argsort(-1, descending=True)[..., :m]
    return [set(row.tolist()) for row in found.flatten(0, 1)], [set(row.tolist()) for row in best.flatten(0, 1)]


@pytest.mark.parametrize("m", [1, 2, 5, n])
def test_a_core_of_rank_one_is_searched_exactly_where_one_side_is_not_negative(m) -> None:
    s1, s2 = drawn(N, H, n, r), drawn(N, H, n, r, seed=1)
    found, best = rank_one(s1, s2.abs(), m=m)
    assert found == best
    found, best = rank_one(s1.abs(), s2, m=m)
    assert found == best


def test_a_product_of_two_negative_scores_is_not_seen_by_the_first_stage() -> None:
    found, best = rank_one(drawn(N, H, n, r), drawn(N, H, n, r, seed=1), m=2)
    assert found != best, "the search would be exact for any scores"
    one = torch.ones(1, 1, dtype=DOUBLE)
    s = torch.tensor([-5.0, 0.0, 1.0], dtype=DOUBLE).view(1, 1, 3, 1)
    assert tucker.search(s, s, one.view(1, 1, 1, 1), one, one, m=1).places.tolist() == [[[8]]]  # 1, where 25 is at 0


# 3. Product keys


def test_rank_one_without_gates_is_a_product_key_memory_with_products_and_no_softmax() -> None:
    memory = made(8, {"n": 6, "layers": 1, "d_v": 4, "d_p": 0, "std": 0.5}, rank=1, cores=1, share=1.0, m=6)
    with torch.no_grad():
        memory.core.fill_(1)
    memory.refresh()
    h = drawn(N, 8)
    W_q, W_v, V = (part.detach().numpy() for part in (memory.query.weight, memory.out.weight, memory.pool.values))
    keys = memory.keys.detach().numpy()[0, :, 0]  # (2, k, K)
    gain = float(memory.query_norm.weight[0].detach())
    assert gain == pytest.approx(6**-0.4, rel=1e-6)

    def norm(x):
        return gain * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    for token, y in zip(h.numpy(), memory(h), strict=True):
        q1, q2 = norm((W_q @ token).reshape(2, 6))
        S = np.outer(norm(keys[0]) @ q1, norm(keys[1]) @ q2).ravel()
        best = np.argsort(-S)[:6]
        rows = memory.shuffle.numpy()[best]
        close(y, W_v @ (S[best] @ V[rows]), rtol=0, atol=1e-10)


def test_a_tucker_grid_holds_the_sums_of_product_keys() -> None:
    a, b = drawn(N, H, n), drawn(N, H, n, seed=1)
    s1, s2 = torch.stack([a, torch.ones_like(a)], -1), torch.stack([torch.ones_like(b), b], -1)  # S = a 1 + 1 b
    cores = torch.eye(2, dtype=DOUBLE).expand(1, H, 2, 2)
    u, v = tucker.leading(cores, torch.ones(H, 2, dtype=DOUBLE), torch.ones(H, 2, dtype=DOUBLE))
    found = tucker.search(s1, s2, cores, u, v, m=n)
    sums, places = best_sums(a, b, m=n)
    assert torch.equal(found.places, places)
    close(found.weights[0], sums)


def test_best_sums_are_those_of_all_sums() -> None:
    a, b = drawn(50, n), drawn(50, n, seed=1)
    for m in (1, 3, n):
        sums, places = best_sums(a, b, m=m)
        grid = (a.numpy()[:, :, None] + b.numpy()[:, None, :]).reshape(50, -1)
        assert places.tolist() == np.argsort(-grid, 1)[:, :m].tolist()
        close(sums, -np.sort(-grid, 1)[:, :m])


# 4. Gates, slices and expansion, by loops


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"heads": 3, "expand": 2, "share": 0.6, "layer": 1}])
def test_a_token_reads_what_loops_over_its_rows_read(options) -> None:
    memory = made(**options)
    h = drawn(N, 8)
    found, rows = memory.found(h), memory.rows(h)
    pool = memory.pool
    side, T = memory.side, 2 * 6 * 6
    for token in range(N):
        listened = memory.gate.weight @ h[token]
        said = torch.zeros(4, dtype=DOUBLE)
        for at, place in enumerate(found.places[token].flatten().tolist()):
            row = (int(memory.shuffle[place]) % side**2 + memory.layer * 36) % T
            assert int(rows[token, at]) == row
            z = float(listened @ pool.gates[row])
            for core in range(2):
                part = slice(2 * core, 2 * core + 2)
                weight = float(found.weights[core, token].flatten()[at])
                said[part] += z * weight * pool.values[row, part]
        close(memory(h)[token], memory.out.weight @ said)


def test_heads_share_queries_in_pairs() -> None:
    memory = made(heads=3)
    assert memory.query.weight.shape == (2 * 2 * 6, 8)
    with torch.no_grad():
        memory.keys.copy_(memory.keys[:1].expand_as(memory.keys))
    s1, _ = memory.scores(drawn(N, 8))
    close(s1[:, 0], s1[:, 1])
    assert not torch.allclose(s1[:, 0], s1[:, 2])


# 5. The pool


def window(pool, layer, share):
    side = pool.side(share)
    return set(pool.rows(torch.arange(side**2), layer=layer, side=side).tolist())


@pytest.mark.parametrize("layers", [2, 3, 4, 7])
@pytest.mark.parametrize("side", [1, 5, 48])
def test_windows_of_one_share_each_are_disjoint_and_cover_the_pool(layers, side) -> None:
    pool = Pool(side, layers=layers, d_v=1, d_p=0)
    windows = [window(pool, layer, 1 / layers) for layer in range(layers)]
    assert sum(map(len, windows)) == len(set.union(*windows)) == layers * side**2


@pytest.mark.parametrize("layers", [1, 4, 9])
def test_windows_of_the_whole_pool_coincide_where_its_layers_are_a_square(layers) -> None:
    pool = Pool(5, layers=layers, d_v=1, d_p=0)
    assert all(window(pool, layer, 1.0) == set(range(pool.T)) for layer in range(layers))


def test_neighbours_overlap_and_the_last_window_begins_anew() -> None:
    pool = Pool(6, layers=3, d_v=1, d_p=0)
    assert pool.side(0.5) == 7  # 54 rows hold a square of 49
    assert window(pool, 0, 0.5) & window(pool, 1, 0.5) == set(range(36, 49))
    assert window(pool, 2, 0.5) == {*range(72, 108), *range(13)}


def test_memories_of_a_model_learn_into_one_pool() -> None:
    pool = Pool(6, layers=2, d_v=4, d_p=4, std=0.5).to(DOUBLE)
    memories = nn.ModuleList(made(8, pool, layer=layer, share=0.5) for layer in range(2))
    assert sum(param is pool.values for param in memories.parameters()) == 1
    h = drawn(N, 8)
    torch.autograd.backward(sum(memory(h).sum() for memory in memories))
    touched = set(torch.cat([memory.rows(h).flatten() for memory in memories]).tolist())
    assert set(pool.values.grad.any(1).nonzero().flatten().tolist()) == touched
    assert {row < 36 for row in touched} == {True, False}
    rest, tables = groups(memories, 1e-3)
    assert {id(param) for param in tables["params"]} == {id(pool.values), id(pool.gates)}
    assert len(rest["params"]) + 2 == len(list(memories.parameters()))


# Leading vectors


def test_leading_vectors_are_right_from_the_start_and_positive_with_the_cores() -> None:
    memory = made()
    C = memory.core.detach().sum(0)[0].numpy()
    left, sizes, right = np.linalg.svd(C)
    close(memory.u[0], np.abs(left[:, 0]), rtol=1e-6, atol=1e-6)  # cores above zero have a leading pair above zero
    close(memory.v[0], np.abs(right[0]), rtol=1e-6, atol=1e-6)
    assert float(memory.u[0] @ memory.core.detach().sum(0)[0] @ memory.v[0]) == pytest.approx(sizes[0], rel=1e-6)


def test_leading_vectors_turn_with_the_cores_and_do_not_jump() -> None:
    memory = made()
    rotation = lambda angle: torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # noqa: E731
    core = torch.diag(torch.tensor([2.0, 1.0], dtype=DOUBLE))
    gaps = []
    for angle in np.linspace(0, 2 * np.pi, 200):
        before = memory.u.clone(), memory.v.clone()
        with torch.no_grad():
            memory.core.copy_((rotation(angle) @ core / 2).expand_as(memory.core))
        memory.refresh()
        gaps.append(max(float((new - old).norm()) for new, old in zip((memory.u, memory.v), before, strict=True)))
    assert max(gaps[1:]) < 0.05  # once around in 200 steps of 0.03


def test_refresh_is_needed_and_forgets_nothing_else() -> None:
    memory = made()
    with torch.no_grad():
        memory.core.copy_(drawn(*memory.core.shape, seed=3))
    stale = copy.deepcopy(memory.state_dict())
    memory.refresh()
    changed = {name for name, part in memory.state_dict().items() if not torch.equal(part, stale[name])}
    assert changed == {"u", "v"}
    left, _, right = np.linalg.svd(memory.core.detach().sum(0)[0].numpy())
    assert abs(float(memory.u[0] @ torch.as_tensor(left[:, 0]))) == pytest.approx(1)
    assert abs(float(memory.v[0] @ torch.as_tensor(right[0]))) == pytest.approx(1)


def test_the_penalty_is_of_all_singular_values_but_the_first() -> None:
    cores = drawn(c, H, 3, 3)
    sizes = np.linalg.svd(cores.sum(0).numpy(), compute_uv=False)[:, 1:]
    close(tucker.spectral_penalty(cores), np.mean(np.maximum(sizes - 0.15, 0) ** 2))
    assert float(tucker.spectral_penalty(cores[..., :1, :1])) == 0


# Scales, errors


def test_balanced_rows_speak_as_loud_as_a_feed_forward_layer() -> None:
    D, m, d, layers = 64, 32, 40, 5
    std = balanced_std(D, m=m, heads=1, d_v=d, d_p=d, layers=layers, ffn=3)
    rows, listening, scores = std * drawn(400, m, 2 * d), drawn(400, d, seed=1), drawn(400, m, seed=2).sign()
    z = torch.einsum("nmd,nd->nm", rows[..., :d], listening)
    said = torch.einsum("nm,nmd->nd", z * scores, rows[..., d:]) @ (drawn(d, D, seed=3) / d**0.5)  # W_v
    assert float(said.var()) == pytest.approx(0.2 * 3 * D / (d * layers), rel=0.1)


def test_the_claims_arms_read_the_bytes_that_a_count_by_hand_gives() -> None:
    sizes = {"layers": 4, "symbols": 64, "labels": 256}
    around = 2 * 64 + (2 * 64 * 64 + 64 + 64)  # norm and feed-forward layer of a block of width 64
    inner = 2 * 16 * 64 + 2 * 2 * 67 * 16 + 2 * 16 + 2 * 2 * 2 + 2 * 64 * 64  # W_q, keys, norms, cores, W_p and W_v
    with_memory = associator(64, hidden=64, n=48, d_p=64, **sizes)
    assert with_memory.activated_bytes() == 4 * (4 * (around + inner + 8 * 128) + 8 * 8)
    assert associator(64, hidden=186, **sizes).activated_bytes() == 4 * 4 * (2 * 64 + 2 * 64 * 186 + 186 + 64)


def test_sizes_that_do_not_fit_are_refused() -> None:
    refused(lambda: made(layer=2), "layer=2", "0 to 1")
    refused(lambda: made(cores=3), "cores=3", "d_v=4")
    refused(lambda: made(share=1.5), "share=1.5")
    refused(lambda: made(m=0), "m=0")
    refused(lambda: Pool(0, layers=1, d_v=1, d_p=0), "n=0")
    refused(lambda: ProductKeyMemory(8, n=4, K=7), "K=7", "even")

"""HCAM against the authors' module restated in numpy, and its writer against chunks cut from the text by hand.

`official` restates google-deepmind/deepmind-research at 5e35a17cf47f9502d368f9893234e88af41a10ec,
hierarchical_transformer_memory/hierarchical_attention/htm_attention.py, in float64 (haiku itself was not run): the
coarse level, -1e6 before the top k, and haiku's multi-head attention, whose biases start at zero. That file holds no
writer; `chunks` is the paper's text: mean summaries, complete chunks only, the oldest slot overwritten.
"""

from __future__ import annotations

import copy
import itertools
import math

import pytest

torch = pytest.importorskip("torch")
import numpy as np

from loci.core.checking import refused
from loci.state.hcam import HCAM, position_code
from tests.state.drawn import DOUBLE, drawn, fresh

torch.set_num_threads(1)
B, D, M, C, k, H = 2, 12, 7, 5, 4, 3


def made(*, nudge=0.1, dtype=DOUBLE, **options):
    options = {"M": M, "C": C, "k": k, "heads": H, "piece": 9} | options
    mixer = fresh(HCAM, D, **options)
    with torch.no_grad():
        for at, param in enumerate(mixer.parameters()):
            param.add_(nudge * drawn(*param.shape, seed=100 + at))  # biases that are not zero
    return mixer.to(dtype)


def code(C, D):
    """Sinusoids of positions counted backwards, rounded to float32 as a mixer keeps them."""
    table = np.zeros((C, D))
    for place, f in itertools.product(range(C), range(D // 2)):
        angle = (C - 1 - place) * 10000.0 ** (-2 * f / D)
        table[place, f], table[place, D // 2 + f] = math.sin(angle), math.cos(angle)
    return table.astype(np.float32).astype(np.float64)


def soft(z):
    return np.exp(z - z.max()) / np.exp(z - z.max()).sum()


def official(mixer, asked, contents, readable, *, keys=None):
    """One query (D,) on chunks (J, C, D): the authors' module, query by query, head by head."""
    weight = {name: param.detach().double().numpy() for name, param in mixer.named_parameters()}
    k, d = mixer.k, D // mixer.heads
    keys = contents.mean(1) if keys is None else keys
    logits = (keys @ weight["coarse_key.weight"].T) @ (weight["coarse_query.weight"] @ asked) / math.sqrt(D)
    logits = np.where(readable, logits, -1e6)
    chosen = np.argsort(-logits, kind="stable")[:k]
    weights = soft(logits[chosen])
    found = np.zeros(D)
    for place, share in zip(chosen, weights, strict=True):
        rows = contents[place] + code(contents.shape[1], D)
        query = weight["query.weight"] @ asked + weight["query.bias"]
        key, value = rows @ weight["key.weight"].T, rows @ weight["value.weight"].T + weight["value.bias"]
        heads = [slice(head * d, (head + 1) * d) for head in range(mixer.heads)]
        attended = [soft(key[:, head] @ query[head] / math.sqrt(d)) @ value[:, head] for head in heads]
        found += share * (weight["out.weight"] @ np.concatenate(attended) + weight["out.bias"])
    return found


def chunks(rows, M, C):
    """The last M complete chunks of rows (T, D), oldest first."""
    whole = len(rows) // C
    return [rows[i * C : (i + 1) * C] for i in range(max(0, whole - M), whole)]


def normed(mixer, x):
    return mixer.norm(x).detach()


def stored(*, J=M, seed=3, dtype=DOUBLE):
    """Queries (B, 9, D) and a memory of J chunks, keys being means."""
    contents = drawn(B, J, C, D, seed=seed)
    return drawn(B, 9, D, seed=seed + 1).to(dtype), contents.mean(2).to(dtype), contents.to(dtype)


def everything(J=M, Q=9):
    return torch.ones(B, Q, J, dtype=torch.bool)


def close(got, want, **within):
    torch.testing.assert_close(got, want, **within)


# Reading


@pytest.mark.parametrize("form", ["recall", "read_plainly"])
@pytest.mark.parametrize("chosen", [1, k, M])
def test_reading_is_the_authors_module(form, chosen):
    mixer = made(k=chosen)
    asked, keys, contents = stored()
    readable = torch.rand(B, 9, M, generator=torch.Generator().manual_seed(5)) < 0.6
    readable[..., 0] = True
    found = getattr(mixer, form)(asked, keys, contents, readable).detach().numpy()
    for row, query in itertools.product(range(B), range(9)):
        due = official(mixer, asked[row, query].numpy(), contents[row].numpy(), readable[row, query].numpy())
        np.testing.assert_allclose(found[row, query], due, atol=1e-10)


def test_all_chunks_are_a_loop_over_all_chunks_in_float32():
    mixer = made(k=M, dtype=torch.float32)
    asked, keys, contents = stored(dtype=torch.float32)
    found = mixer.recall(asked, keys, contents, everything()).detach().numpy()
    for row, query in itertools.product(range(B), range(9)):
        due = official(mixer, *(part[row].double().numpy() for part in (asked[:, query], contents)), np.ones(M, bool))
        np.testing.assert_allclose(found[row, query], due, atol=1e-5, rtol=1e-5)


def test_a_chunk_of_one_row_is_read_whole():
    mixer = made(C=1, heads=1, k=M)
    contents = drawn(B, M, 1, D)
    asked = drawn(B, 9, D, seed=2)
    relevance = mixer.coarse_query(asked) @ mixer.coarse_key(contents[:, :, 0]).mT / math.sqrt(D)
    rows = mixer.out(mixer.value(contents[:, :, 0] + mixer.code))
    close(mixer.recall(asked, contents[:, :, 0], contents, everything()), relevance.softmax(-1) @ rows)


def test_there_are_two_softmaxes_and_not_one():
    mixer = made(k=2)
    asked, keys, contents = stored()
    with torch.no_grad():
        mixer.coarse_query.weight.zero_()  # both chunks weigh a half whatever is in them
        mixer.query.weight.zero_()
        mixer.query.bias.copy_(50 * drawn(D, seed=9))  # inside a chunk one row has nearly all
    found = mixer.recall(asked, keys[:, :2], contents[:, :2], everything(2))
    parts = [mixer.read_plainly(asked, *(p[:, :2] for p in (keys, contents)), only(place)) for place in range(2)]
    close(found, (parts[0] + parts[1]) / 2)


def only(place, J=2):
    return (torch.arange(J) == place).expand(B, 9, J)


def test_a_masked_chunk_changes_nothing_bit_for_bit():
    mixer = made()
    asked, keys, contents = stored()
    readable = everything().clone()
    readable[..., 2] = False
    before = mixer.recall(asked, keys, contents, readable)
    keys[:, 2], contents[:, 2] = 1e6, 1e6
    assert torch.equal(mixer.recall(asked, keys, contents, readable), before)
    assert not torch.equal(mixer.recall(asked, keys, contents, everything()), before)


@pytest.mark.parametrize("form", ["recall", "read_plainly"])
def test_who_may_read_nothing_finds_nothing_and_gradients_stay_finite(form):
    mixer = made()
    asked, keys, contents = stored()
    readable = everything().clone()
    readable[0] = False
    found = getattr(mixer, form)(asked.requires_grad_(), keys, contents, readable)
    assert not found[0].any()
    assert found[1].all()
    torch.autograd.backward(found.square().sum())
    assert not asked.grad[0].any()
    assert all(param.grad is None or param.grad.isfinite().all() for param in mixer.parameters())


def test_fewer_chunks_than_k_are_read_as_if_they_were_all():
    asked, keys, contents = stored()
    few = made(k=k).recall(asked, keys, contents, everything() & (torch.arange(M) < 2))
    two = made(k=2, M=2).recall(asked, keys[:, :2], contents[:, :2], everything(2))
    close(few, two)


def test_each_moment_chooses_for_itself():
    mixer = made(k=1)
    asked, keys, contents = stored()
    together = mixer.recall(asked, keys, contents, everything())
    chosen = mixer._choose(asked, keys, everything())[1]
    assert len(chosen[0].unique()) > 1
    for at in range(9):
        close(together[:, at : at + 1], mixer.recall(asked[:, at : at + 1], keys, contents, everything(Q=1)))


def test_autocast_chooses_the_same_chunks_and_float16_can_forbid():
    mixer = made(dtype=torch.float32)
    asked, keys, _ = stored(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        weights, chosen = mixer._choose(asked, keys, everything())
    close((weights, chosen), mixer._choose(asked, keys, everything()), rtol=0, atol=0)
    half = mixer.half()._choose(asked.half(), keys.half(), only(2, M))
    assert half[1][..., 0].unique().tolist() == [2]
    assert half[0][..., 0].unique().tolist() == [1.0]


def test_positions_are_counted_from_the_end():
    close(position_code(C, D), torch.from_numpy(code(C, D)), atol=1e-7, rtol=0)
    assert position_code(C, D)[-1].tolist() == [0.0] * (D // 2) + [1.0] * (D // 2)


# Writing


@pytest.mark.parametrize("T", [3, 5, 34, 35, 36, 71, 200])
def test_what_is_kept_is_the_last_complete_chunks_bit_for_bit(T):
    mixer, x = made(dtype=torch.float32), drawn(B, T, D).float()
    rows = normed(mixer, x)
    stepped = mixer.scan_by_steps(x, mixer.initial_state(B))[1]
    for state in (stepped, mixer(x)[1], mixer.remember(x)):
        keys, contents, gathered, counts = state
        assert counts.tolist() == [T] * B
        for row in range(B):
            due = chunks(rows[row], M, C)
            first = max(0, T // C - M)
            for place, chunk in enumerate(due):
                slot = (first + place) % M  # the oldest is overwritten
                assert torch.equal(contents[row, slot], chunk)
                assert torch.equal(keys[row, slot], chunk.unsqueeze(0).mean(1)[0])
            assert int(contents[row].abs().sum((1, 2)).count_nonzero()) == len(due)
            rest = T % C
            assert torch.equal(gathered[row, :rest], rows[row, T - rest :])
            assert not gathered[row, rest:].any()


@pytest.mark.parametrize("form", ["scan", "scan_by_steps"])
def test_outputs_are_those_of_chunks_cut_by_hand_read_before_they_are_written(form):
    mixer, x = made(M=3, k=2), drawn(B, 40, D)
    rows = normed(mixer, x).numpy()
    y = getattr(mixer, form)(x, mixer.initial_state(B))[0].detach().numpy()
    for row, t in itertools.product(range(B), range(40)):
        held = chunks(rows[row, :t], 3, C)  # moment t itself is not in them
        padded = np.concatenate([np.array(held).reshape(-1, C, D), np.full((2, C, D), 1e3)])
        readable = np.arange(len(padded)) < len(held)
        found = official(mixer, rows[row, t], padded, readable) if held else 0.0
        np.testing.assert_allclose(y[row, t], x[row, t].numpy() + found, atol=1e-9)


def test_the_moment_that_completes_a_chunk_reads_it_no_more_than_those_before():
    mixer, x = made(), drawn(B, C + 1, D)
    for y in (mixer(x)[0], mixer.scan_by_steps(x, mixer.initial_state(B))[0]):
        assert torch.equal(y[:, :C], x[:, :C])
        assert (y[:, C] != x[:, C]).all()


def test_rows_of_unequal_age_and_resets_within_chunks_are_rows_alone():
    mixer, T = made(M=2, k=2, piece=4), 33
    x = drawn(3, T, D)
    ages = (0, 3, 14)
    states = [mixer.remember(drawn(1, age, D, seed=20 + age)) for age in ages]
    state = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
    reset = torch.rand(3, T, generator=torch.Generator().manual_seed(8)) < 0.1
    reset[1, 0], reset[2, T - 1], reset[0, 6:9] = True, True, True
    y, last = mixer(x, state, reset=reset)
    close(mixer.remember(x, state, reset=reset), last, rtol=0, atol=0)
    for row in range(3):
        alone, out = states[row], []
        for t in range(T):
            alone = mixer.initial_state(1) if reset[row, t] else alone
            found, alone = mixer.step(x[row : row + 1, t], alone)
            out.append(found)
        close(y[row : row + 1], torch.stack(out, 1))
        close(tuple(part[row : row + 1] for part in last), alone)


def test_a_step_that_completes_nothing_hands_the_chunks_on_and_copies_none():
    mixer, x = made(), drawn(B, C, D)
    state = mixer.initial_state(B)
    for t in range(C):
        before, state = state, mixer.step(x[:, t], state)[1]
        shared = state[1].data_ptr() == before[1].data_ptr()
        assert shared == (t < C - 1)


# Gradients


def test_no_gradient_enters_what_is_stored_and_all_else_has_one():
    for form in ("scan", "scan_by_steps"):
        mixer, x = made(), drawn(B, 30, D).requires_grad_()
        state = mixer.remember(drawn(B, 12, D, seed=6))
        for part in state[:3]:
            part.requires_grad_()
        y, last = getattr(mixer, form)(x, state)
        assert not any(part.requires_grad for part in last)
        torch.autograd.backward((y * drawn(*y.shape, seed=7)).sum())
        assert all(part.grad is None for part in state)
        assert all(param.grad is not None and param.grad.any() for param in mixer.parameters())
        assert x.grad.abs().sum(2).all()


def test_a_moments_gradient_stays_with_it():
    mixer, x = made(), drawn(1, 30, D).requires_grad_()
    (back,) = torch.autograd.grad(mixer(x)[0][0, -1].sum(), x)
    assert not back[0, :-1].any()
    assert back[0, -1].any()


def test_gradients_of_reading_are_those_of_finite_differences():
    mixer, (asked, keys, contents) = made(), stored()
    names, values = zip(*mixer.named_parameters(), strict=True)

    def read(asked, *values):
        parts = dict(zip(names, values, strict=True))
        return torch.func.functional_call(Reading(mixer), {f"mixer.{n}": v for n, v in parts.items()}, (asked, keys, contents))  # fmt: skip

    values = tuple(value.detach().clone().requires_grad_() for value in values if value is not None)
    assert torch.autograd.gradcheck(read, (asked[:, :2].clone().requires_grad_(), *values), rtol=1e-5, atol=1e-7)


class Reading(torch.nn.Module):
    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    def forward(self, asked, keys, contents):
        return self.mixer.recall(asked, keys, contents, everything(Q=asked.shape[1]))


def test_gradients_of_both_readings_are_equal():
    grads = []
    for form in ("recall", "read_plainly"):
        mixer, (asked, keys, contents) = copy.deepcopy(made()), stored()
        found = getattr(mixer, form)(asked.requires_grad_(), keys, contents, everything())
        used = [param for name, param in mixer.named_parameters() if not name.startswith("norm")]
        grads.append(torch.autograd.grad((found * drawn(*found.shape, seed=8)).sum(), [asked, *used]))
    close(*grads)


# Starts and errors


def test_projections_start_with_the_variance_of_the_paper():
    mixer = fresh(HCAM, 256, M=2, C=2, k=1).requires_grad_(requires_grad=False)
    for part in (mixer.coarse_query, mixer.coarse_key, mixer.query, mixer.key, mixer.value, mixer.out):
        assert float(part.weight.var()) == pytest.approx(2 / 256, rel=0.03)
        assert part.bias is None or not part.bias.any()
    assert float(mixer.query.weight.abs().max()) <= 2 * math.sqrt(2 / 256) / 0.8796


def test_sizes_that_are_no_memory_are_refused():
    refused(lambda: HCAM(7), "D=7", "even")
    refused(lambda: HCAM(8, M=3, k=4), "k=4", "M=3", "k <= 3")
    refused(lambda: HCAM(8, heads=3), "heads=3", "D=8")
    refused(lambda: HCAM(8, C=0), "C=0")
    refused(lambda: made().remember(drawn(B, 3, D + 1)), str(D + 1))

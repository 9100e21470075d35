"""Prot-xLSTM: the authors' logits, places by hand, one state however long; texts taken apart and put together again.

OFFICIAL is the output of ml-jku/Prot-xLSTM at 5aa8ddf609300044b9d263d437425f54fccd7237, `xLSTMLMModel` with "rot_1d" and
the parallel backend on the CPU, in float64, its calls of .float() too, with `wave` for weights.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from loci.core import formula
from loci.lab.tasks.protein_families import Placeless, surprise, texts
from loci.lab.tasks.proteins import EOS, LENGTH, SYMBOLS
from loci.state.decoder.prot_xlstm import ProtXLSTM
from loci.state.fill_in_the_middle import drawn_spans, moved, restored
from loci.state.in_context_molecules import joined, permuted
from loci.state.mixer import state_bytes

torch.set_num_threads(1)
DOUBLE = torch.float64
CLS, FIM_EOS, MASKS = 0, 2, tuple(range(33, 38))

OFFICIAL = {
    "sum": 78.57152817541987,
    "plain": [-4.203887741473381, -5.013389187187171, -4.748084180225924, -3.4648507172426566,
              -1.4387976227881687, 0.8957152603095986, 3.038198259910489, 4.529330452236365],
    "moved": [1.9137863781851556, 3.3891313915591796, 4.137890027414175, 3.999538020973376,
              3.0037362710242053, 1.3639719229823448, -0.5682105416971688, -2.3785759413351553],
}  # fmt: skip


def wave(*shape, k, scale=0.5):
    return (scale * torch.sin(k * torch.arange(1, math.prod(shape) + 1, dtype=DOUBLE))).reshape(shape)


def model(*, seed=0, nudge=0.1, **options):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        made = ProtXLSTM(38, **({"D": 8, "heads": 2, "depth": 2, "chunk": 5} | options)).to(DOUBLE)
        for param in made.parameters():
            param.add_(torch.randn_like(param) * nudge)
    return made


def letters(*shape, seed=1):
    return torch.randint(4, 29, shape, generator=torch.Generator().manual_seed(seed))


def proteins(batch, *lengths, seed=1):
    """Homologs of these lengths, the <cls> of each among them."""
    tokens = letters(batch, sum(lengths), seed=seed)
    for start in np.cumsum([0, *lengths[:-1]]):
        tokens[:, start] = CLS
    return tokens


def close(got, want, within=1e-10):
    torch.testing.assert_close(got, want, rtol=0, atol=within)


def apart(one, two):
    return float((one - two).detach().abs().max()) > 1e-6


# The model


@torch.no_grad()
def test_logits_are_the_authors():
    made = ProtXLSTM(38, D=32, heads=2, depth=2, chunk=3).to(DOUBLE)
    made.embedding.weight.copy_(wave(38, 32, k=0.9))
    made.head.weight.copy_(wave(38, 32, k=0.8))
    made.norm.weight.copy_(1 + wave(32, k=1.01))
    for n, (norm, layer) in enumerate(zip(made.norms, made.mixers(), strict=True)):
        k = 1.1 + n / 10
        norm.weight.copy_(1 + wave(32, k=k))
        layer.skip.copy_(wave(64, k=k + 0.1))
        layer.up.weight.copy_(wave(128, 32, k=k + 0.2))
        for j, part in enumerate((layer.q, layer.k, layer.v)):
            part.weight.copy_(wave(16, 4, 4, k=k + 0.3 + j / 10).transpose(1, 2))
        layer.conv.taps.copy_(wave(64, 4, k=k + 0.6).T)
        layer.conv.bias.copy_(wave(64, k=k + 0.7))
        layer.gates.weight.copy_(torch.cat([wave(2, 192, k=k + 0.8), wave(2, 192, k=k + 1.0)]))
        layer.gates.bias.copy_(torch.cat([wave(2, k=k + 0.9), wave(2, k=k + 1.1)]))
        layer.norm.weight.copy_(1 + wave(64, k=k + 1.2))
        layer.down.weight.copy_(wave(32, 64, k=k + 1.3))
    tokens = torch.tensor([[0, 7, 5, 9, 0, 7, 5, 4, 4], [0, 7, 33, 9, 8, 2, 33, 5, 5]])
    places = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 4, 5, 0, 2, 2, 3]])
    logits = made.read_at(tokens, places)[0]
    close(logits[0, -1, :8], torch.tensor(OFFICIAL["plain"], dtype=DOUBLE), 1e-9)
    close(logits[1, -1, :8], torch.tensor(OFFICIAL["moved"], dtype=DOUBLE), 1e-9)
    assert float(logits.sum()) == pytest.approx(OFFICIAL["sum"], abs=1e-7)
    close(made(tokens[:1])[0], logits[:1])


def test_places_begin_anew_with_each_protein_and_a_mask_takes_none():
    made, state = model(), model().initial_state(2)
    tokens = torch.tensor([[0, 9, 9, 0, 0, 9, 33, 9, 34, 33, 9], [9, 9, 0, 9, 9, 9, 9, 9, 9, 9, 9]])
    want = torch.tensor([[0, 1, 2, 0, 0, 1, 2, 2, 3, 3, 3], [0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8]])
    assert torch.equal(made.places(tokens, state), want)
    assert made(tokens)[1][-1].tolist() == [4, 9]
    for cut in range(1, 11):
        between = made(tokens[:, :cut])[1]
        assert torch.equal(made.places(tokens[:, cut:], between), want[:, cut:])


@pytest.mark.parametrize("chunk", [1, 4, 64])
@pytest.mark.parametrize("gates", [1.0, 50.0])
def test_a_token_at_a_time_is_the_whole_text(chunk, gates):
    made, tokens = model(chunk=chunk), proteins(2, 9, 7, 8)
    with torch.no_grad():
        for layer in made.mixers():
            layer.gates.bias.copy_(gates * wave(4, k=1.3, scale=1.0))
            layer.gates.weight.mul_(gates)
    whole, last = made(tokens)
    state, said = made.initial_state(2), []
    for token in tokens.split(1, 1):
        logits, state = made(token, state)
        said.append(logits)
    close(torch.cat(said, 1), whole, 1e-8)
    assert torch.equal(state[-1], last[-1])


def test_only_differences_of_places_count_until_gates_look():
    tokens, places = proteins(2, 9), torch.arange(9).expand(2, 9)
    for seen in (False, True):
        made = model()
        if not seen:
            for layer in made.mixers():
                torch.nn.init.zeros_(layer.gates.weight)  # as at the start
        here, there = (made.read_at(tokens, places + shift)[0] for shift in (0, 20))
        assert apart(here, there) is seen
        assert apart(here, made.read_at(tokens, 2 * places)[0])


def test_places_are_told_apart_up_to_the_longest():
    made, tokens = model(longest=6), proteins(2, 9)
    near, far = (made.read_at(tokens, torch.full_like(tokens, place))[0] for place in (5, 1000))
    close(near, far, 0.0)
    places = torch.arange(9).expand(2, 9)
    close(made(tokens)[0], made.read_at(tokens, places.clamp(max=5))[0], 0.0)
    assert made(tokens)[1][-1].tolist() == [9, 9]


def test_the_state_after_ten_and_ten_thousand_tokens_is_of_one_size():
    made = model().float()
    with torch.no_grad():
        short, long = (made(proteins(1, *[10] * count))[1] for count in (1, 1000))
    assert state_bytes(short) == state_bytes(long) == formula.evaluate(ProtXLSTM.card.bytes, made.shapes(long))
    assert all(part.isfinite().all() for part in long)


def test_reading_on_behind_a_mask_is_at_the_places_that_were():
    made, text = model(), proteins(1, 20)[0]
    tokens, places = moved(text, [(5, 9), (12, 13)], eos=FIM_EOS, masks=MASKS)
    tokens, places = tokens.unsqueeze(0), places.unsqueeze(0)
    whole, last = made.read_at(tokens, places)
    gap = int((tokens[0] == MASKS[0]).nonzero()[1])  # the first gap's mask, behind eos
    state = made.at(made.read_at(tokens[:, :gap], places[:, :gap])[1], torch.tensor([5]))
    inside, between = made(tokens[:, gap : gap + 5], state)
    close(inside, whole[:, gap : gap + 5])
    behind, end = made(tokens[:, gap + 5 :], made.at(between, torch.tensor([12])))
    close(behind, whole[:, gap + 5 :])
    close(end, last)


def test_a_gap_is_filled_as_by_reading_all_again_at_the_places_that_were():
    made, text = model(seed=4), proteins(1, 20)[0]
    tokens, places = moved(text, [(5, 9)], eos=FIM_EOS, masks=MASKS)
    tokens, places = tokens[:-4].unsqueeze(0), places[:-4].unsqueeze(0)  # up to the mask of the gap
    state = made.at(made.read_at(tokens[:, :-1], places[:, :-1])[1], torch.tensor([5]))
    said, state = made.generate(tokens[:, -1:], 4, state=state)
    for place in (5, 6, 7, 8):
        one = made.read_at(tokens, places)[0][:, -1:].argmax(-1)
        tokens, places = torch.cat([tokens, one], 1), torch.cat([places, torch.tensor([[place]])], 1)
    assert torch.equal(said, tokens[:, -4:])
    assert all(token not in (CLS, *MASKS) for token in said[0].tolist()), "another seed: places of these are others"
    assert state[-1].tolist() == [8]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: model(heads=16), "heads=16 have 1 channels"),
        (lambda: model(heads=3), "heads=3 does not divide"),
        (lambda: model(depth=0), "depth=0"),
        (lambda: model(longest=0), "longest=0"),
        (lambda: model(separator=38), "separator=38"),
        (lambda: model(separator=33), "separator=33"),
        (lambda: model(masks=[40]), r"masks=\[40\]"),
        (lambda: model().read_at(letters(2, 3), letters(2, 4)), r"places is \(2, 4\)"),
        (lambda: model().read_at(letters(2, 3), letters(2, 3) - 30), "none below 0"),
        (lambda: model().read_at(letters(2, 3), letters(2, 3).float()), "float32"),
        (lambda: model().at(model().initial_state(2), torch.tensor([1])), r"places is \[1\]"),
        (lambda: model().read_at(letters(2, 3) + 38, letters(2, 3)), "knows 0 to 37"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# Fill in the middle


def test_spans_put_back_are_the_text_and_every_token_kept_its_place():
    random, counts = torch.Generator().manual_seed(0), np.zeros(len(MASKS) + 1)
    for draw in range(10_000):
        N = 7 + draw % 30
        text = torch.arange(100, 100 + N)  # so that a token says where it was
        spans = drawn_spans(N, random, most=len(MASKS))
        tokens, places = moved(text, spans, eos=FIM_EOS, masks=MASKS)
        assert torch.equal(restored(tokens, eos=FIM_EOS, masks=MASKS), text)
        ids, where = tokens.tolist(), places.tolist()
        assert all(token - 100 == place for token, place in zip(ids, where, strict=True) if token >= 100)
        for mask, (start, end) in zip(MASKS, spans, strict=False):
            gap, told = (n for n, token in enumerate(ids) if token == mask)
            assert where[gap] == where[told] == start
            assert ids[told + 1 : told + 1 + end - start] == list(range(100 + start, 100 + end))
            assert 1 <= start < end <= start + max(N * 0.2, 1)
        assert len(ids) == N + (2 * len(spans) + 1 if spans else 0)
        counts[len(spans)] += 1
    weights = np.array([1 / math.factorial(n) for n in range(len(MASKS) + 1)])
    share = weights / weights.sum()
    assert counts @ np.arange(6) / 10_000 == pytest.approx(share @ np.arange(6), abs=0.04)  # 4 standard errors
    assert ((counts - 10_000 * share) ** 2 / (10_000 * share)).sum() < 20.5  # 0.1 % of chi-square, 5 degrees of freedom


def test_lengths_are_uniform_up_to_a_fifth_of_the_way():
    random, lengths = torch.Generator().manual_seed(2), []
    for _ in range(4000):
        spans = drawn_spans(60, random, most=1)
        lengths += [(60 - start, end - start) for start, end in spans if start <= 10]
    assert {length for way, length in lengths if way >= 55} == set(range(1, 11))
    assert max(length / max(int(way * 0.2) - 1, 1) for way, length in lengths) == 1


@pytest.mark.parametrize("N", [0, 1, 2, 3])
def test_the_shortest_texts_are_taken_apart_too(N):
    random, text, most = torch.Generator().manual_seed(0), torch.arange(100, 100 + N), 0
    for _ in range(200):
        spans = drawn_spans(N, random, most=5)
        assert torch.equal(restored(moved(text, spans, eos=2, masks=MASKS).tokens, eos=2, masks=MASKS), text)
        most = max(most, len(spans))
    assert most == max(N - 1, 0)


def test_gaps_may_be_told_in_any_order():
    text = torch.tensor([50, 33, 51, 34, 2, 34, 60, 61, 33, 70])
    assert restored(text, eos=2, masks=MASKS).tolist() == [50, 70, 51, 60, 61]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: drawn_spans(9, torch.Generator(), most=5, share=0.0), "share=0.0"),
        (lambda: drawn_spans(-1, torch.Generator(), most=5), "N=-1"),
        (lambda: moved(letters(9), [(3, 3)], eos=2, masks=MASKS), r"spans=\[\(3, 3\)\]"),
        (lambda: moved(letters(9), [(3, 5), (4, 6)], eos=2, masks=MASKS), "in order"),
        (lambda: moved(letters(9), [(3, 10)], eos=2, masks=MASKS), "of 9 tokens"),
        (lambda: moved(letters(9), [(1, 2), (3, 4)], eos=2, masks=(33,)), "at most 1"),
        (lambda: moved(letters(9) * 0 + 2, [], eos=2, masks=MASKS), "holds eos=2"),
        (lambda: moved(letters(9).float(), [], eos=2, masks=MASKS), "float32"),
        (lambda: restored(torch.tensor([9, 33, 9]), eos=2, masks=MASKS), r"gaps \[33\]"),
        (lambda: restored(torch.tensor([9, 2, 9]), eos=2, masks=MASKS), "begins with its mask"),
        (lambda: restored(torch.tensor([9, 33, 2, 9, 33, 9]), eos=2, masks=MASKS), "begins with its mask"),
        (lambda: restored(torch.tensor([33, 2, 33, 9, 33]), eos=2, masks=MASKS), "one for each gap"),
    ],
)
def test_what_cannot_be_moved_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# Molecules


def test_orders_of_molecules_are_as_likely_and_all_are_kept():
    molecules = [torch.tensor([7, 8]), torch.tensor([9]), torch.tensor([5, 5, 5])]
    text, random, seen = joined(molecules, separator=0), torch.Generator().manual_seed(0), {}
    for _ in range(1200):
        said = permuted(text, random, separator=0)
        parts = " ".join(map(str, said.tolist())).split(" 0 ")
        assert sorted(parts) == ["5 5 5", "7 8", "9"]
        seen[tuple(parts)] = seen.get(tuple(parts), 0) + 1
    assert len(seen) == 6
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 20.5
    assert torch.equal(permuted(molecules[0], random, separator=0), molecules[0])


def test_what_is_no_text_of_molecules_is_refused():
    for call, words in (
        (lambda: joined([], separator=0), "no molecules"),
        (lambda: joined([torch.tensor([1, 0])], separator=0), "separator=0"),
        (lambda: permuted(torch.ones(2, 2).long(), torch.Generator(), separator=0), r"\(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


# The claim's task


def test_surprise_is_that_of_each_letter_in_its_protein():
    tokens = texts(3, np.random.default_rng(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = ProtXLSTM(SYMBOLS, D=8, heads=2, depth=1, separator=EOS, masks=())
    nats = surprise(made, tokens)
    assert nats.shape == (3, 9, LENGTH)
    chances = made(tokens)[0].log_softmax(-1)
    for protein, letter in ((0, 0), (4, 7), (8, 29)):
        place = protein * (LENGTH + 1) + 1 + letter
        want = -chances[torch.arange(3), place - 1, tokens[:, place]]
        torch.testing.assert_close(nats[:, protein, letter], want)


def test_the_control_knows_no_places():
    tokens = texts(2, np.random.default_rng(0))
    made = Placeless(SYMBOLS, D=8, heads=2, depth=1, separator=EOS, masks=())
    close(made(tokens)[0], made.read_at(tokens, torch.zeros_like(tokens))[0], 0.0)
    assert state_bytes(made(tokens)[1]) == state_bytes(made.initial_state(2))

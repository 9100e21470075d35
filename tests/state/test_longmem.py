"""LongMem: the card's exactness checks, its bank against brute force, its parts against what they are written from."""

from __future__ import annotations

import copy
import hashlib
import math

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn.functional import cross_entropy, gelu, layer_norm

from loci.core import formula
from loci.state.decoder.alibi import Backbone, biases, slopes
from loci.state.decoder.bank import Bank, empty
from loci.state.decoder.longmem import LongMem
from loci.state.decoder.side_network import SideNetwork

torch.set_num_threads(1)
DOUBLE = torch.float64
V, D, H = 11, 8, 2


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def text(batch, length, seed=0):
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(seed))


def model(*, seed=0, nudge=0.3, **options):
    """One whose side network has moved away from the backbone."""
    sizes = {"D": D, "heads": H, "depth": 4, "segment": 4, "capacity": 16, "K": 4, "chunk": 2} | options
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        made = LongMem(V, **sizes).to(DOUBLE)
        for param in made.parameters():
            param.add_(torch.randn_like(param) * nudge)
    return made


def close(got, want, within=1e-10):
    torch.testing.assert_close(got, want, rtol=0, atol=within)


def apart(one, two):
    return float((one - two).detach().abs().max()) > 1e-6


def fingerprint(module):
    parts = (part.detach().numpy().tobytes() for part in module.state_dict().values())
    return hashlib.sha256(b"".join(parts)).hexdigest()


# The card's checks


def test_1_a_shut_gate_or_an_empty_bank_is_the_side_network_without_memory():
    made, tokens = model(), text(3, 12)
    known = made.backbone.encoded(tokens[:, :4], 3)
    h = known.hidden[0]
    for number, layer in enumerate(made.side.layers):  # the layers' own forward knows no bank
        h = h + layer(h)[0] + known.hidden[2 * number + 2] - known.hidden[2 * number]
    close(made(tokens[:, :4])[0], made.side.norm(h) @ made.backbone.embedding.T)
    state = made(tokens[:, 4:])[1]
    assert apart(made(tokens[:, :4], state)[0], made(tokens[:, :4])[0])
    with torch.no_grad():
        made.side.layers[made.side.reads].gate.fill_(-60.0)
    close(made(tokens[:, :4], state)[0], made(tokens[:, :4])[0], 1e-6)


@pytest.mark.parametrize("writes", [1, 3, 9])
def test_2_chunks_found_are_those_of_brute_force(writes):
    S, C, n, d = 2, 7, 3, 4
    bank, past = empty(2, C=C, H=H, S=S, d=d, like=drawn(1)), []
    for turn in range(writes):
        k, v = drawn(2, H, 2 * S, d, seed=turn), drawn(2, H, 2 * S, d, seed=100 + turn)
        bank = bank.write(k, v)
        past += [k[:, :, :S], k[:, :, S:]]
    kept, q = past[-C:], drawn(2, H, 5, d, seed=50)
    slots = bank.nearest(q, n)
    for row in range(2):
        for head in range(H):
            for t in range(5):
                products = [float(q[row, head, t] @ keys[row, head].mean(0)) for keys in kept]
                best = sorted(range(len(kept)), key=lambda i: -products[i])[:n]
                found = {
                    tuple(bank.keys[row, slot, head].flatten().tolist())
                    for slot in slots[row, head, t].tolist()
                    if slot < bank.held[row]
                }
                assert found == {tuple(kept[i][row, head].flatten().tolist()) for i in best}


def test_3_all_tokens_found_one_by_one_is_full_attention_over_the_bank():
    M, d = 12, 4
    k, v, q = drawn(2, H, M, d, seed=1), drawn(2, H, M, d, seed=2), drawn(2, H, 5, d, seed=3)
    bank = empty(2, C=M, H=H, S=1, d=d, like=k).write(k, v)
    close(bank.read(q, M), nn.functional.scaled_dot_product_attention(q, k, v))


def test_4_layers_that_add_nothing_leave_the_backbones_last_state():
    made, tokens = model(), text(2, 4)
    with torch.no_grad():
        for layer in made.side.layers:
            for part in (layer.out.weight, layer.down.weight, layer.down.bias):
                part.zero_()
    known = made.backbone.encoded(tokens, 3)
    bank = Bank(*made(text(2, 12, seed=1))[1][:4])
    assert bank.written.tolist() == [6, 6]
    close(made.side.states(known.hidden, bank, 2)[-1], known.hidden[-1])


def test_5_nothing_in_the_bank_grows_stale_while_the_side_network_learns():
    made, tokens = model(), text(2, 21)
    before, side, first = fingerprint(made.backbone), fingerprint(made.side), made(tokens[:, :8])[1]
    optimizer, state = torch.optim.AdamW(made.parameters(), lr=0.01, weight_decay=0.1), None
    for _ in range(5):
        logits, state = made(tokens[:, :-1], state)
        optimizer.zero_grad()
        cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
    assert fingerprint(made.backbone) == before
    assert fingerprint(made.side) != side
    again = made(tokens[:, :8])[1]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    trained = {name for name, param in made.named_parameters() if param.grad is not None}
    assert trained == {f"side.{name}" for name, _ in made.side.named_parameters()}
    assert not any(part.requires_grad for part in state)


# Order and cuts


def test_a_segment_does_not_find_itself():
    made, tokens = model(), text(1, 4)
    _, empty_after_three = made(tokens[:, :3])
    assert empty_after_three[3].tolist() == [0]
    logits, state = made(tokens)
    assert state[3].tolist() == [2]
    shut = copy.deepcopy(made)
    with torch.no_grad():
        shut.side.layers[1].gate.fill_(-60.0)
    close(logits, shut(tokens)[0])
    assert apart(made(tokens, state)[0], logits)


@pytest.mark.parametrize("cut", range(14))
def test_a_text_may_be_cut_anywhere(cut):
    made, tokens = model(), text(2, 13)
    state = made(text(2, 6, seed=3))[1]
    whole, last = made(tokens, state)
    first, between = made(tokens[:, :cut], state)
    second, end = made(tokens[:, cut:], between)
    close(torch.cat([first, second], 1), whole)
    for one, two in zip(end, last, strict=True):
        close(one, two)


def test_rows_are_streams_of_their_own_wherever_their_segments_begin():
    made = model()
    states = [made(text(1, length, seed=length))[1] for length in (7, 0, 9, 3, 40)]
    tokens = text(5, 10)
    logits, last = made(tokens, tuple(torch.cat(parts) for parts in zip(*states, strict=True)))
    for row, state in enumerate(states):
        alone, after = made(tokens[row : row + 1], state)
        close(logits[row : row + 1], alone)
        for one, two in zip(last, after, strict=True):
            close(one[row : row + 1], two)


def test_generated_tokens_are_the_likeliest_of_one_reading():
    made, prompt = model(), text(2, 6)
    said, _ = made.generate(prompt, 7)
    logits, _ = made(torch.cat([prompt, said], 1))
    assert torch.equal(logits[:, 5:-1].argmax(-1), said)


def test_an_old_segment_changes_what_is_said_and_a_dropped_one_does_not():
    made, tokens = model(K=16, capacity=16), text(1, 24)
    near, far = tokens.clone(), tokens.clone()
    near[0, 5], far[0, 1] = (near[0, 5] + 1) % V, (far[0, 1] + 1) % V
    want = made(tokens)[0][:, 20:]  # the bank holds tokens 4 to 19 then
    assert torch.equal(made(far)[0][:, 20:], want)
    assert apart(made(near)[0][:, 20:], want)


# The parts


def test_the_bank_keeps_the_newest_chunks_of_each_row():
    bank = empty(2, C=3, H=1, S=2, d=1, like=drawn(1))
    early = torch.arange(4.0, dtype=DOUBLE).view(1, 1, 4, 1)
    alone = Bank(*(part[:1] for part in bank)).write(early, -early)
    mixed = Bank(*(torch.cat([one, part[1:]]) for one, part in zip(alone, bank, strict=True)))
    late = torch.arange(10.0, 14.0, dtype=DOUBLE).view(1, 1, 4, 1).expand(2, 1, 4, 1)
    full = mixed.write(late, -late)
    assert full.written.tolist() == [4, 2]
    assert full.keys[0].flatten().tolist() == [12, 13, 2, 3, 10, 11]
    assert full.keys[1].flatten().tolist() == [10, 11, 12, 13, 0, 0]
    assert full.means[0].flatten().tolist() == [12.5, 2.5, 10.5]
    assert torch.equal(full.values, -full.keys)
    assert mixed.written.tolist() == [2, 0]
    more = torch.arange(20.0, 28.0, dtype=DOUBLE).view(1, 1, 8, 1).expand(2, 1, 8, 1)
    last = full.write(more, -more)  # four chunks at once into three slots
    assert (
        sorted(last.keys[0].flatten().tolist()) == sorted(last.keys[1].flatten().tolist()) == [22, 23, 24, 25, 26, 27]
    )


def test_reading_an_empty_bank_is_zero_and_has_finite_gradients():
    q = drawn(1, 1, 3, 2).requires_grad_()
    found = empty(1, C=4, H=1, S=2, d=2, like=drawn(1)).read(q, 3)
    assert not found.any()
    (grad,) = torch.autograd.grad(found.sum(), q)
    assert not grad.any()


def test_bfloat16_banks_are_searched_in_float32():
    k = drawn(1, 1, 64, 8).bfloat16()
    bank = empty(1, C=16, H=1, S=4, d=8, like=k).write(k, k)
    q = drawn(1, 1, 9, 8, seed=1).bfloat16()
    scores = q.float()[0, 0] @ k.float()[0, 0].view(16, 4, 8).mean(1).T
    assert torch.equal(bank.nearest(q, 3)[0, 0].sort(-1).values, scores.topk(3).indices.sort(-1).values)
    assert bank.means.dtype == torch.float32


def test_a_reading_layer_is_written_out():
    made = model(K=16)
    layer, bank = made.side.layers[1], Bank(*made(text(1, 8))[1][:4])
    h = drawn(1, 3, D, seed=5)
    x = layer_norm(h, (D,), layer.norm.weight, layer.norm.bias)
    q, k, v = (part(x).view(3, H, D // H) for part in (layer.q, layer.k, layer.v))
    heads = []
    for head in range(H):
        slope = 2.0 ** (-8 * (head + 1) / H)
        kept, said = (part[0, :4, head].reshape(8, -1) for part in (bank.keys, bank.values))
        share = torch.sigmoid(layer.gate[head])
        rows = []
        for t in range(3):
            local = torch.stack([q[t, head] @ k[i, head] / math.sqrt(D // H) - slope * (t - i) for i in range(t + 1)])
            far = kept @ q[t, head] / math.sqrt(D // H)
            rows.append(share * (far.softmax(0) @ said) + (1 - share) * (local.softmax(0) @ v[: t + 1, head]))
        heads.append(torch.stack(rows))
    fed = gelu(x @ layer.up.weight.T + layer.up.bias) @ layer.down.weight.T + layer.down.bias
    close(layer.reading(h, bank, 8), torch.cat(heads, -1)[None] @ layer.out.weight.T + fed)


def test_the_side_network_starts_as_every_second_layer():
    torch.manual_seed(0)
    backbone = Backbone(V, D=D, heads=H, depth=6)
    made = LongMem.around(backbone, segment=4, capacity=16, K=4, chunk=2)
    assert made.side.reads == 2
    h = drawn(2, 3, D).float()
    for number in (0, 1, 2):
        torch.testing.assert_close(made.side.layers[number](h)[0], backbone.layers[2 * number + 1](h)[0])
    assert fingerprint(made.backbone) == fingerprint(backbone)
    assert all(param.requires_grad for param in backbone.parameters())
    with torch.device("meta"):
        paper = LongMem(V, D=16)
    assert (paper.layer, paper.side.reads, len(paper.side.layers)) == (17, 8, 12)


def test_the_backbone_is_causal_and_prices_distance():
    torch.manual_seed(0)
    backbone, tokens = Backbone(V, D=D, heads=H, depth=2).to(DOUBLE), text(1, 6)
    other = tokens.clone()
    other[0, 4] = (other[0, 4] + 1) % V
    assert torch.equal(backbone(tokens)[:, :4], backbone(other)[:, :4])
    assert slopes(4) == [0.25, 0.0625, 0.015625, 0.00390625]
    assert slopes(6)[4:] == [0.5, 0.125]
    price = biases(3, drawn(1, 4, 3, 2))
    assert price[0].tolist() == [[0.0, -math.inf, -math.inf], [-0.25, 0.0, -math.inf], [-0.5, -0.25, 0.0]]


def test_the_papers_bank_of_bytes():
    shapes = {"B": 1, "D": 1024, "M": 65536, "S": 4, "P": 1024, "b": 2, "c": 4}
    assert formula.evaluate(LongMem.card.bytes, shapes) == 268_435_456 + 67_108_864 + 8 * 1024 + 16
    made = model()
    state = made.initial_state(3)
    held = sum(part.numel() * part.element_size() for part in state)
    assert held == formula.evaluate(LongMem.card.bytes, made.shapes(state))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"segment": 5}, "segment=5, capacity=16, K=4 are not whole chunks of 2"),
        ({"capacity": 2}, "capacity=2 is below segment=4 or K=4"),
        ({"chunk": 0}, "chunk=0"),
        ({"heads": 3}, "heads=3 does not divide D=8"),
        ({"depth": 3}, "a backbone of 3 layers"),
        ({"layer": 4}, "reads=2"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        model(**options)


def test_half_a_chunk_is_refused_by_the_bank():
    bank = empty(1, C=3, H=1, S=2, d=1, like=drawn(1))
    with pytest.raises(ValueError, match="3 tokens are no whole chunks of 2"):
        bank.write(drawn(1, 1, 3, 1), drawn(1, 1, 3, 1))


def test_a_side_network_needs_an_even_backbone():
    with pytest.raises(ValueError, match="even depth"):
        SideNetwork(Backbone(V, D=D, heads=H, depth=3), reads=0)

"""A language model of mixers: pieces, single tokens, resets, training on streams, and its state in a file."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file

from loci.state import Stack, mixers
from loci.state.carried import load, save
from loci.state.mixer import state_bytes
from loci.state.stack import detached

torch.set_num_threads(1)
V, D, B, T = 13, 8, 2, 11
MAKERS = {
    "gru": lambda D: mixers()["gru"](D, 8),
    "lstm": lambda D: mixers()["lstm"](D, 6),
    "mlstm": lambda D: mixers()["mlstm"](D, heads=2, inner=8),
    "s5": lambda D: mixers()["s5"](D, 6),
    "mamba": lambda D: mixers()["mamba"](D),
    "attention": lambda D: mixers()["attention"](D, 2, window=6),
    "linear-attention": lambda D: mixers()["linear-attention"](D, heads=2, feature=2),
}
each = pytest.mark.parametrize("name", MAKERS)


def built(name, seed=0, dtype=torch.float64, **sizes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Stack(MAKERS[name], **{"depth": 2, "V": V, "D": D, **sizes}).to(dtype)


def text(batch=B, length=T, seed=1):
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(seed))


def near(one, two, within=1e-10):
    return all(torch.allclose(a, b, rtol=0, atol=within) for a, b in zip(one, two, strict=True))


@each
def test_pieces_and_single_tokens_are_the_whole(name):
    stack, tokens = built(name), text()
    whole, last = stack(tokens)
    for cut in range(T + 1):
        first, between = stack(tokens[:, :cut])
        second, end = stack(tokens[:, cut:], between)
        assert near([torch.cat([first, second], 1), *end], [whole, *last]), cut
    state, said = None, []
    for t in range(T):
        logits, state = stack(tokens[:, t : t + 1], state)
        said.append(logits)
    assert near([torch.cat(said, 1), *state], [whole, *last])


@each
def test_a_reset_begins_a_new_text_in_its_row_alone(name):
    stack, tokens = built(name), text()
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[1, 4] = True
    got, _ = stack(tokens, reset=reset)
    assert near([got[0], got[1, :4]], [stack(tokens)[0][0], stack(tokens)[0][1, :4]])
    assert near([got[1, 4:]], [stack(tokens[1:, 4:])[0][0]])
    alone = torch.ones(B, 1, dtype=torch.bool)
    carried = stack(tokens)[1]
    assert near([stack(tokens[:, :1], carried, reset=alone)[0]], [stack(tokens[:, :1])[0]])


@each
def test_generating_is_reading_all_of_it_again_and_again(name):
    stack, tokens = built(name), text(length=4)
    said, state = stack.generate(tokens, 6)
    longer = tokens
    for _ in range(6):
        longer = torch.cat([longer, stack(longer)[0][:, -1:].argmax(-1)], 1)
    assert torch.equal(said, longer[:, 4:])
    assert near(state, stack(longer[:, :-1])[1])
    assert state_bytes(state) == state_bytes(stack.initial_state(B))
    random = [stack.generate(tokens, 5, temperature=1.0, random=torch.Generator().manual_seed(s))[0] for s in (3, 3, 4)]
    assert torch.equal(random[0], random[1])
    assert not torch.equal(random[0], random[2])


@each
def test_a_carried_state_comes_back_from_a_file_bit_for_bit(name, tmp_path):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        stack = built(name, dtype=dtype)
        with torch.no_grad():
            _, state = stack(text())
        save(state, tmp_path / "chat.state", of=stack)
        back = load(tmp_path / "chat.state", of=stack)
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(state, back, strict=True))
        assert torch.equal(stack(text(seed=5), back)[0], stack(text(seed=5), state)[0])
        assert [path.name for path in tmp_path.iterdir()] == ["chat.state"]


def test_a_state_of_another_version_model_or_shape_is_refused(tmp_path):
    stack, path = built("lstm"), tmp_path / "chat.state"
    state = detached(stack(text())[1])
    save(state, path, of=stack)
    with pytest.raises(ValueError, match="other weights"):
        load(path, of=built("lstm", seed=1))
    with pytest.raises(ValueError, match=r"does not fit: state has shapes"):
        load(path, of=built("lstm", depth=3))
    with pytest.raises(ValueError, match=r"float64.*carries.*float32"):
        load(path, of=built("lstm", dtype=torch.float32))
    with pytest.raises(ValueError, match="does not fit"):
        save(state[:2], tmp_path / "other.state", of=stack)
    assert not (tmp_path / "other.state").exists()
    save_file(load_file(path), tmp_path / "old.state", metadata={"form": "loci-state/0"})
    with pytest.raises(ValueError, match=r"loci-state/0.*reads 'loci-state/1'"):
        load(tmp_path / "old.state", of=stack)
    (tmp_path / "torn.state").write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="no carried state"):
        load(tmp_path / "torn.state", of=stack)
    with pytest.raises(FileNotFoundError, match="no file"):
        load(tmp_path / "none.state", of=stack)


def test_a_stream_is_learned_only_if_the_state_is_carried():
    """The first token of a stream says which of two tokens is due at its end; pieces of two do not show it again."""

    def learned(*, carry):
        torch.manual_seed(0)
        stack, random = built("gru", dtype=torch.float32, depth=1), torch.Generator().manual_seed(2)
        optimizer = torch.optim.Adam(stack.parameters(), lr=0.02)
        for _ in range(200):
            mode = torch.randint(2, (16, 1), generator=random)
            noise = torch.randint(2, 4, (16, 3), generator=random)
            stream, due = torch.cat([mode, noise], 1), mode.squeeze(1) + 4
            _, state = stack(stream[:, :2])
            logits, _ = stack(stream[:, 2:], state if carry else None)
            loss = torch.nn.functional.cross_entropy(logits[:, -1], due)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    assert learned(carry=True) < 0.1
    assert learned(carry=False) > 0.5


def test_detached_states_let_no_gradient_through():
    stack, tokens = built("mlstm"), text()
    first, state = stack(tokens)
    logits, _ = stack(tokens, detached(state))
    assert all(grad is None for grad in torch.autograd.grad(logits.sum(), [first], allow_unused=True))
    assert not any(part.requires_grad for part in detached(state))


@pytest.mark.parametrize("name", ["gru", "mamba", "attention"])
def test_it_compiles_and_runs_under_autocast(name):
    stack, tokens = built(name, dtype=torch.float32), text(length=5)
    want, last = stack(tokens)
    torch._dynamo.reset()
    got, end = torch.compile(stack, backend="aot_eager")(tokens)
    assert near([got, *end], [want, *last], 1e-5)
    torch._dynamo.reset()
    with torch.autocast("cpu", torch.bfloat16):
        half, state = stack(tokens)
        half, _ = stack(tokens, state)
    assert near([half.float()], [stack(tokens, last)[0]], 0.05)


def test_weights_saved_and_loaded_answer_as_before():
    stack, other = built("mamba"), built("mamba", seed=4)
    other.load_state_dict(stack.state_dict())
    assert torch.equal(other(text())[0], stack(text())[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@each
def test_a_gpu_says_the_same(name):
    stack = built(name)
    want, last = stack(text())
    got, state = stack.cuda()(text().cuda())
    assert near([got.cpu(), *(part.cpu() for part in state)], [want, *last], 1e-8)


def test_bad_input_is_refused():
    stack, state = built("lstm"), built("lstm").initial_state(B)
    for tokens, said in (
        (text().float(), "float32"), (text()[0], r"\(11,\)"), (text() + V, "knows 0 to 12"), (text(batch=3), "initial_state"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            stack(tokens, state)
    with pytest.raises(ValueError, match="reset is"):
        stack(text(), reset=torch.zeros(B, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="depth=0"):
        built("lstm", depth=0)
    shared = MAKERS["lstm"](D)
    with pytest.raises(ValueError, match="the same one twice"):
        Stack(lambda _: shared, depth=2, V=V, D=D)
    with pytest.raises(ValueError, match="Generator"):
        stack.generate(text(), 2, temperature=1.0)
    logits, same = stack(text()[:, :0], state)
    assert logits.shape == (B, 0, V)
    assert same is state

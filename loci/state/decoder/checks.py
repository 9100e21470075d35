"""The laws of decoders as data (`LAWS`), run over every member.

A law takes `make`; `make()` is the member with the arguments of its card. As with mixers, weights are drawn under a fixed
seed and nudged off their initial values.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from loci.core import formula
from loci.core.checking import Case, Law, Make, cases, refused
from loci.state import checks
from loci.state.checks import DOUBLE, DTYPES, B, close, loss_of, row_of, runs, saved_answers_as_before
from loci.state.decoder import decoders
from loci.state.decoder.base import Decoder
from loci.state.mixer import State, state_bytes

PIECES = 4  # pieces of a text, and the least number of tokens in it is three times that


def decoder_cases() -> Iterator[Case]:
    """Every decoder under every law."""
    decoders()
    return cases("decoder", LAWS)


def built(make: Make, dtype: torch.dtype = DOUBLE, *, seed: int = 0) -> Decoder:
    """The member in a dtype, with the same weights for the same seed."""
    return cast("Decoder", checks.built(make, dtype, seed=seed))


def text(decoder: Decoder, *, seed: int = 1, batch: int = B) -> Tensor:
    """Tokens of `PIECES` pieces."""
    length = PIECES * max(decoder.piece, 3)
    return torch.randint(decoder.V, (batch, length), generator=torch.Generator().manual_seed(seed))


def carried(decoder: Decoder, *, seed: int = 2) -> State:
    """A state that has read something."""
    with torch.no_grad():
        state: State = decoder(text(decoder, seed=seed))[1]
    return state


def pieces_are_the_whole(make: Make) -> None:
    """Two parts with the state carried over are the whole, cut at every multiple of `piece`; so is a piece at a time."""
    decoder = built(make)
    tokens, state = text(decoder), carried(decoder)
    whole = decoder(tokens, state)
    for cut in range(0, tokens.shape[1] + 1, decoder.piece):
        first, between = decoder(tokens[:, :cut], state)
        second, last = decoder(tokens[:, cut:], between)
        close((torch.cat([first, second], 1), last), whole, f"a text cut at {cut}")
    said = []
    for part in torch.split(tokens, decoder.piece, 1):
        logits, state = decoder(part, state)
        said.append(logits)
    close((torch.cat(said, 1), state), whole, f"a text of pieces of {decoder.piece}")


def is_causal(make: Make) -> None:
    """Tokens to come do not change what was said; those that came do."""
    decoder = built(make)
    tokens, other, state = text(decoder), text(decoder, seed=5), carried(decoder)
    plain = decoder(tokens, state)[0]
    for cut in (1, tokens.shape[1] // 2, tokens.shape[1] - 1):
        changed = torch.cat([tokens[:, :cut], other[:, cut:]], 1)
        close((decoder(changed, state)[0][:, :cut], ()), (plain[:, :cut], ()), f"what was said before {cut}", 1e-12)
        assert not torch.equal(decoder(changed, state)[0][:, cut:], plain[:, cut:]), (
            f"tokens from {cut} on change nothing"
        )
    assert not torch.equal(decoder(tokens)[0], plain), "what was read before changes nothing"


def rows_do_not_mix(make: Make) -> None:
    """A row of a batch is what it is alone, whatever the other rows are."""
    decoder = built(make)
    tokens, state = text(decoder), carried(decoder)
    logits, last = decoder(tokens, state)
    for row in range(B):
        alone = decoder(tokens[row : row + 1], row_of(state, row))
        close(alone, (logits[row : row + 1], row_of(last, row)), f"row {row} alone")


def state_bytes_are_the_formula(make: Make) -> None:
    """A state takes what the card says of its shapes."""
    for dtype in DTYPES:
        decoder = built(make, dtype)
        card: Any = type(decoder).card  # type: ignore[attr-defined]
        for batch in (1, B):
            with torch.no_grad():
                states = (decoder.initial_state(batch), decoder(text(decoder, batch=batch))[1])
            for state in states:
                said = formula.evaluate(card.bytes, decoder.shapes(state))
                assert state_bytes(state) == said, (
                    f"{batch} rows in {dtype}: {state_bytes(state)} bytes, {card.bytes} = {said}"
                )


def what_is_given_is_left_alone(make: Make) -> None:
    """The state that was given is not written to; the same call gives the same answer, and draws no random numbers."""
    decoder = built(make)
    tokens, state = text(decoder), carried(decoder)
    before, saved, random = [part.clone() for part in state], copy.deepcopy(decoder.state_dict()), torch.get_rng_state()
    first = decoder(tokens, state)
    decoder(text(decoder, seed=7), carried(decoder, seed=8))
    close(decoder(tokens, state), first, "the same call again", 0.0)
    assert all(torch.equal(part, old) for part, old in zip(state, before, strict=True)), (
        "the given state was written to"
    )
    assert torch.equal(torch.get_rng_state(), random), "it draws from torch's global generator"
    now = decoder.state_dict()
    assert all(torch.equal(now[name], old) for name, old in saved.items()), "a call changed parameters or buffers"


def gradient_reaches_every_parameter(make: Make) -> None:
    """Logits depend on every parameter that is trained, and none is given to one that is frozen."""
    decoder = built(make)
    torch.autograd.backward(loss_of(decoder(text(decoder), carried(decoder))[0]))
    for name, param in decoder.named_parameters():
        if param.requires_grad:
            assert param.grad is not None, f"no gradient reaches {name}"
            assert param.grad.any(), f"no gradient reaches {name}"
        else:
            assert param.grad is None, f"a gradient reaches {name}, which is frozen"


def state_dict_round_trip(make: Make) -> None:
    """Saved and loaded into one of other weights, a decoder answers bit for bit as before; a deep copy stands alone."""
    decoder = built(make)
    tokens, state = text(decoder), carried(decoder)
    saved_answers_as_before(decoder, built(make, seed=9), lambda model: model(tokens, state))


def dtype_is_kept(make: Make) -> None:
    """Logits have the dtype of the parameters, states that of the initial state, and all are finite."""
    for dtype in DTYPES:
        decoder = built(make, dtype)
        want = [part.dtype for part in decoder.initial_state(B)]
        logits, last = decoder(text(decoder), carried(decoder))
        assert logits.dtype == dtype, f"logits of a decoder in {dtype} are {logits.dtype}"
        assert [part.dtype for part in last] == want, f"a state of {want} became {[part.dtype for part in last]}"
        assert logits.isfinite().all(), f"logits in {dtype} are not finite"


def no_tokens_give_the_state_back(make: Make) -> None:
    """T = 0 gives no logits, and the state as it was."""
    decoder = built(make)
    state = carried(decoder)
    logits, last = decoder(text(decoder)[:, :0], state)
    assert logits.shape == (B, 0, decoder.V), f"no tokens became {tuple(logits.shape)}"
    close((logits, last), (logits, state), "the state after no tokens", 0.0)


def generating_is_reading_on(make: Make) -> None:
    """The likeliest tokens are those that reading all so far, again and again, gives; drawn ones come from the generator."""
    decoder = built(make)
    tokens = text(decoder)
    said, state = decoder.generate(tokens, 3)
    longer = tokens
    for _ in range(3):
        longer = torch.cat([longer, decoder(longer)[0][:, -1:].argmax(-1)], 1)
    assert torch.equal(said, longer[:, tokens.shape[1] :]), f"{said.tolist()} was generated, {longer.tolist()} is due"
    close((said, state), (said, decoder(longer[:, :-1])[1]), "the state after all but the last token")
    one, two, three = (
        decoder.generate(tokens, 6, temperature=2.0, random=torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two), "the same seed draws other tokens"
    assert not torch.equal(one, three), "another seed draws the same tokens"


def bad_input_is_refused(make: Make) -> None:
    """Tokens of another dtype, shape or range, or a state of another batch, is one ValueError that says so."""
    decoder = built(make)
    tokens, state = text(decoder), carried(decoder)
    refused(lambda: decoder(tokens.float()), "float32", "int64")
    refused(lambda: decoder(tokens[0]), str(tuple(tokens[0].shape)))
    refused(lambda: decoder(tokens + decoder.V), str(decoder.V - 1))
    refused(lambda: decoder(tokens - decoder.V), str(decoder.V - 1))
    refused(lambda: decoder(tokens[:2], state), "initial_state(2)")
    refused(lambda: decoder(tokens, (*state, state[0])), "state")
    refused(lambda: decoder.generate(tokens, 0), "count=0")
    refused(lambda: decoder.generate(tokens, 1, temperature=1.0), "Generator")


def runs_under_compile(make: Make) -> None:
    """torch.compile changes nothing."""
    decoder = built(make)
    tokens, state = text(decoder), carried(decoder)
    torch._dynamo.reset()
    compiled = torch.compile(decoder, backend="aot_eager")
    with torch.no_grad():
        close(runs(lambda: compiled(tokens, state), "torch.compile"), decoder(tokens, state), "the compiled form", 1e-9)
    torch._dynamo.reset()


def runs_under_autocast(make: Make) -> None:
    """Under autocast to bfloat16 a state can be carried, logits are those of float32 within 0.1, gradients finite."""
    decoder = built(make, torch.float32)
    tokens, state = text(decoder), decoder.initial_state(B)
    want = decoder(tokens, decoder(tokens)[1])[0]
    with torch.autocast("cpu", torch.bfloat16):
        state = runs(lambda: decoder(tokens, state), "autocast")[1]
        got = decoder(tokens, state)[0].float()
    close((got, ()), (want, ()), "autocast", 0.1)
    torch.autograd.backward(loss_of(got))
    bad = [name for name, p in decoder.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad, f"under autocast the gradients of {bad} are not finite"


LAWS: tuple[Law, ...] = (
    pieces_are_the_whole, is_causal, rows_do_not_mix, state_bytes_are_the_formula, what_is_given_is_left_alone,
    gradient_reaches_every_parameter, state_dict_round_trip, dtype_is_kept, no_tokens_give_the_state_back,
    generating_is_reading_on, bad_input_is_refused, runs_under_compile, runs_under_autocast,
)  # fmt: skip

"""The laws of encoders as data (`LAWS`), run over every member.

A law takes `make`; `make()` is the member with the arguments of its card. As with mixers, weights are drawn under a fixed
seed and nudged off their initial values. Rows of the batch have the lengths `LENGTHS` where a law speaks of lengths.
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
from loci.state.checks import DOUBLE, DTYPES, B, T, gap, loss_of, saved_answers_as_before
from loci.state.encoder import encoders
from loci.state.encoder.base import Encoder

LENGTHS = (T, 7, 1)  # a whole row, a part, one moment
EXACT = 1e-10  # float64, for sums in another order
SEEN = 1e-12  # what is above this is no rounding


def encoder_cases() -> Iterator[Case]:
    """Every encoder under every law."""
    encoders()
    return cases("encoder", LAWS)


def built(make: Make, dtype: torch.dtype = DOUBLE, *, seed: int = 0) -> Encoder:
    """The member in a dtype, with the same weights for the same seed."""
    return cast("Encoder", checks.built(make, dtype, seed=seed))


def drawn(encoder: Encoder, dtype: torch.dtype = DOUBLE, *, seed: int = 1, batch: int = B, length: int = T) -> Tensor:
    """Standard normal rows that fit the encoder."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, encoder.D, generator=random, dtype=DOUBLE).to(dtype)


def padded(x: Tensor, filler: float, *, extra: int = 0) -> tuple[Tensor, Tensor]:
    """The rows with `filler` from their `LENGTHS` on and `extra` moments of it behind, and the lengths."""
    lengths = torch.tensor(LENGTHS)
    x = torch.cat([x, x.new_zeros(B, extra, x.shape[2])], 1)
    beyond = torch.arange(x.shape[1]) >= lengths.unsqueeze(1)
    return torch.where(beyond.unsqueeze(-1), filler, x), lengths


def padding_changes_nothing(make: Make) -> None:
    """A padded row is what it is alone, cut to its length, whatever the padding holds and however much there is."""
    encoder = built(make)
    x = drawn(encoder)
    alone = [encoder(x[row : row + 1, :length])[0] for row, length in enumerate(LENGTHS)]
    for filler in (0.0, -1e6, torch.nan, torch.inf):
        for extra in (0, 1, 9):
            given, lengths = padded(x, filler, extra=extra)
            y = encoder(given, lengths=lengths)
            for row, length in enumerate(LENGTHS):
                where = f"row {row} of length {length}, padded with {filler} to {T + extra} moments"
                _close(y[row, :length], alone[row], where)


def nothing_is_said_of_padding(make: Make) -> None:
    """Outputs are zero from a row's length on, and a row without moments is zero all along."""
    encoder = built(make)
    x = drawn(encoder)
    for lengths in (LENGTHS, (0, 3, 0)):
        y = encoder(x, lengths=torch.tensor(lengths))
        assert y.shape == x.shape, f"{tuple(x.shape)} became {tuple(y.shape)}"
        for row, length in enumerate(lengths):
            assert not y[row, length:].any(), f"a row of length {length} says something beyond it"


def rows_do_not_mix(make: Make) -> None:
    """A row of a batch is what it is alone, whatever the other rows are and however long."""
    encoder = built(make)
    x, other = drawn(encoder), 3 * drawn(encoder, seed=5)
    whole = encoder(x)
    for row in range(B):
        _close(encoder(x[row : row + 1]), whole[row : row + 1], f"row {row} alone")
        among = torch.where(torch.arange(B).view(B, 1, 1) == row, x, other)
        for rest in (T, 2, 0):
            lengths = torch.full((B,), rest)
            lengths[row] = T
            _close(encoder(among, lengths=lengths)[row], whole[row], f"row {row} among others of length {rest}")


def looks_both_ways(make: Make) -> None:
    """A row's last moment is in its first output, and its first moment in its last output; so too within a length."""
    encoder = built(make)
    x, other = drawn(encoder), drawn(encoder, seed=5)
    for length in (T, 7, 2):
        lengths = torch.full((B,), length)
        y = encoder(x, lengths=lengths)
        for heard, said in ((length - 1, 0), (0, length - 1)):
            changed = x.clone()
            changed[:, heard] = 3 * other[:, heard]
            gap = (encoder(changed, lengths=lengths)[:, said] - y[:, said]).abs().amax(-1)
            assert bool((gap > SEEN).all()), f"of {length} moments, number {heard} is not heard at number {said}"


def bytes_are_the_formula(make: Make) -> None:
    """Parameters and buffers take what the card says, in every dtype, and hearing something adds nothing to them."""
    for dtype in DTYPES:
        encoder = built(make, dtype)
        card: Any = type(encoder).card  # type: ignore[attr-defined]
        for batch in (1, B):
            with torch.no_grad():
                encoder(drawn(encoder, dtype, batch=batch))
            said = formula.evaluate(card.bytes, encoder.shapes(batch))
            held = sum(part.numel() * part.element_size() for part in (*encoder.parameters(), *encoder.buffers()))
            assert held == said, f"in {dtype} it holds {held} bytes, {card.bytes} = {said}"


def gradient_reaches_every_parameter(make: Make) -> None:
    """Outputs depend on every parameter and on every moment that is heard, and on none beyond a row's length."""
    encoder = built(make)
    for filler in (1.0, torch.nan):
        given, lengths = padded(drawn(encoder), filler, extra=2)
        x = given.requires_grad_()
        encoder.zero_grad()
        torch.autograd.backward(loss_of(encoder(x, lengths=lengths)))
        for name, param in encoder.named_parameters():
            reached = param.grad is not None and bool(param.grad.any()) and bool(param.grad.isfinite().all())
            assert reached or not param.requires_grad, f"no finite gradient reaches {name}"
        assert x.grad is not None, "no gradient reaches the input"
        for row, length in enumerate(LENGTHS):
            assert x.grad[row, :length].any(-1).all(), f"no gradient reaches some of {length} heard moments"
            assert not x.grad[row, length:].any(), f"a gradient reaches the padding of a row of length {length}"


def state_dict_round_trip(make: Make) -> None:
    """Saved and loaded into one of other weights, an encoder answers bit for bit as before; a deep copy stands alone."""
    encoder = built(make)
    x = drawn(encoder)
    saved_answers_as_before(encoder, built(make, seed=9), lambda model: (model(x), ()))


def dtype_is_kept(make: Make) -> None:
    """Outputs have the dtype of the input and are finite, in float32, bfloat16 and float64, and padding does not matter."""
    for dtype in DTYPES:
        encoder = built(make, dtype)
        given, lengths = padded(drawn(encoder, dtype), 2.0)
        for y in (encoder(given), encoder(given, lengths=lengths)):
            assert y.dtype == dtype, f"{dtype} came out as {y.dtype}"
            assert y.isfinite().all(), f"outputs in {dtype} are not finite"


def single_precision_is_near_double(make: Make) -> None:
    """What it says in float32 is what it says in float64, within 1e-4."""
    single, double = built(make, torch.float32), built(make)
    given, lengths = padded(drawn(double), 0.0)
    _close(single(given.float(), lengths=lengths), double(given, lengths=lengths), "float32 beside float64", 1e-4)


def nothing_is_kept_between_calls(make: Make) -> None:
    """The same call gives the same answer; input, parameters, buffers and torch's generator are left as they were."""
    encoder = built(make)
    x, lengths = padded(drawn(encoder), 1.0)
    saved, before, random = copy.deepcopy(encoder.state_dict()), x.clone(), torch.get_rng_state()
    first = encoder(x, lengths=lengths)
    encoder(drawn(encoder, seed=7, length=5))
    assert torch.equal(encoder(x, lengths=lengths), first), "the same call answers otherwise"
    assert torch.equal(torch.get_rng_state(), random), "it draws from torch's global generator"
    assert torch.equal(x, before), "the input was written to"
    now = encoder.state_dict()
    assert all(torch.equal(now[name], old) for name, old in saved.items()), "a call changed parameters or buffers"


def hearing_nothing_is_allowed(make: Make) -> None:
    """T = 0 gives T = 0; rows of length 0 are silent, and leave outputs and gradients of the others as they are."""
    encoder = built(make)
    for lengths in (None, torch.zeros(B, dtype=torch.int64)):
        y = encoder(drawn(encoder, length=0), lengths=lengths)
        assert y.shape == (B, 0, encoder.D), f"no moments became {tuple(y.shape)}"
    x = drawn(encoder)
    grads = []
    for rows, lengths in ((x, torch.tensor([0, T, 0])), (x[1:2], torch.tensor([T]))):
        encoder.zero_grad()
        y = encoder(rows, lengths=lengths)
        torch.autograd.backward(loss_of(y[lengths > 0]))
        grads.append([param.grad for param in encoder.parameters() if param.grad is not None])
    for got, want in zip(*grads, strict=True):
        _close(got, want, "a gradient beside rows of length 0", 1e-8)
    silent = encoder(x, lengths=torch.zeros(B, dtype=torch.int64))
    assert not silent.any(), "rows of length 0 say something"


def bad_input_is_refused(make: Make) -> None:
    """A wrong width or dtype, lengths that do not fit, or a heard value that is not finite is one ValueError."""
    encoder = built(make)
    x, width = drawn(encoder), encoder.D
    nan, infinite = x.clone(), x.clone()
    nan[0, 3, 0], infinite[1, 0, 0] = torch.nan, torch.inf
    refused(lambda: encoder(torch.cat([x, x], 2)), str(2 * width), str(width))
    refused(lambda: encoder(x[0]), str(tuple(x[0].shape)))
    refused(lambda: encoder(torch.ones(B, T, width, dtype=torch.int64)), "int64")
    refused(lambda: encoder(nan), "not finite")
    refused(lambda: encoder(infinite, lengths=torch.full((B,), 2)), "not finite")
    refused(lambda: encoder(x, lengths=torch.tensor([T + 1, 1, 1])), "lengths", str(T + 1))
    refused(lambda: encoder(x, lengths=torch.tensor([-1, 1, 1])), "lengths", "-1")
    refused(lambda: encoder(x, lengths=torch.tensor([1, 1])), "lengths", str(B))
    refused(lambda: encoder(x, lengths=torch.ones(B)), "lengths", "float32")
    refused(lambda: encoder(x, lengths=torch.ones(B, dtype=torch.bool)), "lengths", "bool")


def runs_under_compile(make: Make) -> None:
    """torch.compile changes neither outputs nor gradients."""
    encoder = built(make)
    given, lengths = padded(drawn(encoder), 1.0)
    x = given.requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(encoder, backend="aot_eager")
    try:
        got = compiled(x, lengths=lengths)
    except Exception as error:
        raise AssertionError(f"under torch.compile it raises {type(error).__name__}: {error}") from error
    want = encoder(x, lengths=lengths)
    _close(got, want, "the compiled form", 1e-9)
    one, two = (torch.autograd.grad(loss_of(y), x)[0] for y in (got, want))
    _close(one, two, "a gradient of the compiled form", 1e-8)
    torch._dynamo.reset()


def runs_under_autocast(make: Make) -> None:
    """Under autocast to bfloat16 outputs are those of float32 within 0.1, and gradients finite."""
    encoder = built(make, torch.float32)
    x, lengths = padded(drawn(encoder, torch.float32), 1.0)
    want = encoder(x, lengths=lengths)
    with torch.autocast("cpu", torch.bfloat16):
        try:
            got = encoder(x, lengths=lengths)
        except Exception as error:
            raise AssertionError(f"under autocast it raises {type(error).__name__}: {error}") from error
    _close(got.float(), want, "autocast", 0.1)
    torch.autograd.backward(loss_of(got.float()))
    bad = [name for name, p in encoder.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad, f"under autocast the gradients of {bad} are not finite"


def _close(got: Tensor, want: Tensor, what: str, within: float = EXACT) -> None:
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, due is {tuple(want.shape)}"
    assert gap(got, want) <= within, f"{what} is off by {gap(got, want):.1e}"


LAWS: tuple[Law, ...] = (
    padding_changes_nothing, nothing_is_said_of_padding, rows_do_not_mix, looks_both_ways, bytes_are_the_formula,
    gradient_reaches_every_parameter, state_dict_round_trip, dtype_is_kept, single_precision_is_near_double,
    nothing_is_kept_between_calls, hearing_nothing_is_allowed, bad_input_is_refused, runs_under_compile,
    runs_under_autocast,
)  # fmt: skip

"""The laws of mixers as data (`LAWS`), run over every member.

A law takes `make`; `make()` is the member with the arguments of its card. Weights are drawn under a fixed seed, and
nudged off their initial values, so that one that starts at zero hides nothing.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from loci.core import formula
from loci.core.checking import Case, Law, Make, cases, refused
from loci.state import mixers
from loci.state.mixer import Mixer, State, state_bytes

B, T = 3, 12
DOUBLE = torch.float64
DTYPES = (torch.float32, torch.bfloat16, DOUBLE)


def mixer_cases() -> Iterator[Case]:
    """Every mixer under every law."""
    mixers()
    return cases("mixer", LAWS)


def built(make: Make, dtype: torch.dtype = DOUBLE, *, seed: int = 0, nudge: float = 0.02) -> Mixer:
    """The member in a dtype, with the same weights for the same seed; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        mixer: Mixer = make()
        for param in mixer.parameters():
            param.add_(torch.randn(param.shape) * nudge)
    return mixer.to(dtype)


def drawn(mixer: Mixer, dtype: torch.dtype = DOUBLE, *, seed: int = 1, batch: int = B, length: int = T) -> Tensor:
    """Standard normal rows that fit the mixer."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, mixer.D, generator=random, dtype=DOUBLE).to(dtype)


def carried(mixer: Mixer, dtype: torch.dtype = DOUBLE, *, seed: int = 2, batch: int = B) -> State:
    """A state that has seen something."""
    with torch.no_grad():
        state: State = mixer(drawn(mixer, dtype, seed=seed, batch=batch, length=5))[1]
    return state


def scan_is_the_steps(make: Make) -> None:
    """Outputs and last state of the scan are those of the steps, within 1e-10 in float64 and 1e-5 in float32."""
    for dtype, within in ((DOUBLE, 1e-10), (torch.float32, 1e-5)):
        mixer = built(make, dtype)
        for length in (1, T, 37):
            x = drawn(mixer, dtype, length=length)
            for state in (mixer.initial_state(B), carried(mixer, dtype)):
                close(mixer.scan(x, state), mixer.scan_by_steps(x, state), f"the scan of {length} moments", within)


def splits_anywhere(make: Make) -> None:
    """Two parts with the state carried over are the whole, wherever it is cut, and so are three."""
    mixer = built(make)
    x = drawn(mixer)
    state = carried(mixer)
    whole = mixer(x, state)
    for cut in range(T + 1):
        first, between = mixer(x[:, :cut], state)
        second, last = mixer(x[:, cut:], between)
        close((torch.cat([first, second], 1), last), whole, f"a sequence cut at {cut}")


def is_causal(make: Make) -> None:
    """Moments to come do not change what was said: bit for bit in the steps; a scan may round them otherwise, by 1e-6."""
    mixer = built(make)
    x, other, state = drawn(mixer), drawn(mixer, seed=5), carried(mixer)
    for cut in (1, T // 2, T - 1):
        changed = torch.cat([x[:, :cut], 3 * other[:, cut:]], 1)
        steps, steps_changed = (mixer.scan_by_steps(rows, state)[0] for rows in (x, changed))
        assert torch.equal(steps[:, :cut], steps_changed[:, :cut]), f"moments from {cut} on change earlier steps"
        scan, scan_changed = (mixer.scan(rows, state)[0] for rows in (x, changed))
        off = gap(scan[:, :cut], scan_changed[:, :cut])
        assert off <= 1e-6, f"moments from {cut} on change earlier outputs of the scan by {off:.1e}"
        assert not torch.equal(scan[:, cut:], scan_changed[:, cut:]), f"moments from {cut} on change nothing at all"


def rows_do_not_mix(make: Make) -> None:
    """A row of a batch is what it is alone, whatever the other rows are."""
    mixer = built(make)
    x, state = drawn(mixer), carried(mixer)
    y, last = mixer(x, state)
    for row in range(B):
        alone = mixer(x[row : row + 1], row_of(state, row))
        close(alone, (y[row : row + 1], row_of(last, row)), f"row {row} alone")
    fresh = mixer(x)
    close(mixer(x[1:2]), (fresh[0][1:2], row_of(fresh[1], 1)), "a fresh row alone")


def reset_starts_afresh(make: Make) -> None:
    """From a reset on, a row is as if it began there, and no gradient crosses to what was before."""
    mixer = built(make)
    x, state = drawn(mixer).requires_grad_(), carried(mixer)
    reset = torch.zeros(B, T, dtype=torch.bool)
    starts = (0, T // 3, T - 2)  # row by row; the first also drops the given state, the last row resets twice
    for row, start in enumerate(starts):
        reset[row, start] = True
    reset[2, 2] = True
    y, last = mixer(x, state, reset=reset)
    for row, start in enumerate(starts):
        fresh = mixer(x[row : row + 1, start:])
        close((y[row : row + 1, start:], row_of(last, row)), fresh, f"row {row} from its reset at {start} on")
    kept = mixer(x[1:2, : starts[1]], row_of(state, 1))[0]
    close((y[1:2, : starts[1]], ()), (kept, ()), "what came before a reset")
    (back,) = torch.autograd.grad(y[1, starts[1] :].square().sum(), x)
    assert not back[1, : starts[1]].any(), "a gradient crosses a reset"
    assert back[1, starts[1]].any(), "no gradient reaches the moment of the reset"
    none = mixer(x, state, reset=torch.zeros(B, T, dtype=torch.bool))
    close(none, mixer(x, state), "a reset that never holds")


def state_bytes_are_the_formula(make: Make) -> None:
    """A state takes what the card says, keeps no larger storage alive, and grows only if the formula names T."""
    for dtype in DTYPES:
        mixer = built(make, dtype)
        card: Any = type(mixer).card  # type: ignore[attr-defined]
        for batch in (1, B):
            for length in (0, 1, 40):
                with torch.no_grad():
                    state = mixer(drawn(mixer, dtype, batch=batch, length=length))[1]
                said = formula.evaluate(card.bytes, {"T": length, **mixer.shapes(batch)})
                where = f"after {length} moments of {batch} rows in {dtype}"
                assert state_bytes(state) == said, f"{where} {state_bytes(state)} bytes, {card.bytes} = {said}"
                assert _held(state) <= said, f"{where} views keep {_held(state)} bytes alive, {card.bytes} = {said}"


def what_is_given_is_left_alone(make: Make) -> None:
    """Neither the input nor the state that was given is written to, by a step, a scan or a scan with resets."""
    mixer = built(make)
    x, state, other = drawn(mixer), carried(mixer), carried(mixer, seed=8)
    before, x_before = [part.clone() for part in state], x.clone()
    reset = torch.arange(T).expand(B, T) == T // 2
    with torch.no_grad():
        for call in (lambda: mixer.step(x[:, 0], state), lambda: mixer(x, state), lambda: mixer(x, state, reset=reset)):
            call()
            mixer(x, other)
            same = all(torch.equal(part, old) for part, old in zip(state, before, strict=True))
            assert same, "the given state was written to"
            assert torch.equal(x, x_before), "the input was written to"


def nothing_is_kept_outside_the_state(make: Make) -> None:
    """The same call gives the same answer, and leaves parameters, buffers and torch's generator as they were."""
    mixer = built(make)
    x, state = drawn(mixer), carried(mixer)
    saved, random = copy.deepcopy(mixer.state_dict()), torch.get_rng_state()
    first = mixer(x, state)
    mixer(drawn(mixer, seed=7))
    close(mixer(x, state), first, "the same call again", 0.0)
    assert torch.equal(torch.get_rng_state(), random), "it draws from torch's global generator"
    now = mixer.state_dict()
    assert all(torch.equal(now[name], old) for name, old in saved.items()), "a call changed parameters or buffers"


def gradient_reaches_every_parameter(make: Make) -> None:
    """The outputs of a scan depend on every parameter, on every moment and on the state that was given."""
    mixer = built(make)
    x = drawn(mixer).requires_grad_()
    state = tuple(part.requires_grad_(part.is_floating_point()) for part in carried(mixer))
    torch.autograd.backward(loss_of(mixer.scan(x, state)[0]))
    for name, param in mixer.named_parameters():
        assert not param.requires_grad or (param.grad is not None and param.grad.any()), f"no gradient reaches {name}"
    assert x.grad is not None, "no gradient reaches the input"
    assert x.grad.abs().sum((0, 2)).all(), "no gradient reaches some moments"
    reached = [part.grad is not None and bool(part.grad.any()) for part in state]
    assert any(reached), "no gradient reaches the state that was given"


def scan_gradients_are_those_of_steps(make: Make) -> None:
    """Gradients of outputs and last state through the scan are those through the steps, within 1e-8 in float64."""
    grads = []
    for name in ("scan", "scan_by_steps"):
        mixer = built(make)
        x = drawn(mixer).requires_grad_()
        state = tuple(part.requires_grad_(part.is_floating_point()) for part in carried(mixer))
        y, last = getattr(mixer, name)(x, state)
        total = loss_of(y) + sum((loss_of(part) for part in last if part.requires_grad), y.new_zeros(()))
        leaves = [x, *mixer.parameters(), *(part for part in state if part.requires_grad)]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        grads.append(torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True))
    close((grads[0][0], grads[0][1:]), (grads[1][0], grads[1][1:]), "a gradient through the scan", 1e-8)


def state_dict_round_trip(make: Make) -> None:
    """Saved and loaded into one of other weights, a mixer answers bit for bit as before; a deep copy stands alone."""
    mixer = built(make)
    x, state = drawn(mixer), carried(mixer)
    saved_answers_as_before(mixer, built(make, seed=9), lambda model: model(x, state))


def saved_answers_as_before(model: nn.Module, other: nn.Module, ask: Callable[[Any], tuple[Tensor, State]]) -> None:
    """`other` answers bit for bit as `model` once it has loaded its weights from a file; a deep copy stands alone."""
    before = ask(model)
    assert not torch.equal(ask(other)[0], before[0]), "weights of another seed answer the same"
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    close(ask(other), before, "loaded weights", 0.0)
    twin = copy.deepcopy(model)
    close(ask(twin), before, "a copy", 0.0)
    with torch.no_grad():
        for param in twin.parameters():
            param.zero_()
    close(ask(model), before, "one whose copy was changed", 0.0)


def dtype_is_kept(make: Make) -> None:
    """Outputs have the dtype of the input, the state that of the initial state, in float32, bfloat16 and float64."""
    for dtype in DTYPES:
        mixer = built(make, dtype)
        x, state = drawn(mixer, dtype), mixer.initial_state(B)
        want = [part.dtype for part in state]
        for y, last in (mixer.step(x[:, 0], state), mixer(x), mixer(x[:, 1:], carried(mixer, dtype))):
            assert y.dtype == dtype, f"{dtype} came out as {y.dtype}"
            assert [part.dtype for part in last] == want, f"a state of {want} became {[part.dtype for part in last]}"
            assert y.isfinite().all(), f"outputs in {dtype} are not finite"


def stays_finite(make: Make) -> None:
    """After 10,000 moments, of noise or of the same value, outputs and state are finite."""
    mixer = built(make, torch.float32, nudge=0.0)
    x = drawn(mixer, torch.float32, batch=2, length=1000)
    x[1] = 1.0
    state = mixer.initial_state(2)
    with torch.no_grad():
        for turn in range(10):
            y, state = mixer(x, state)
            fine = all(part.isfinite().all() for part in (y, *state) if part.is_floating_point())
            assert fine, f"not finite after {1000 * (turn + 1)} moments"


def no_moments_give_the_state_back(make: Make) -> None:
    """T = 0 gives no outputs, and the state as it was."""
    mixer = built(make)
    state = carried(mixer)
    x = drawn(mixer, length=0)
    for reset in (None, torch.zeros(B, 0, dtype=torch.bool)):
        y, last = mixer(x, state, reset=reset)
        assert y.shape == (B, 0, mixer.D), f"no moments became {tuple(y.shape)}"
        close((y, last), (x, state), "the state after no moments", 0.0)


def bad_input_is_refused(make: Make) -> None:
    """A wrong width, dtype, state or reset, or a value that is not finite, is one ValueError that says so."""
    mixer = built(make)
    x, state = drawn(mixer), carried(mixer)
    width = mixer.D
    nan, infinite = x.clone(), x.clone()
    nan[0, 3, 0], infinite[1, 0, 0] = torch.nan, torch.inf
    refused(lambda: mixer(torch.cat([x, x], 2)), str(2 * width), str(width))
    refused(lambda: mixer(x[0]), str(tuple(x[0].shape)))
    refused(lambda: mixer(torch.ones(B, T, width, dtype=torch.int64)), "int64")
    refused(lambda: mixer(nan), "not finite")
    refused(lambda: mixer(infinite), "not finite")
    refused(lambda: mixer(x, carried(mixer, batch=B + 1)), "state", f"initial_state({B})")
    refused(lambda: mixer(x, (*state, state[0])), "state")
    refused(lambda: mixer(x, state, reset=torch.zeros(B, T + 1, dtype=torch.bool)), "reset")
    refused(lambda: mixer(x, state, reset=torch.zeros(B, T, dtype=torch.int64)), "reset", "int64")


def runs_under_compile(make: Make) -> None:
    """torch.compile changes neither outputs nor gradients."""
    mixer = built(make)
    x, state = drawn(mixer, length=4).requires_grad_(), carried(mixer)
    torch._dynamo.reset()
    compiled = torch.compile(mixer, backend="aot_eager")
    got, want = runs(lambda: compiled(x, state), "torch.compile"), mixer(x, state)
    close(got, want, "the compiled form", 1e-9)
    grads = [torch.autograd.grad(loss_of(y), x)[0] for y in (got[0], want[0])]
    close((grads[0], ()), (grads[1], ()), "a gradient of the compiled form", 1e-8)
    torch._dynamo.reset()


def runs_under_autocast(make: Make) -> None:
    """Under autocast to bfloat16 a state can be carried, outputs are those of float32 within 0.1, gradients finite."""
    mixer = built(make, torch.float32)
    x = drawn(mixer, torch.float32, length=6)
    reset = torch.arange(3).expand(B, 3) == 1
    want = torch.cat([mixer(x[:, :3])[0], mixer(x[:, 3:], mixer(x[:, :3])[1], reset=reset)[0]], 1)
    with torch.autocast("cpu", torch.bfloat16):
        first, state = runs(lambda: mixer(x[:, :3]), "autocast")
        second, _ = runs(lambda: mixer(x[:, 3:], state, reset=reset), "autocast")
    got = torch.cat([first, second], 1).float()
    close((got, ()), (want, ()), "autocast", 0.1)
    torch.autograd.backward(loss_of(got))
    bad = [name for name, p in mixer.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad, f"under autocast the gradients of {bad} are not finite"


def row_of(state: State, row: int) -> State:
    """One row of a state."""
    return tuple(part[row : row + 1] for part in state)


def _held(state: State) -> int:
    """The storage of the state's tensors, each storage once: a view keeps all of what it looks at."""
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in state if part.numel()}
    return sum(storages.values())


def loss_of(y: Tensor) -> Tensor:
    """A sum with random weights: no symmetry hides a gradient."""
    return (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=DOUBLE).to(y.dtype)).sum()


def gap(one: Tensor, two: Tensor) -> float:
    """The largest difference, relative where values are above 1."""
    if not one.numel():
        return 0.0
    one, two = one.detach().to(DOUBLE), two.detach().to(DOUBLE)
    return float(((one - two).abs() / two.abs().clamp(min=1)).nan_to_num(torch.inf).max())


def close(got: tuple[Tensor, State], want: tuple[Tensor, State], what: str, within: float = 1e-10) -> None:
    """Assert that outputs and states are of the same shapes, and no further apart than `within`."""
    got_parts, want_parts = (got[0], *got[1]), (want[0], *want[1])
    shapes = [[tuple(part.shape) for part in parts] for parts in (got_parts, want_parts)]
    assert shapes[0] == shapes[1], f"{what}: shapes {shapes[0]}, due are {shapes[1]}"
    for place, (one, two) in enumerate(zip(got_parts, want_parts, strict=True)):
        part = f"part {place - 1} of the state" if place else "the output"
        assert gap(one, two) <= within, f"{what}: {part} is off by {gap(one, two):.1e}"


def runs(call: Callable[[], tuple[Tensor, State]], where: str) -> tuple[Tensor, State]:
    """What a call gives; an error in it breaks the law."""
    try:
        return call()
    except Exception as error:
        raise AssertionError(f"under {where} it raises {type(error).__name__}: {error}") from error


LAWS: tuple[Law, ...] = (
    scan_is_the_steps, splits_anywhere, is_causal, rows_do_not_mix, reset_starts_afresh, state_bytes_are_the_formula,
    what_is_given_is_left_alone, nothing_is_kept_outside_the_state, gradient_reaches_every_parameter,
    scan_gradients_are_those_of_steps, state_dict_round_trip, dtype_is_kept, stays_finite, no_moments_give_the_state_back,
    bad_input_is_refused, runs_under_compile, runs_under_autocast,
)  # fmt: skip

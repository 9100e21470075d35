"""The laws of sparse memories as data (`LAWS`), run over every member.

A law takes `make`; `make()` is the member with the arguments of its card. As with mixers, weights are drawn under a fixed
seed and nudged off their initial values. Ties between rows do not occur among drawn numbers in float64.
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
from loci.state.checks import DOUBLE, DTYPES, gap, loss_of, saved_answers_as_before
from loci.state.sparse_memory import sparse_memories
from loci.state.sparse_memory.base import SparseMemory

N = 9  # tokens
EXACT = 1e-10  # float64, for sums in another order


def sparse_memory_cases() -> Iterator[Case]:
    """Every sparse memory under every law."""
    sparse_memories()
    return cases("sparse-memory", LAWS)


def built(make: Make, dtype: torch.dtype = DOUBLE, *, seed: int = 0) -> SparseMemory:
    """The member in a dtype, with the same weights and buffers for the same seed."""
    return cast("SparseMemory", checks.built(make, dtype, seed=seed))


def drawn(memory: SparseMemory, dtype: torch.dtype = DOUBLE, *, seed: int = 1, tokens: int = N) -> Tensor:
    """Standard normal tokens that fit the memory."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, memory.D, generator=random, dtype=DOUBLE).to(dtype)


def reading_is_dense(make: Make) -> None:
    """What is gathered is what matrices over all rows say, and so are the gradients of input and parameters."""
    memory = built(make)
    said, grads = [], []
    for way in (memory, memory.densely):
        memory.zero_grad()
        h = drawn(memory).requires_grad_()
        y = way(h)
        torch.autograd.backward(loss_of(y))
        said.append(y)
        grads.append({"the input": h.grad, **{name: param.grad for name, param in memory.named_parameters()}})
    _close(said[0], said[1], "what is read")
    for name, dense in grads[1].items():
        got = grads[0][name]
        assert (got is None) == (dense is None), f"only one of the two ways has a gradient of {name}"
        if got is not None and dense is not None:
            _close(got, dense, f"the gradient of {name}", 1e-8)


def few_rows_are_touched(make: Make) -> None:
    """A token touches `touches` places at most, each a row of the tables, and far from all of them."""
    memory = built(make)
    tables = memory.tables()
    total = len(tables[0])
    rows = memory.rows(drawn(memory))
    assert rows.dtype == torch.int64, f"rows are {rows.dtype}"
    assert rows.shape == (N, memory.touches), f"rows are {tuple(rows.shape)}, due is ({N}, {memory.touches})"
    assert all(len(table) == total for table in tables), f"tables have {[len(table) for table in tables]} rows"
    assert 0 <= int(rows.min()) <= int(rows.max()) < total, f"rows from {rows.min()} to {rows.max()} of {total}"
    assert 2 * memory.touches <= total, f"a token touches {memory.touches} of {total} rows"
    read = sum(memory.touches * table.numel() // total * table.element_size() for table in tables)
    assert memory.touched_bytes() == read, f"it says that a token reads {memory.touched_bytes()} bytes, it reads {read}"


def untouched_rows_get_no_gradient(make: Make) -> None:
    """Rows with a gradient are exactly those touched; it is zero, and not small, in all others."""
    memory = built(make)
    h = drawn(memory, tokens=2)
    torch.autograd.backward(loss_of(memory(h)))
    touched = set(memory.rows(h).flatten().tolist())
    for number, table in enumerate(memory.tables()):
        assert table.grad is not None, f"no gradient reaches table {number}"
        reached = set(table.grad.flatten(1).any(1).nonzero().flatten().tolist())
        assert reached == touched, f"table {number}: {len(reached)} rows have a gradient, {len(touched)} were touched"


def only_touched_rows_are_read(make: Make) -> None:
    """Other rows may hold anything, bit for bit; another row changes what its tokens read, and theirs alone."""
    memory = built(make)
    h = drawn(memory)
    rows = memory.rows(h)
    before = memory(h)
    unread = torch.ones(len(memory.tables()[0]), dtype=torch.bool)
    unread[rows.flatten()] = False
    with torch.no_grad():
        for table in memory.tables():
            table[unread] = 1e6
        assert torch.equal(memory(h), before), "rows that no token touches change what is read"
        row = int(rows[0, 0])
        for table in memory.tables():
            table[row] += 1
    changed = (memory(h) - before).ne(0).any(1)
    assert torch.equal(changed, (rows == row).any(1)), f"row {row} changes other tokens than those which touch it"


def tokens_do_not_mix(make: Make) -> None:
    """A token reads what it reads alone, whatever the others are, and however many; order does not matter."""
    memory = built(make)
    h, other = drawn(memory), 3 * drawn(memory, seed=5)
    whole = memory(h)
    for token in range(N):
        _close(memory(h[token : token + 1]), whole[token : token + 1], f"token {token} alone")
    among = torch.where(torch.arange(N).unsqueeze(1) % 2 == 0, h, other)
    _close(memory(among)[::2], whole[::2], "a token among others")
    _close(memory(h.flip(0)), whole.flip(0), "the tokens backwards")


def bytes_are_the_formula(make: Make) -> None:
    """Parameters and buffers take what the card says, in every dtype, and reading adds nothing to them."""
    for dtype in DTYPES:
        memory = built(make, dtype)
        card: Any = type(memory).card  # type: ignore[attr-defined]
        with torch.no_grad():
            memory(drawn(memory, dtype))
        said = formula.evaluate(card.bytes, memory.shapes())
        held = sum(part.numel() * part.element_size() for part in (*memory.parameters(), *memory.buffers()))
        assert held == said, f"in {dtype} it holds {held} bytes, {card.bytes} = {said}"


def gradient_reaches_every_parameter(make: Make) -> None:
    """Where there are tokens enough, every parameter learns, and so does what came before the memory."""
    memory = built(make)
    h = drawn(memory, tokens=4 * N).requires_grad_()
    torch.autograd.backward(loss_of(memory(h)))
    for name, param in memory.named_parameters():
        reached = param.grad is not None and bool(param.grad.any()) and bool(param.grad.isfinite().all())
        assert reached or not param.requires_grad, f"no finite gradient reaches {name}"
    assert h.grad is not None, "no gradient reaches the input"
    assert h.grad.any(-1).all(), "no gradient reaches some tokens"


def state_dict_round_trip(make: Make) -> None:
    """Saved and loaded into one of another seed, it answers bit for bit as before, buffers too; a copy stands alone."""
    memory = built(make)
    h = drawn(memory)
    saved_answers_as_before(memory, built(make, seed=9), lambda model: (model(h), (model.rows(h),)))


def dtype_is_kept(make: Make) -> None:
    """Outputs have the dtype of the input and are finite, in float32, bfloat16 and float64."""
    for dtype in DTYPES:
        memory = built(make, dtype)
        y = memory(drawn(memory, dtype))
        assert y.dtype == dtype, f"{dtype} came out as {y.dtype}"
        assert y.isfinite().all(), f"outputs in {dtype} are not finite"


def nothing_is_kept_between_calls(make: Make) -> None:
    """The same call gives the same answer; input, parameters, buffers and torch's generator are left as they were."""
    memory = built(make)
    h = drawn(memory)
    saved, before, random = copy.deepcopy(memory.state_dict()), h.clone(), torch.get_rng_state()
    first = memory(h)
    memory(drawn(memory, seed=7, tokens=5))
    assert torch.equal(memory(h), first), "the same call answers otherwise"
    assert torch.equal(torch.get_rng_state(), random), "it draws from torch's global generator"
    assert torch.equal(h, before), "the input was written to"
    now = memory.state_dict()
    assert all(torch.equal(now[name], old) for name, old in saved.items()), "a call changed parameters or buffers"


def no_tokens_are_allowed(make: Make) -> None:
    """N = 0 gives N = 0, rows of none."""
    memory = built(make)
    h = drawn(memory, tokens=0)
    y, rows = memory(h), memory.rows(h)
    assert y.shape == (0, memory.D), f"no tokens became {tuple(y.shape)}"
    assert rows.shape == (0, memory.touches), f"no tokens touch rows {tuple(rows.shape)}"


def bad_input_is_refused(make: Make) -> None:
    """A wrong width or dtype, or a value that is not finite, is one ValueError."""
    memory = built(make)
    h, width = drawn(memory), memory.D
    nan, infinite = h.clone(), h.clone()
    nan[0, 0], infinite[1, 0] = torch.nan, torch.inf
    refused(lambda: memory(torch.cat([h, h], 1)), str(2 * width), str(width))
    refused(lambda: memory(h.unsqueeze(0)), str((1, N, width)), str(width))
    refused(lambda: memory(torch.ones(N, width, dtype=torch.int64)), "int64")
    refused(lambda: memory(nan), "not finite")
    refused(lambda: memory(infinite), "not finite")


def runs_under_compile(make: Make) -> None:
    """torch.compile changes neither outputs nor gradients."""
    memory = built(make)
    h = drawn(memory).requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(memory, backend="aot_eager")
    try:
        got = compiled(h)
    except Exception as error:
        raise AssertionError(f"under torch.compile it raises {type(error).__name__}: {error}") from error
    want = memory(h)
    _close(got, want, "the compiled form", 1e-9)
    one, two = (torch.autograd.grad(loss_of(y), h)[0] for y in (got, want))
    _close(one, two, "a gradient of the compiled form", 1e-8)
    torch._dynamo.reset()


def runs_under_autocast(make: Make) -> None:
    """Under autocast to bfloat16 it is near to float32, though a few rows may be others, and gradients are finite."""
    memory = built(make, torch.float32)
    h = drawn(memory, torch.float32, tokens=4 * N)
    want = memory(h)
    with torch.autocast("cpu", torch.bfloat16):
        try:
            got = memory(h).float()
        except Exception as error:
            raise AssertionError(f"under autocast it raises {type(error).__name__}: {error}") from error
    off = (got.detach() - want.detach()).norm(dim=1) / want.detach().norm(dim=1)
    assert off.median() <= 0.05, f"under autocast half of the tokens are off by {float(off.median()):.1%} or more"
    torch.autograd.backward(loss_of(got))
    bad = [name for name, p in memory.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad, f"under autocast the gradients of {bad} are not finite"


def _close(got: Tensor, want: Tensor, what: str, within: float = EXACT) -> None:
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, due is {tuple(want.shape)}"
    assert gap(got, want) <= within, f"{what} is off by {gap(got, want):.1e}"


LAWS: tuple[Law, ...] = (
    reading_is_dense, few_rows_are_touched, untouched_rows_get_no_gradient, only_touched_rows_are_read,
    tokens_do_not_mix, bytes_are_the_formula, gradient_reaches_every_parameter, state_dict_round_trip, dtype_is_kept,
    nothing_is_kept_between_calls, no_tokens_are_allowed, bad_input_is_refused, runs_under_compile, runs_under_autocast,
)  # fmt: skip

"""The laws of number formats as data (`LAWS`), run over every member and every usual variant of it.

A law takes `make`; `make()` is the format. The slow form of slow.py is the oracle; torch is tested where it is there.
A law speaks of one grid: formats with scales fit them to the law's own values first.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from loci.budget.precision.grid import Grid
from loci.budget.precision.integer import IntegerFormat
from loci.budget.precision.modes import DRAWN, MODES, NEAREST, SYMMETRIC, Mode
from loci.budget.precision.packing import pack, unpack
from loci.budget.precision.slow import round_slowly
from loci.budget.precision.subjects import SHAPE, VARIANTS, Floats, carriers, formats, values
from loci.core.checking import Case, Law, Make, cases

TORCH = importlib.util.find_spec("torch") is not None
OPPOSITE: dict[Mode, Mode] = {"up": "down", "down": "up", **{mode: mode for mode in SYMMETRIC}}


def format_cases() -> Iterator[Case]:
    """Every member under every law, by its card's example and by its variants."""
    formats()
    for case in cases("number-format", LAWS):
        yield case
        for name, example in VARIANTS.get(case.card.name, {}).items():
            yield Case(replace(case.card, name=f"{case.card.name}.{name}", example=example), case.member, case.law)


def is_exact(make: Make) -> None:
    """The fast form is the slow one, bit for bit, in all ten modes, signs of zeros included."""
    for x in carriers(make):
        grid = make().grid(x)
        for mode in MODES:
            fast = make().round(x, mode, random=_random())
            slow = round_slowly(grid, x, mode, random=_random())
            _same(fast, slow, x, f"the fast form is not the slow one under {mode}")


def is_idempotent(make: Make) -> None:
    """Rounded twice is rounded once."""
    for x in carriers(make):
        grid = make().grid(x)
        for mode in MODES:
            once = _finite(grid.round(x, mode, random=_random()))
            _same(grid.round(once, mode, random=_random()), once, x, f"rounding again under {mode} moves")


def is_monotone(make: Make) -> None:
    """At the same scale a number of larger size is never rounded to one of smaller size."""
    for x in carriers(make):
        grid = make().grid(x)
        inside = _around(grid, x)[1]
        for mode in sorted(set(MODES) - DRAWN):
            span = [np.abs(grid.round((x * (1 - k / 40)).astype(x.dtype), mode))[inside] for k in range(9)]
            for above, below in pairwise(span):
                assert (below <= above).all(), f"a larger number is rounded to a smaller one under {mode}"


def errs_within_the_unit_roundoff(make: Make) -> None:
    """Nearest errs by at most half a step, the others by less than one; relatively by u and 2u on normal numbers."""
    for x in carriers(make):
        kind, grid = make(), make().grid(x)
        step, inside = _around(grid, x)
        size = np.abs(x.astype(np.float64))
        scale = grid.spread(grid.scale, x.shape)
        normal = inside & (size >= kind.smallest_normal * scale) & (size <= kind.largest * scale)
        for mode in MODES:
            error = np.abs(kind.round(x, mode, random=_random()).astype(np.float64) - x)
            share = 0.5 if mode in NEAREST else 1.0
            bad = inside & ((error > share * step) | ((share == 1.0) & (error >= step) & (step > 0)))
            assert not bad.any(), f"{mode} errs by more than {share} steps at {x[bad][:3]}"
            bad = normal & (error > 2 * share * kind.unit_roundoff * size)
            assert not bad.any(), f"{mode} errs by more than {2 * share} u at {x[bad][:3]}"


def mirrors(make: Make) -> None:
    """Q(-x) = -Q(x) in symmetric modes; up and down are each other's mirror image."""
    for x in carriers(make):
        grid = make().grid(x)
        inside = _around(grid, x)[1] & _around(grid, -x)[1]
        for mode, other in OPPOSITE.items():
            here, there = grid.round(x, mode), -grid.round(-x, other)
            _same(
                here[inside],
                there[inside] + 0.0 if not grid.signed_zero else there[inside],
                x[inside],
                f"{mode} of -x is not -{other} of x",
            )


def directed_modes_enclose(make: Make) -> None:
    """Down <= x <= up, one step apart unless x is a number of the format; towards zero is never larger; all lie between."""
    for x in carriers(make):
        kind, grid = make(), make().grid(x)
        inside = _around(grid, x)[1]
        low, high = (kind.round(x, mode).astype(np.float64)[inside] for mode in ("down", "up"))
        assert ((low <= x[inside]) & (x[inside] <= high)).all(), "down and up do not enclose x"
        step = grid.steps(x)[inside]
        apart = high - low
        assert ((apart == 0) == (low == x[inside])).all(), (
            "down and up differ at a number of the format, or agree elsewhere"
        )
        assert (np.abs(apart[apart > 0] - step[apart > 0]) <= 1e-12 * step[apart > 0]).all(), (
            "down and up are not one step apart"
        )
        assert (np.abs(kind.round(x, "toward-zero")) <= np.abs(x)).all(), "towards zero is larger than x"
        for mode in MODES:
            value = kind.round(x, mode, random=_random())[inside]
            assert ((value == low) | (value == high)).all(), f"{mode} is neither of the neighbours"


def stochastic_is_unbiased(make: Make) -> None:
    """Over 20,000 draws the mean of stochastic is x, that of coin and random-direction the midpoint, in 4 standard errors."""
    rows = np.array([[-0.41, -0.15, 0.0, 0.15, 0.2, 0.29, 0.33, 1.0]] * 20_000) * 0.7
    kind = make()
    grid = kind.grid(rows)
    _, inside = _around(grid, rows)
    inside[:, -1] = False  # that one sets the scale
    low, high = (kind.round(rows, mode).astype(np.float64)[0] for mode in ("down", "up"))
    for mode, target in (("stochastic", rows[0]), ("coin", (low + high) / 2), ("random-direction", (low + high) / 2)):
        drawn = kind.round(rows, mode, random=_random())
        error = np.abs(drawn.mean(axis=0) - target)[inside[0]]
        bound = (4 * drawn.std(axis=0) / math.sqrt(len(rows)) + 1e-12)[inside[0]]
        share = np.abs(target - low)[inside[0]] / np.maximum(high - low, 1e-300)[inside[0]]
        clear = (share > 1e-3) & (share < 1 - 1e-3) | (high == low)[inside[0]]  # rarer than the draws can show
        assert (error[clear] <= bound[clear]).all(), (
            f"{mode} is biased by {error.max():.2e}, more than {bound.max():.2e}"
        )


def same_seed_same_numbers(make: Make) -> None:
    """Drawn modes depend on the given generator alone, differ between seeds, and leave numpy's global one alone."""
    x, kind = values(), make()
    moves = not np.array_equal(kind.round(x, "up"), kind.round(x, "down"))
    before = str(np.random.get_state(legacy=False))  # noqa: NPY002 - the state that must not move
    for mode in sorted(DRAWN):
        one, two, other = (kind.round(x, mode, random=np.random.default_rng(seed)) for seed in (3, 3, 4))
        _same(one, two, x, f"the same seed gives other numbers under {mode}")
        assert not moves or not np.array_equal(one, other), f"another seed gives the same numbers under {mode}"
    assert before == str(np.random.get_state(legacy=False)), "it drew from numpy's global generator"  # noqa: NPY002
    try:
        kind.round(x, "stochastic")
    except ValueError as error:
        assert "random" in str(error), "the error does not name random"  # noqa: PT017
    else:
        raise AssertionError("it draws without a generator")


def special_values_are_kept(make: Make) -> None:
    """NaN stays NaN; infinity overflows as the format says, in every mode; neighbours and signs are left alone."""
    x = values()
    x[5, 0], x[5, 7], x[5, 9] = math.nan, math.inf, -math.inf
    plain = np.where(np.isfinite(x), x, 0.0)
    kind = make()
    overflow = kind.element().overflow
    _, high = (end[5, 7] for end in _limits(kind.grid(x), x))
    for mode in MODES:
        y = kind.round(x, mode, random=_random())
        assert math.isnan(y[5, 0]), f"NaN became {y[5, 0]} under {mode}"
        meant = {"infinity": math.inf, "nan": math.nan, "saturate": high}[overflow]
        assert np.array_equal(y[5, 7], meant, equal_nan=True), f"infinity became {y[5, 7]} under {mode}, not {meant}"
        rest = np.isfinite(x)
        _same(y[rest], kind.round(plain, mode, random=_random())[rest], x, f"a NaN changes its neighbours under {mode}")


def dtype_and_shape_are_kept(make: Make) -> None:
    """Any shape, empty and scalar too, comes back in its dtype and is left as it was; zeros stay zeros; integers are refused."""
    kind = make()
    axes = isinstance(kind, IntegerFormat) and kind.axis is not None
    for x in carriers(make):
        for shape in ((8, 45), (3, 4, 5), (7,), (2, 0), (0,), *([] if axes else [()])):
            y = np.resize(x, shape).astype(x.dtype)
            before = y.copy()
            got = kind.round(y)
            assert isinstance(got, np.ndarray), f"an array became a {type(got).__name__}"
            assert (got.dtype, got.shape) == (y.dtype, y.shape), f"{y.dtype} {y.shape} became {got.dtype} {got.shape}"
            assert np.array_equal(before, y), "it wrote into what it was given"
        assert not kind.round(np.zeros_like(x)).any(), "zero is no number of the format"
    try:
        kind.round(np.ones(3, dtype=np.int64))
    except TypeError:
        return
    raise AssertionError("whole numbers were taken")


def bytes_are_the_formula(make: Make) -> None:
    """A packed array has the bytes that the card says, and unpacks to the rounded array."""
    kind = make()
    for rows, columns in (SHAPE, (1, 33), (3, 8)):
        x = values()[:rows, :columns]
        packed = pack(kind, x)
        said = kind.nbytes(x.shape)
        assert len(packed) == said, (
            f"{x.shape} packs into {len(packed)} bytes, the card says {kind.card.bytes} = {said}"
        )
        _same(unpack(kind, packed, x.shape) + 0.0, kind.round(x) + 0.0, x, "the packed array is another one")


def torch_agrees(make: Make) -> None:
    """Tensors are rounded as numpy arrays are, bit for bit, in the modes that do not draw."""
    if not TORCH:
        return
    torch: Any = importlib.import_module("torch")
    for x in carriers(make):
        x[4, :3] = math.nan, math.inf, -math.inf
        for mode in sorted(set(MODES) - DRAWN):
            here, there = make().round(x, mode), make().round(torch.from_numpy(x.copy()), mode)
            assert str(there.dtype) == f"torch.{x.dtype}", f"a tensor of {x.dtype} became {there.dtype}"
            _same(there.numpy(), here, x, f"torch is not numpy under {mode}")
        one, two = (
            make().round(torch.from_numpy(x), "stochastic", random=torch.Generator().manual_seed(1)) for _ in "12"
        )
        _same(one.numpy(), two.numpy(), x, "the same torch seed gives other numbers")


def gradient_passes_straight_through(make: Make) -> None:
    """The gradient of sum(w * Q(x)) with respect to x is w, also where x saturates."""
    if not TORCH:
        return
    torch: Any = importlib.import_module("torch")
    x = torch.from_numpy(values()).requires_grad_()
    w = torch.from_numpy(values()[::-1].copy())
    y = make().round(x)
    assert y.requires_grad, "Q cuts the graph"
    (grad,) = torch.autograd.grad((y * w).sum(), x)
    assert torch.equal(grad, w), "the gradient does not pass straight through"


def _random() -> np.random.Generator:
    return np.random.default_rng(7)


def _finite(x: Floats) -> Floats:
    return np.where(np.isfinite(x), x, np.zeros_like(x))


def _limits(grid: Grid, x: Floats) -> tuple[Floats, Floats]:
    scale = grid.spread(grid.scale, x.shape)
    return grid.spread(grid.low, x.shape) * scale, grid.spread(grid.high, x.shape) * scale


def _around(grid: Grid, x: Floats) -> tuple[Floats, Floats]:
    """The distance of the neighbours of each value, and whether it lies between the format's ends."""
    low, high = _limits(grid, x)
    return grid.steps(x), (low <= x) & (x <= high)


def _same(one: Floats, two: Floats, x: Floats, what: str) -> None:
    equal = (one == two) & (np.signbit(one) == np.signbit(two)) | (np.isnan(one) & np.isnan(two))
    assert equal.all(), f"{what}: {one[~equal][:3]} against {two[~equal][:3]}"


LAWS: tuple[Law, ...] = (
    is_exact, is_idempotent, is_monotone, errs_within_the_unit_roundoff, mirrors, directed_modes_enclose,
    stochastic_is_unbiased, same_seed_same_numbers, special_values_are_kept, dtype_and_shape_are_kept,
    bytes_are_the_formula, torch_agrees, gradient_passes_straight_through,
)  # fmt: skip

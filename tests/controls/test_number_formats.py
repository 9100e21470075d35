"""Broken twins: each law of number formats must catch, by name, the format that breaks it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from loci.budget.precision import FloatFormat, IntegerFormat, arrays, checks
from loci.core.checking import broken_by

torch.set_num_threads(1)


class Twice(FloatFormat):
    """Rounds to a wider format first, as torch's float64 -> float16 cast goes through float32."""

    def round(self, x, mode="nearest-even", *, random=None):
        return super().round(FloatFormat(8, self.significand + 1).round(x, "nearest-away"), mode, random=random)


class Drifting(FloatFormat):
    """A grid that is a tenth off wherever it is asked again."""

    def grid(self, x):
        return _Drift(super().grid(x))


class _Drift:
    def __init__(self, grid):
        self.inner = grid

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def round(self, x, mode="nearest-even", *, random=None):
        return self.inner.round((x * 1.1).astype(x.dtype), mode, random=random)


class Wrapping(FloatFormat):
    """Its two's complement wraps around within the range."""

    def grid(self, x):
        return _Wrap(super().grid(x))


class _Wrap(_Drift):
    def round(self, x, mode="nearest-even", *, random=None):
        y = self.inner.round(x, mode, random=random)
        return np.where(np.abs(y) > self.inner.high / 2, -y / 4, y).astype(x.dtype)


class Truncating(FloatFormat):
    """Calls truncation nearest."""

    def round(self, x, mode="nearest-even", *, random=None):
        return super().round(x, "toward-zero" if mode == "nearest-even" else mode, random=random)


class Lopsided(FloatFormat):
    """Ties to zero and away look at the number, not its size: the library's version 0.6.0."""

    def grid(self, x):
        return _Lop(super().grid(x))


class _Lop(_Drift):
    def round(self, x, mode="nearest-even", *, random=None):
        swap = {"nearest-zero": "nearest-away", "nearest-away": "nearest-zero"}
        y = self.inner.round(x, mode, random=random)
        return np.where(np.signbit(x), self.inner.round(x, swap.get(mode, mode), random=random), y)


class Inward(FloatFormat):
    """Rounds negative numbers up in size when asked for up: directed modes by size."""

    def round(self, x, mode="nearest-even", *, random=None):
        y = super().round(np.abs(x), mode, random=random)
        return np.copysign(y, x)


class Loaded(FloatFormat):
    """Its dice are loaded: up in 6 of 10."""

    def round(self, x, mode="nearest-even", *, random=None):
        if mode != "stochastic":
            return super().round(x, mode, random=random)
        up = random.random(x.shape) < 0.6
        return np.where(up, super().round(x, "up"), super().round(x, "down"))


class Global(FloatFormat):
    """Draws from numpy's global generator."""

    def round(self, x, mode="nearest-even", *, random=None):
        own = None if random is None else np.random.default_rng(np.random.randint(2**31))  # noqa: NPY002
        return super().round(x, mode, random=own)


class Numbing(FloatFormat):
    """Takes NaN for zero."""

    def round(self, x, mode="nearest-even", *, random=None):
        return super().round(np.nan_to_num(x, posinf=np.inf, neginf=-np.inf), mode, random=random)


class Spreading(IntegerFormat):
    """One NaN is everybody's NaN, by way of the scale."""

    def round(self, x, mode="nearest-even", *, random=None):
        return super().round(x, mode, random=random) + (x.max() * 0)


class Promoting(FloatFormat):
    """Answers in float64 whatever it was asked in."""

    def round(self, x, mode="nearest-even", *, random=None):
        return super().round(x, mode, random=random).astype(np.float64)


class Scribbling(FloatFormat):
    """Writes into what it was given."""

    def round(self, x, mode="nearest-even", *, random=None):
        x[...] = super().round(x, mode, random=random)
        return x


class Boasting(FloatFormat):
    """Counts no sign bit."""

    def nbytes(self, shape):
        return super().nbytes(shape) * (self.bits - 1) // self.bits


class Doubting(FloatFormat):
    """Rounds torch tensors through torch's float32."""

    def round(self, x, mode="nearest-even", *, random=None):
        if arrays.is_torch(x):
            return super().round(x.float() * (1 + 2.0**-20), mode, random=random).to(x.dtype)
        return super().round(x, mode, random=random)


class Cutting(FloatFormat):
    """Cuts the graph."""

    def round(self, x, mode="nearest-even", *, random=None):
        return super().round(x.detach() if arrays.is_torch(x) else x, mode, random=random)


class Clamping(FloatFormat):
    """Lets no gradient through where it saturates."""

    def round(self, x, mode="nearest-even", *, random=None):
        y = super().round(x, mode, random=random)
        return torch.where(x.abs() > self.largest / 4, y.detach(), y) if arrays.is_torch(x) else y


Q52 = {"exponent": 5, "significand": 2}
TWINS = [
    (checks.is_exact, Twice, Q52),
    (checks.is_idempotent, Drifting, Q52),
    (checks.is_monotone, Wrapping, Q52),
    (checks.errs_within_the_unit_roundoff, Truncating, Q52),
    (checks.mirrors, Lopsided, Q52),
    (checks.directed_modes_enclose, Inward, Q52),
    (checks.stochastic_is_unbiased, Loaded, Q52),
    (checks.same_seed_same_numbers, Global, Q52),
    (checks.special_values_are_kept, Numbing, Q52),
    (checks.special_values_are_kept, Spreading, {"bits": 8}),
    (checks.dtype_and_shape_are_kept, Promoting, Q52),
    (checks.dtype_and_shape_are_kept, Scribbling, Q52),
    (checks.bytes_are_the_formula, Boasting, Q52),
    (checks.torch_agrees, Doubting, Q52),
    (checks.gradient_passes_straight_through, Cutting, Q52),
    (checks.gradient_passes_straight_through, Clamping, Q52),
]


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@pytest.mark.parametrize(("law", "twin", "example"), TWINS, ids=lambda part: getattr(part, "__name__", ""))
def test_the_law_catches_its_broken_twin(law, twin, example) -> None:
    assert broken_by(law, lambda: twin(**example)), f"{law.__name__} lets {twin.__name__} pass"


def test_every_law_has_a_twin_and_every_sound_parent_keeps_it() -> None:
    assert {law for law, _, _ in TWINS} == set(checks.LAWS)
    for law, twin, example in TWINS:
        parent = twin.__mro__[1]
        assert not broken_by(law, lambda parent=parent, example=example: parent(**example)), (law, parent)

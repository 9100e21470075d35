"""Number formats against casts that others wrote: numpy, torch and ml_dtypes, bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes")
torch = pytest.importorskip("torch")

from loci.budget.precision import (
    MX,
    FixedPoint,
    FloatFormat,
    IntegerFormat,
    RoundedArray,
    Rounder,
    pack,
    preset,
    rounded_operations,
    unpack,
)
from loci.budget.precision.packing import codes

torch.set_num_threads(1)
MILLION = 1_000_000
MINIFLOATS = {
    "float8_e4m3fn": FloatFormat(4, 3, top="nan"),
    "float8_e4m3": FloatFormat(4, 3),
    "float8_e5m2": FloatFormat(5, 2),
    "float8_e3m4": FloatFormat(3, 4),
    "float6_e2m3fn": FloatFormat(2, 3, top="number"),
    "float6_e3m2fn": FloatFormat(3, 2, top="number"),
    "float4_e2m1fn": FloatFormat(2, 1, top="number"),
    "bfloat16": FloatFormat(8, 7),
}
TORCHS = {
    "float8_e4m3fn": FloatFormat(4, 3, top="nan"),
    "float8_e5m2": preset("q52"),
    "bfloat16": preset("bfloat16"),
    "float16": preset("half"),
}


def same(one, two) -> bool:
    one, two = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
    nan = np.isnan(one) & np.isnan(two)
    return bool(((one == two) & (np.signbit(one) == np.signbit(two)) | nan).all())


def spread(low: float, high: float, *, ties: int = 0) -> np.ndarray:
    """10^6 float32 values of both signs, sizes even in the logarithm; a third of them cut to few bits, so that ties are common."""
    random = np.random.default_rng(0)
    x = np.exp2(random.uniform(low, high, MILLION)) * random.choice([-1.0, 1.0], MILLION)
    few = slice(0, MILLION // 3)
    mantissa, exponent = np.frexp(x[few])
    x[few] = np.ldexp(np.round(mantissa * 2**ties), exponent - ties)
    return x.astype(np.float32)


def all_halves() -> np.ndarray:
    return np.arange(2**16, dtype=np.uint16).view(np.float16)


def all_bfloats() -> np.ndarray:
    return np.arange(2**16, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float32)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast", "ignore:invalid value encountered in cast")
class TestCasts:
    def test_half_is_numpys(self) -> None:
        x = np.concatenate(
            [spread(-30, 20, ties=12).astype(np.float64), np.random.default_rng(1).uniform(-1e6, 1e6, 1000)]
        )
        edges = [
            65504,
            65519.9,
            65520,
            65536,
            70000,
            131071,
            2.0**-24,
            2.0**-25,
            2.0**-25 * (1 + 2**-30),
            0.0,
            -0.0,
            math.nan,
            math.inf,
        ]
        x = np.concatenate([x, edges, np.negative(edges)])
        assert same(preset("half").round(x), x.astype(np.float16))
        assert preset("half").round(np.array([65519.9, 65520, 131071, 2.0**-24, 2.0**-25])).tolist() == [
            65504,
            math.inf,
            math.inf,
            2.0**-24,
            0,
        ]

    def test_single_is_numpys(self) -> None:
        x = spread(-148, 127).astype(np.float64) * (1 + np.random.default_rng(2).random(MILLION))
        assert same(preset("single").round(x), x.astype(np.float32))
        assert same(preset("double").round(x), x)
        top = np.array(
            [3.4028235677973366e38, np.nextafter(3.4028235677973366e38, 0)]
        )  # halfway to 2^128, and just below
        assert same(preset("single").round(top), [math.inf, np.finfo(np.float32).max])

    @pytest.mark.parametrize("name", MINIFLOATS)
    def test_is_ml_dtypes(self, name) -> None:
        kind, dtype = MINIFLOATS[name], getattr(ml_dtypes, name)
        top, least = math.log2(kind.largest), math.log2(kind.smallest_normal) - kind.significand
        x = spread(max(least - 2, -149), min(top + 2, 128 - 1e-7), ties=kind.significand + 2)
        edges = np.array(
            [0.0, kind.largest, np.nextafter(np.float32(kind.largest), np.float32(math.inf))], dtype=np.float32
        )
        x = np.concatenate([x, edges, -edges])
        assert same(kind.round(x), x.astype(dtype))
        assert same(kind.round(torch.from_numpy(x)).numpy(), x.astype(dtype))

    @pytest.mark.parametrize("name", MINIFLOATS)
    def test_is_ml_dtypes_on_all_16_bit_inputs(self, name) -> None:
        kind, dtype = MINIFLOATS[name], getattr(ml_dtypes, name)
        for x in (all_halves().astype(np.float32), all_bfloats()):
            special = ~np.isfinite(x) if kind.top == "number" else np.zeros(x.shape, dtype=bool)
            assert same(kind.round(x)[~special], x[~special].astype(dtype))  # 4 and 6 bits have no code for NaN
        if name != "bfloat16":
            x = all_halves()
            assert same(
                kind.round(x)[np.isfinite(x)], x.astype(np.float32).astype(dtype)[np.isfinite(x)]
            )  # in their own dtype

    @pytest.mark.parametrize("name", TORCHS)
    def test_is_torchs(self, name) -> None:
        kind, dtype = TORCHS[name], getattr(torch, name)
        x = torch.from_numpy(
            np.concatenate([spread(-28, 19, ties=kind.significand + 2), all_halves().astype(np.float32), all_bfloats()])
        )
        x = x[~(x.abs() > 464)] if kind.top == "nan" else x  # past it torch says NaN or 448, by its version
        assert same(kind.round(x), x.to(dtype).float())

    @pytest.mark.parametrize("name", [name for name in MINIFLOATS if name != "bfloat16"])
    def test_codes_are_ml_dtypes(self, name) -> None:
        kind, dtype = MINIFLOATS[name], getattr(ml_dtypes, name)
        x = spread(-12, 7)[:10_000]
        assert (codes(kind, x) == x.astype(dtype).view(np.uint8)).all()
        every = np.arange(2**kind.bits, dtype=np.uint8)
        assert same(
            unpack(kind, np.packbits(np.unpackbits(every[:, None], axis=1)[:, -kind.bits :]).tobytes(), every.shape),
            every.view(dtype),
        )


def test_ties_and_both_signs() -> None:
    x = np.array([1.125, -1.125, 1.375, -1.375])
    q52 = preset("q52")
    assert q52.round(x, "nearest-zero").tolist() == [1.0, -1.0, 1.25, -1.25]
    assert q52.round(x, "nearest-away").tolist() == [1.25, -1.25, 1.5, -1.5]
    assert q52.round(x, "nearest-even").tolist() == [1.0, -1.0, 1.5, -1.5]
    assert q52.round(x, "odd").tolist() == [1.25, -1.25, 1.25, -1.25]


def test_overflow_of_directed_modes_is_ieee() -> None:
    x = np.array([1e9, -1e9])
    half = preset("half")
    assert half.round(x, "up").tolist() == [math.inf, -65504.0]
    assert half.round(x, "down").tolist() == [65504.0, -math.inf]
    assert half.round(x, "toward-zero").tolist() == half.round(x, "odd").tolist() == [65504.0, -65504.0]


def test_neighbours_of_half_are_numpys_nextafter() -> None:
    x = np.random.default_rng(3).standard_normal(10_000) * np.exp2(np.random.default_rng(4).uniform(-26, 15, 10_000))
    x = x[np.abs(x) < 65000]
    down = preset("half").round(x, "down").astype(np.float16)
    assert (np.nextafter(down, np.float16(math.inf)) == preset("half").round(x, "up").astype(np.float16)).all()


def test_without_subnormals_nothing_lies_between_zero_and_the_smallest_normal() -> None:
    kind = FloatFormat(4, 3, subnormals=False)
    least = 2.0**-6
    x = np.array([0.4, 0.5, 0.6, 1.0]) * least
    assert (kind.round(x) / least).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert (kind.round(x, "up") / least).tolist() == [1.0, 1.0, 1.0, 1.0]


def test_fixed_point_is_numpys_rint() -> None:
    x = spread(-6, 5, ties=4)
    assert same(FixedPoint(4, 0).round(x), np.clip(np.rint(x), -8, 7).astype(ml_dtypes.int4).astype(np.float64))
    assert same(FixedPoint(3, 5).round(x), np.clip(np.rint(x * 32) / 32, -4, 4 - 1 / 32) + 0.0)


class TestAccumulation:
    """The card's experiment: 1e-3 added ten thousand times in (8, 7); the true sum is 10."""

    def total(self, mode, seeds: int, adds: int = 10_000) -> torch.Tensor:
        total = torch.zeros(seeds)
        with rounded_operations(Rounder(preset("bfloat16"), mode, seed=0)):
            for _ in range(adds):
                total = total + 1e-3
        return total

    def test_nearest_stagnates_at_one_half(self) -> None:
        assert self.total("nearest-even", 1, 1_000).tolist() == self.total("nearest-even", 1, 2_000).tolist() == [0.5]

    def test_stochastic_reaches_ten(self) -> None:
        assert self.total("stochastic", 20).mean().item() == pytest.approx(10, rel=0.05)

    def test_numpy_stagnates_at_the_same_place(self) -> None:
        x = RoundedArray(np.zeros(1), Rounder(preset("bfloat16")))
        for _ in range(1_000):
            x = x + 1e-3
        assert x.value.tolist() == [0.5]


@pytest.mark.parametrize(("call", "words"), [
    (lambda: FloatFormat(1, 3), "exponent=1"),
    (lambda: FloatFormat(5, 0), "significand=0"),
    (lambda: FloatFormat(5, 2, top="all"), "top='all'"),
    (lambda: FloatFormat(2, 1, top="number", overflow="infinity"), "choose one of saturate"),
    (lambda: preset("fp16"), "choose one of q43"),
    (lambda: MX("e9m9"), "choose one of e4m3"),
    (lambda: FixedPoint(40, 40), "integer + fraction=80"),
    (lambda: IntegerFormat(1), "bits=1"),
    (lambda: IntegerFormat(8, limits=(1.0, -1.0)), "low <= high"),
    (lambda: IntegerFormat(8, 3).round(np.ones((2, 2))), "axis=3"),
    (lambda: IntegerFormat(8, 0).calibrated([0.0], [1.0]).round(np.ones((2, 2))), "2 channels"),
    (lambda: preset("single").round(np.ones(2, dtype=np.float16)), "wider array"),
    (lambda: preset("half").round(torch.ones(2, dtype=torch.bfloat16)), "wider array"),
    (lambda: preset("half").round(np.ones(2), "stochastic"), "default_rng"),
    (lambda: preset("half").round(np.ones(2), "ceil"), "nearest-even"),
    (lambda: pack(MX("e2m1"), np.array([math.nan])), "NaN"),
    (lambda: unpack(MX("e2m1"), b"", (3,)), "0 bytes"),
])  # fmt: skip
def test_what_cannot_be_is_one_clear_error(call, words) -> None:
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


@pytest.mark.parametrize("x", [[1.0], 1.0, np.ones(2, dtype=complex), torch.ones(2, dtype=torch.int32)])
def test_what_is_no_floating_array_is_a_type_error(x) -> None:
    with pytest.raises(TypeError):
        preset("half").round(x)
    with pytest.raises(TypeError):
        preset("half").round(np.ones(2), "coin", random=torch.Generator())

"""Formats with scales: MX, block floating point and integers, against loops over their blocks and channels."""

from __future__ import annotations

import math

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes")
torch = pytest.importorskip("torch")

from loci.budget.precision import MX, BlockFloat, FixedPoint, FloatFormat, IntegerFormat, pack
from loci.budget.precision.packing import codes

torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "element", "largest"), [
    ("e4m3", ml_dtypes.float8_e4m3fn, 448), ("e5m2", ml_dtypes.float8_e5m2, 57344), ("e3m2", ml_dtypes.float6_e3m2fn, 28),
    ("e2m3", ml_dtypes.float6_e2m3fn, 7.5), ("e2m1", ml_dtypes.float4_e2m1fn, 6), ("int8", None, 127 / 64),
])  # fmt: skip
def test_mx_is_a_loop_over_blocks(name, element, largest) -> None:
    random = np.random.default_rng(5)
    x = (random.standard_normal((200, 80)) * np.exp2(random.integers(-30, 30, (200, 1)))).astype(np.float32)
    x[3, 32:64] = 0.0
    assert MX(name).largest == largest
    want = np.empty(x.shape)
    for row in range(200):
        for start in (0, 32, 64):
            part = x[row, start : start + 32].astype(np.float64)
            size = np.abs(part).max()
            scale = 2.0 ** (math.floor(math.log2(size)) - math.floor(math.log2(largest))) if size else 1.0
            assert np.float64(np.float64(scale).astype(ml_dtypes.float8_e8m0fnu)) == scale
            inner = np.clip(part / scale, -largest, largest)
            cast = (
                np.rint(inner * 64) / 64
                if element is None
                else inner.astype(np.float32).astype(element).astype(np.float64)
            )
            want[row, start : start + 32] = cast * scale
    got = MX(name).round(x)
    assert (got == want).all()
    assert len(pack(MX(name), x)) == MX(name).nbytes(x.shape) == math.ceil(x.size * MX(name).bits / 8) + 600


def test_block_float_is_integers_under_an_exponent() -> None:
    x = np.random.default_rng(6).standard_normal((50, 48))
    for width in (4, 8, 12):
        blocks = x.reshape(50, 3, 16)
        step = np.exp2(np.floor(np.log2(np.abs(blocks).max(-1, keepdims=True))) - (width - 2))
        most = 2 ** (width - 1) - 1
        want = np.clip(np.rint(blocks / step), -most, most) * step
        assert (BlockFloat(width).round(x) == want.reshape(x.shape)).all()


def test_block_formats_rounded_twice_are_rounded_once_scales_and_all() -> None:
    x = np.random.default_rng(7).standard_normal((20, 64)) * 3
    for kind in (MX("e4m3"), MX("int8"), BlockFloat(5), IntegerFormat(8), IntegerFormat(4, 0)):
        for mode in ("nearest-even", "up", "down", "toward-zero", "nearest-away", "odd"):
            once = kind.round(x, mode)
            assert (kind.round(once, mode) == once).all(), (kind, mode)


def test_affine_integers_use_all_codes_and_torchs_formula() -> None:
    x = np.random.default_rng(8).uniform(-1, 3, 20_000).astype(np.float32)
    kind = IntegerFormat(8, symmetric=False)
    assert len(set(codes(kind, x).tolist())) == 256
    scale, zero = float(kind.grid(x).scale.item()), int(kind.grid(x).zero.item())
    theirs = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), scale, zero, 0, 255)
    away_from_ties = np.abs(x / scale % 1 - 0.5) > 1e-3  # torch multiplies by a float32 reciprocal
    assert np.allclose(kind.round(x)[away_from_ties], theirs.numpy()[away_from_ties], rtol=0, atol=1e-7)
    assert abs(scale - (x.max() - x.min()) / 255) < 1e-4 * scale


def test_integers_per_channel_are_integers_of_each_channel() -> None:
    x = np.random.default_rng(9).standard_normal((4, 6, 5)) * np.array([1.0, 10.0, 0.1, 0.0])[:, None, None]
    for symmetric in (True, False):
        whole = IntegerFormat(8, 0, symmetric=symmetric).round(x)
        for channel in range(4):
            assert (whole[channel] == IntegerFormat(8, symmetric=symmetric).round(x[channel])).all()
        last = IntegerFormat(8, -1, symmetric=symmetric).round(np.moveaxis(x, 0, -1))
        assert (np.moveaxis(last, -1, 0) == whole).all()
    fixed = IntegerFormat(8, 0).calibrated([-1.0] * 4, [1.0, 2.0, 3.0, 4.0])
    assert np.abs(fixed.round(np.full((4, 2), 9.0)))[:, 0] == pytest.approx([1.0, 2.0, 3.0, 4.0], rel=1e-4)


@pytest.mark.parametrize("kind", [MX("e4m3"), MX("e2m1"), BlockFloat(5), FloatFormat(4, 3), FixedPoint(4, 3)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_carriers_are_rounded_as_wide_ones(kind, dtype) -> None:
    x = torch.randn(20, 70, generator=torch.Generator().manual_seed(0)).to(dtype)
    got = kind.round(x)
    assert got.dtype == dtype
    assert torch.equal(got.float(), kind.round(x.float()))


def test_a_fixed_scale_meets_any_number() -> None:
    x = np.array([1e308, -1e308, 5e-324, math.inf, math.nan])
    for kind in (IntegerFormat(8).calibrated(0.0, 0.0), IntegerFormat(8, symmetric=False).calibrated(-1e-40, 1e-40)):
        high = kind.grid(x).bounds(x)[1]
        assert kind.round(x)[:4].tolist() == [float(high), float(kind.grid(x).bounds(x)[0]), 0.0, float(high)]
        assert np.isnan(kind.round(x)[4])


def test_blocks_of_tiny_numbers_stay_within_their_carrier() -> None:
    tiny = torch.tensor([2.0**-24, -(2.0**-20), 3 * 2.0**-24], dtype=torch.float16)
    assert torch.equal(MX("e4m3").round(tiny), tiny)
    least = np.array([2.0**-149, 2.0**-140], dtype=np.float32)
    assert MX("int8").round(least).tolist() == [0.0, 0.0]  # below the smallest scale, 2^-127
    assert BlockFloat(8).round(np.array([1e300, 1.0])).tolist() == [2.0**128 - 2.0**121, 0.0]  # past the largest

"""Real arrays of a format: codes side by side in bytes, then the scales, then the zero points.

    float: sign, then n + (E - e_min) * 2^s for n * 2^{E-s}        integers: two's complement, or q from 0 on when affine

What `pack` returns has exactly `format.nbytes(x.shape)` bytes, and `unpack` gives back what `format.round(x)` is.

>>> from loci.budget.precision.floating import FloatFormat
>>> pack(FloatFormat(4, 3), np.array([1.0, -2.0])).hex()
'38c0'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from loci.budget.precision import arrays
from loci.budget.precision.blocks import BIAS, Blocks
from loci.budget.precision.format import NumberFormat, elements
from loci.budget.precision.grid import Grid
from loci.budget.precision.integer import IntegerFormat

Floats: TypeAlias = np.ndarray[Any, Any]


def pack(format: NumberFormat, x: Floats) -> bytes:  # noqa: A002 - the house's word
    """A numpy array, rounded to nearest, in the format's own bits."""
    grid = format.grid(x)
    packed = _bits(codes(format, x).ravel(), format.bits)
    if isinstance(format, Blocks):
        packed += (np.frexp(np.asarray(grid.scale))[1] - 1 + BIAS).astype(np.uint8).tobytes()
    elif isinstance(format, IntegerFormat):
        packed += np.asarray(grid.scale, dtype="<f4").tobytes()
        packed += b"" if format.symmetric else _bits(np.asarray(grid.zero).ravel().astype(np.int64), format.bits)
    return packed


def codes(format: NumberFormat, x: Floats) -> Floats:  # noqa: A002
    """The bits of each element as a whole number of int64 (at most 63 bits and a sign)."""
    grid = format.grid(x)
    unit = np.asarray(arrays.wide(grid.round(x))) / grid.spread(grid.scale, x.shape)
    if grid.signed_zero:
        return _float_codes(format, grid, unit)
    if np.isnan(unit).any():
        raise ValueError(f"x holds NaN, for which {format} has no code; replace it, as numpy.nan_to_num does")
    whole = (unit / 2.0 ** (grid.lowest - grid.significand)).astype(np.int64)
    return np.asarray((whole + grid.spread(grid.zero, x.shape).astype(np.int64)) & _mask(format.bits))


def unpack(format: NumberFormat, packed: bytes, shape: Sequence[int]) -> Floats:  # noqa: A002
    """The float64 array that was packed."""
    count = elements(shape)
    if len(packed) != format.nbytes(shape):
        raise ValueError(
            f"{len(packed)} bytes are given, {format} takes {format.nbytes(shape)} for {tuple(shape)}; check both"
        )
    at = math.ceil(count * format.bits / 8)
    code = _whole(packed[:at], count, format.bits).reshape(shape)
    grid = _with_scales(format, packed[at:], tuple(shape))
    if grid.signed_zero:
        unit = _from_float_codes(format, grid, code)
    else:
        affine = isinstance(format, IntegerFormat) and not format.symmetric
        zero = grid.spread(grid.zero, code.shape).astype(np.int64)
        signed = code - zero if affine else code - ((code >> (format.bits - 1)) << format.bits)
        unit = signed * 2.0 ** (grid.lowest - grid.significand)
    return np.asarray(unit * grid.spread(grid.scale, tuple(shape)))


def _float_codes(format: NumberFormat, grid: Grid, unit: Floats) -> Floats:  # noqa: A002
    size = np.where(np.isfinite(unit), np.abs(unit), 0.0)
    code = _magnitudes(grid, size)
    last = _mask(format.bits - 1)
    highest = int(_magnitudes(grid, np.asarray(float(grid.high))))
    code = np.where(np.isinf(unit), highest + 1, code)
    if np.isnan(unit).any() and highest == last:
        raise ValueError(f"x holds NaN, for which {format} has no code; replace it, as numpy.nan_to_num does")
    code = np.where(np.isnan(unit), last, code)
    return np.asarray(code | (np.signbit(unit).astype(np.int64) << (format.bits - 1)))


def _magnitudes(grid: Grid, size: Floats) -> Floats:
    power = np.maximum(arrays.power(np.asarray(size)), 2.0**grid.lowest)
    raised = (np.frexp(power)[1] - 1 - grid.lowest).astype(np.int64)
    return np.asarray((size / (power * 2.0**-grid.significand)).astype(np.int64) + (raised << grid.significand))


def _from_float_codes(format: NumberFormat, grid: Grid, code: Floats) -> Floats:  # noqa: A002
    size = code & _mask(format.bits - 1)
    highest = int(_magnitudes(grid, np.asarray(float(grid.high))))
    finite = np.minimum(size, highest)
    raised = np.maximum((finite >> grid.significand) - 1, 0)
    whole = (finite - (raised << grid.significand)).astype(np.float64)
    number = np.ldexp(whole, raised + grid.lowest - grid.significand)
    infinite = (size == highest + 1) & (size != _mask(format.bits - 1))
    number = np.where(size > highest, np.where(infinite, math.inf, math.nan), number)
    return np.asarray(np.where((code >> (format.bits - 1)) & 1, -number, number))


def _with_scales(format: NumberFormat, packed: bytes, shape: tuple[int, ...]) -> Grid:  # noqa: A002
    if isinstance(format, Blocks):
        exponents = np.frombuffer(packed, dtype=np.uint8).astype(np.int32) - BIAS
        last = math.ceil((shape[-1] if shape else 1) / format.block)
        scale = np.ldexp(1.0, exponents).reshape(*shape[:-1], last, 1)
        return replace(format.element(), scale=scale, block=format.block)
    if not isinstance(format, IntegerFormat):
        return format.element()
    groups = int(format.shapes(shape)["G"])
    axis = None if format.axis is None else format.axis % len(shape)
    spread = [groups if place == axis else 1 for place in range(len(shape))]
    zero = np.zeros(groups) if format.symmetric else _whole(packed[4 * groups :], groups, format.bits)
    scale = np.frombuffer(packed[: 4 * groups], dtype="<f4").astype(np.float64)
    return replace(format.element(), scale=scale.reshape(spread), zero=zero.reshape(spread))


def _mask(bits: int) -> int:
    return (1 << bits) - 1


def _bits(code: Floats, bits: int) -> bytes:
    places = np.arange(bits - 1, -1, -1)
    return np.packbits(((code[:, None] >> places) & 1).astype(np.uint8).ravel()).tobytes()


def _whole(packed: bytes, count: int, bits: int) -> Floats:
    flat = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=count * bits).reshape(count, bits)
    return np.asarray((flat.astype(np.int64) << np.arange(bits - 1, -1, -1)).sum(axis=1))

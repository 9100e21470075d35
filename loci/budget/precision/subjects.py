"""What the laws of checks.py are run on: every format with its usual variants, and values with edges and ties."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np

import loci.budget.precision as room
from loci.budget.precision.floating import PRESETS
from loci.budget.precision.format import NumberFormat
from loci.budget.precision.mx import ELEMENTS
from loci.core.card import members
from loci.core.checking import Make

Floats: TypeAlias = np.ndarray[Any, Any]
Examples: TypeAlias = Mapping[str, Mapping[str, Any]]
SHAPE = (8, 45)  # blocks of 32 and of 16 end within the rows
FLOATS: Examples = {
    name: {part.name: getattr(kind, part.name) for part in fields(kind)} for name, kind in PRESETS.items()
}
VARIANTS: Mapping[str, Examples] = {
    "float": {
        **FLOATS,
        "flushed": {"exponent": 4, "significand": 3, "subnormals": False},
        "saturated": {"exponent": 5, "significand": 2, "overflow": "saturate"},
    },
    "fixed-point": {
        "fractions": {"integer": 1, "fraction": 9},
        "mirrored": {"integer": 3, "fraction": 2, "mirrored": True},
    },
    "integer": {
        "affine": {"bits": 8, "symmetric": False},
        "channels": {"bits": 4, "axis": 0},
        "affine-channels": {"bits": 5, "axis": -1, "symmetric": False},
        "calibrated": {"bits": 8, "limits": (-0.3, 0.7)},
    },
    "mx": {name: {"name": name} for name in ELEMENTS},
    "block-float": {"narrow": {"width": 4, "block": 8}},
}


def formats() -> dict[str, Any]:
    """Every format's class by its name on the card."""
    for module in pkgutil.iter_modules(room.__path__):
        with contextlib.suppress(ImportError):  # without torch, what needs it stays out
            importlib.import_module(f"{room.__name__}.{module.name}")
    return {card.name: member for card, member in members("number-format")}


def values(dtype: str = "float64") -> Floats:
    """Rows of values of many sizes, the same every time, with ties of few bits and both zeros."""
    random = np.random.default_rng(1)
    sizes = np.exp2(random.integers(-18, 16, SHAPE[:1])[:, None] + random.integers(-3, 4, SHAPE))
    x = random.standard_normal(SHAPE) * sizes
    x[::2] = np.round(x[::2] / sizes[::2] * 16) / 16 * sizes[::2]
    x[0, :2], x[1, 3] = (0.0, -0.0), -0.0
    held: Floats = x.astype(np.float32).astype(dtype)  # float32 numbers in any carrier
    return held


def carriers(make: Make) -> list[Floats]:
    """The values in each numpy carrier that holds the format, with those of the format's own edges."""
    kind: NumberFormat = make()
    held = []
    for dtype in ("float64", "float32"):
        x = values(dtype)
        try:
            kind.grid(x).require(x)
        except ValueError:
            continue
        largest, least = kind.largest, kind.smallest_normal
        edges = [largest, largest * (1 - 2**-20), least, least / 2, least * 0.75, least * kind.unit_roundoff]
        x[2, : len(edges)], x[3, : len(edges)] = edges, [-edge for edge in edges]
        held.append(x)
    assert held, "no carrier holds the format, not even float64"
    return held

"""Number formats: what a method does in fewer bits, before one owns the hardware.

    from loci.budget.precision import FloatFormat, Rounder
    Q = Rounder(FloatFormat(exponent=8, significand=7), "stochastic", seed=0)

Q rounds numpy arrays and torch tensors. Storage is rounded by Q(x) and `rounded_steps`, operations by
`rounded_operations` (torch) and `RoundedArray` (numpy), layers by `rounded_layers`, trained models by `quantised`.
Names are imported on first use; torch is needed by those that work on torch alone.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "NumberFormat": "format", "Grid": "grid", "Rounder": "rounder", "MODES": "modes",
    "FloatFormat": "floating", "PRESETS": "floating", "preset": "floating", "FixedPoint": "fixed_point",
    "IntegerFormat": "integer", "MX": "mx", "BlockFloat": "block_float", "pack": "packing", "unpack": "packing",
    "RoundedArray": "rounded_array", "rounded_operations": "operations", "rounded_layers": "layers",
    "rounded_steps": "steps", "quantised": "calibrate",
}  # fmt: skip
__all__ = sorted(_WHERE)  # noqa: PLE0605 - a list of names


def __getattr__(name: str) -> Any:
    """The public name, imported on first use (PEP 562)."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no {name!r}; it offers {', '.join(__all__)}")

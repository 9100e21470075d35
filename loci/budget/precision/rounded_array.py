"""Operation-level rounding for numpy: an array whose every operation is rounded, the additions of sums and products too.

    fl(a op b) = Q(a op b),   sum and matrix product: s <- Q(s + Q(a_k b_k)) for k = 1, 2, ...

>>> from loci.budget.precision.floating import FloatFormat
>>> x = RoundedArray(np.full(3000, 1.0), Rounder(FloatFormat(5, 10)))
>>> float(np.add.reduce(x).value), float((x * (1 / 3)).value[0])
(2048.0, 0.333251953125)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from loci.budget.precision.rounder import Rounder


class RoundedArray(np.lib.mixins.NDArrayOperatorsMixin):
    """`value` in Q's numbers; ufuncs, operators, `ufunc.reduce` and `@` give rounded arrays."""

    def __init__(self, value: Any, Q: Rounder) -> None:
        self.Q = Q
        self.value: np.ndarray[Any, Any] = self._rounded(value)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Compute, then round; refuse what would compute without rounding."""
        raw = [part.value if isinstance(part, RoundedArray) else part for part in inputs]
        if ufunc is np.matmul and method == "__call__" and not options:
            return RoundedArray(self._product(np.asarray(raw[0]), np.asarray(raw[1])), self.Q)
        if method == "reduce" and set(options) <= {"axis"}:
            return RoundedArray(self._folded(ufunc, raw[0], options.get("axis", 0)), self.Q)
        if method != "__call__" or options:
            raise TypeError(
                f"{ufunc.__name__}.{method} with {sorted(options)} would not round each operation; "
                "use operators, plain ufuncs, ufunc.reduce(x, axis) or @"
            )
        out = ufunc(*raw)
        return tuple(map(self._wrapped, out)) if isinstance(out, tuple) else self._wrapped(out)

    def __repr__(self) -> str:
        """The numbers."""
        return f"RoundedArray({self.value!r})"

    def _rounded(self, value: Any) -> np.ndarray[Any, Any]:
        return self.Q(np.asarray(value, dtype=np.float64 if np.asarray(value).dtype.kind in "biu" else None))

    def _wrapped(self, value: Any) -> Any:
        return RoundedArray(value, self.Q) if np.asarray(value).dtype.kind == "f" else value

    def _folded(self, ufunc: np.ufunc, value: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
        rows = np.moveaxis(value, axis, 0)
        if len(rows) == 0:
            return np.full(rows.shape[1:], ufunc.identity, dtype=value.dtype)
        total = rows[0]
        for row in rows[1:]:
            total = self._rounded(ufunc(total, row))
        return np.asarray(total)

    def _product(self, one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        column = two.ndim == 1
        two = two[:, None] if column else two
        if one.shape[-1] != two.shape[-2]:
            raise ValueError(
                f"{one.shape} @ {two.shape} does not fit; the last axis must equal the other's last but one"
            )
        terms = self._rounded(one[..., :, None] * two[..., None, :, :] if one.ndim > 1 else one[:, None] * two)
        total = self._folded(np.add, terms, -2)
        return total[..., 0] if column else total

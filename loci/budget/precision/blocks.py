"""Power-of-two scales that neighbours on the last axis share: what MX and block floating point have in common.

    scale = 2^{E_max - e},   E_max = floor(log2 max |x|) over the block,   e = exponent of the element's largest number

A scale is one byte (E8M0: 2^-127 to 2^127). In a narrow carrier it is never so small that the carrier could not hold
the element's smallest step times the scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from loci.budget.precision import arrays
from loci.budget.precision.format import NumberFormat, elements
from loci.budget.precision.grid import Grid

BIAS = 127


class Blocks(NumberFormat):
    """Elements of one format under a scale for each block."""

    __slots__ = ()
    block: int

    def grid(self, x: Any) -> Grid:
        """The elements' numbers times the scales that fit the blocks of x."""
        element = self.element()
        step = element.lowest - element.significand
        exponent = math.frexp(float(element.high))[1] - 1
        low, high = arrays.extremes(arrays.cut(arrays.wide(x), self.block), [max(x.ndim, 1)])
        xp = arrays.namespace(low)
        least = max(2.0**-BIAS, 2.0 ** (arrays.carrier(x.dtype)[1] - step))
        scale = arrays.power(xp.maximum(xp.abs(low), xp.abs(high))) * 2.0**-exponent
        return replace(element, scale=xp.clip(scale, least, 2.0**BIAS), block=self.block)

    def shapes(self, shape: Sequence[int]) -> Mapping[str, float]:
        """N elements of b bits in G blocks."""
        rows, last = (elements(shape[:-1]), shape[-1]) if shape else (1, 1)
        return {"N": elements(shape), "b": self.bits, "G": rows * math.ceil(last / self.block)}

"""Block floating point: integers of b bits under one shared exponent for each block.

    Q(x_i) = k_i * 2^{E - (b - 2)},   |k_i| <= 2^{b-1} - 1,   E = floor(log2 max|x|) over the block

Paper: Carson and Chen, "Pychop", arXiv:2504.07835; Wilkinson, "Rounding Errors in Algebraic Processes", 1963.
Differs: the lowest code is left out, so that rounding twice is rounding once.
Keeps: ceil(N*b/8) + G bytes: b bits an element with the sign, one byte of exponent for each of G blocks.

>>> import numpy as np
>>> BlockFloat(4, 2).round(np.array([1.0, 0.3, 100.0, 9.0])).tolist()
[1.0, 0.25, 96.0, 16.0]
"""

from __future__ import annotations

from dataclasses import dataclass

from loci.budget.precision.blocks import Blocks
from loci.budget.precision.fixed_point import FixedPoint
from loci.budget.precision.format import between
from loci.budget.precision.grid import Grid
from loci.core.card import method


@method(
    name="block-float",
    kind="number-format",
    title="Pychop: Emulating Low-Precision Arithmetic in Numerical Methods and Neural Networks",
    paper="arXiv:2504.07835",
    says="rounds blocks of neighbours to integers under one shared exponent",
    bytes="ceil(N*b/8) + G",
    example={"width": 8},
    system="pychop",
)
@dataclass(frozen=True, slots=True)
class BlockFloat(Blocks):
    """`width` bits an element with the sign, `block` elements to an exponent."""

    width: int = 8
    block: int = 16

    def __post_init__(self) -> None:
        """Refuse widths that float64 cannot carry."""
        between("width", self.width, 2, 53)
        between("block", self.block, 1, 65536)

    def element(self) -> Grid:
        """The integers as fractions of the block's power of two: -2 < x < 2."""
        return FixedPoint(2, self.width - 2, mirrored=True).element()

    @property
    def bits(self) -> int:
        """The width."""
        return self.width

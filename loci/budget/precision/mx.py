"""MX: blocks of 32 small floats or integers under one power-of-two scale.

    P_i = Q(x_i / X) in the element's format, saturating;   X = 2^{floor(log2 max|x|) - emax}           OCP MX v1.0, sec. 6.3

Elements: e4m3 (largest 448), e5m2 (57344), e3m2 (28), e2m3 (7.5), e2m1 (6), int8 (127/64).

Paper: Carson and Chen, "Pychop", arXiv:2504.07835; Open Compute Project, "OCP Microscaling Formats (MX) v1.0", 2023.
Differs: -2 of int8 is left out, as the specification allows, so that rounding twice is rounding once; NaN stays the
element's own and infinity becomes the largest number, neither spreads over its block.
Keeps: ceil(N*b/8) + G bytes: b bits an element, one byte for each of G blocks along the last axis.

>>> import numpy as np
>>> MX("e2m1").round(np.array([6.0, 5.1, 0.3, -100.0])).tolist()
[8.0, 8.0, 0.0, -96.0]
>>> MX("e2m1").nbytes((2, 64))
68
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from loci.budget.precision.blocks import Blocks
from loci.budget.precision.fixed_point import FixedPoint
from loci.budget.precision.floating import FloatFormat
from loci.budget.precision.format import between
from loci.budget.precision.grid import Grid
from loci.core.card import method

ELEMENTS: Mapping[str, FloatFormat | FixedPoint] = MappingProxyType({
    "e4m3": FloatFormat(4, 3, top="nan", overflow="saturate"),
    "e5m2": FloatFormat(5, 2, overflow="saturate"),
    "e3m2": FloatFormat(3, 2, top="number"),
    "e2m3": FloatFormat(2, 3, top="number"),
    "e2m1": FloatFormat(2, 1, top="number"),
    "int8": FixedPoint(2, 6, mirrored=True),
})  # fmt: skip


@method(
    name="mx",
    kind="number-format",
    title="OCP Microscaling Formats (MX) v1.0, as in Pychop",
    paper="arXiv:2504.07835",
    says="rounds blocks of 32 to 4, 6 or 8 bits an element under one power-of-two scale",
    bytes="ceil(N*b/8) + G",
    example={"name": "e4m3"},
    system="pychop",
)
@dataclass(frozen=True, slots=True)
class MX(Blocks):
    """Blocks of `block` elements of the format called `name`; 32 is the standard's."""

    name: str = "e4m3"
    block: int = 32

    def __post_init__(self) -> None:
        """Refuse an element that MX does not have."""
        if self.name not in ELEMENTS:
            raise ValueError(f"name={self.name!r} is no MX element; choose one of {', '.join(ELEMENTS)}")
        between("block", self.block, 1, 65536)

    def element(self) -> Grid:
        """The element's numbers."""
        return ELEMENTS[self.name].element()

    @property
    def bits(self) -> int:
        """4, 6 or 8."""
        return ELEMENTS[self.name].bits

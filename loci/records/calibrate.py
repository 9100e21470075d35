"""Does memory hold the answer at all? (to be calibrated)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loci.records.item import Hit
from loci.records.view import View


@dataclass(frozen=True, slots=True)
class Belief:
    """Probability that the answer is in memory, the threshold to abstain below, and its stated error rate."""

    known: float
    threshold: float = 0.5
    error: float = 1.0


def known(query: str, hits: Sequence[Hit], view: View) -> Belief:
    """Placeholder until the null model is there."""
    return Belief(float(bool(hits)))

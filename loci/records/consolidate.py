"""Sleep (to come)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loci.records.memory import Memory


@dataclass(frozen=True, slots=True)
class Report:
    """What sleep did."""

    before: int
    after: int


def consolidate(memory: Memory, scope: str, budget: int | None) -> Report:
    """To come."""
    return Report(memory.nbytes, memory.nbytes)

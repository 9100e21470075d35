"""Sparse memories: layers of many learned rows, of which a token reads a few dozen.

>>> "ultramem-v2" in sparse_memories()
True
"""

from __future__ import annotations

from typing import Any

from loci.core.card import attribute, methods


def sparse_memories() -> dict[str, Any]:
    """Every sparse memory's class by its name on the card."""
    return methods(__name__, "sparse-memory")


def __getattr__(name: str) -> Any:
    """The sparse memory's class of that name, imported on first use (PEP 562)."""
    return attribute(__name__, "sparse-memory", name)

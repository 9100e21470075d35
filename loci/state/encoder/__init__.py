"""Encoders: maps of whole sequences, which look both ways and carry no state."""

from __future__ import annotations

from typing import Any

from loci.core.card import attribute, methods


def encoders() -> dict[str, Any]:
    """Every encoder's class by its name on the card."""
    return methods(__name__, "encoder")


def __getattr__(name: str) -> Any:
    """The encoder's class of that name, imported on first use (PEP 562)."""
    return attribute(__name__, "encoder", name)

"""Contexts: small trained things that stand in for a long prompt before a frozen language model."""

from __future__ import annotations

from typing import Any

from loci.core.card import attribute, methods


def contexts() -> dict[str, Any]:
    """Every context's class by its name on the card."""
    return methods(__name__, "context")


def __getattr__(name: str) -> Any:
    """The context's class of that name, imported on first use (PEP 562)."""
    return attribute(__name__, "context", name)

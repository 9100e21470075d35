"""Classifiers of streams: one answer for a sequence, from all of it at once or frame by frame in constant memory."""

from __future__ import annotations

from typing import Any

from loci.core.card import attribute, methods


def classifiers() -> dict[str, Any]:
    """Every classifier's class by its name on the card."""
    return methods(__name__, "stream-classifier")


def __getattr__(name: str) -> Any:
    """The classifier's class of that name, imported on first use (PEP 562)."""
    return attribute(__name__, "stream-classifier", name)

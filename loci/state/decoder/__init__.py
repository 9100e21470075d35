"""Decoders: language models over streams of tokens, which carry a state from one piece of a stream to the next."""

from __future__ import annotations

from typing import Any

from loci.core.card import attribute, methods


def decoders() -> dict[str, Any]:
    """Every decoder's class by its name on the card."""
    return methods(__name__, "decoder")


def __getattr__(name: str) -> Any:
    """The decoder's class of that name, imported on first use (PEP 562)."""
    return attribute(__name__, "decoder", name)

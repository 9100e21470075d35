"""Optimizers by name: `from loci.weights.optim import GaLore`.

Names are looked up among the registered methods, so this file lists none; for static types import from the method's
own module, `from loci.weights.optim.galore import GaLore`.
"""

from __future__ import annotations

from typing import Any

from loci.core.card import attribute, methods


def optimizers() -> dict[str, Any]:
    """Every optimizer's class by its name on the card.

    >>> "galore" in optimizers()
    True
    """
    return methods(__name__, "optimizer")


def __getattr__(name: str) -> Any:
    """The optimizer class of that name, imported on first use (PEP 562)."""
    return attribute(__name__, "optimizer", name)

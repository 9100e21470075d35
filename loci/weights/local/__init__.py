"""Local trainers by name: `from loci.weights.local import TPSGD`.

Names are looked up among the registered methods, so this file lists none; for static types import from the method's
own module, `from loci.weights.local.tpsgd import TPSGD`.
"""

from __future__ import annotations

from typing import Any

from loci.core.card import attribute, methods


def local_trainers() -> dict[str, Any]:
    """Every local trainer's class by its name on the card.

    >>> "tpsgd" in local_trainers()
    True
    """
    return methods(__name__, "local-trainer")


def __getattr__(name: str) -> Any:
    """The local trainer's class of that name, imported on first use (PEP 562)."""
    return attribute(__name__, "local-trainer", name)

"""Optimizers by name: `from loci.weights.optim import GaLore`.

Names are looked up among the registered methods, so this file lists none; for static types import from the method's
own module, `from loci.weights.optim.galore import GaLore`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from loci.core.card import members


def optimizers() -> dict[str, Any]:
    """Every optimizer's class by its name on the card.

    >>> "galore" in optimizers()
    True
    """
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {card.name: member for card, member in members("optimizer")}


def __getattr__(name: str) -> Any:
    """The optimizer class of that name, imported on first use (PEP 562)."""
    if not name.startswith("_"):
        known = {member.__name__: member for member in optimizers().values()}
        if name in known:
            return known[name]
        raise AttributeError(f"module {__name__!r} has no {name!r}; it offers {', '.join(sorted(known))}")
    raise AttributeError(f"module {__name__!r} has no {name!r}")

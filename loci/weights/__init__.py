"""Weights: memory in parameters. `optim` holds the optimizers; each is a `torch.optim.Optimizer`, nothing added.
`local` holds the trainers that cut a model into blocks and never hold the graph of more than one.

Needs the extra `torch`: pip install "loci[torch]".
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from loci.core.card import members


def methods(package: str, kind: str) -> dict[str, Any]:
    """The classes of a kind by their names on the card, once every module of the package is imported.

    >>> "galore" in methods("loci.weights.optim", "optimizer")
    True
    """
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return {card.name: member for card, member in members(kind)}


def attribute(package: str, kind: str, name: str) -> Any:
    """The class of that name, imported on first use: what a package's `__getattr__` (PEP 562) returns."""
    if name.startswith("_"):
        raise AttributeError(f"module {package!r} has no {name!r}")
    known = {member.__name__: member for member in methods(package, kind).values()}
    if name not in known:
        raise AttributeError(f"module {package!r} has no {name!r}; it offers {', '.join(sorted(known))}")
    return known[name]

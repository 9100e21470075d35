"""Memory in activations: what a model carries from one step to the next. Mixers by name: `from loci.state import LSTM`.

Names are looked up among the registered methods, so this file lists none but `Stack`, the language model made of them; for
static types import from the method's own module, `from loci.state.lstm import LSTM`.
"""

from __future__ import annotations

from typing import Any

from loci.core.card import attribute, load, methods


def mixers() -> dict[str, Any]:
    """Every mixer's class by its name on the card.

    >>> "lstm" in mixers()
    True
    """
    return methods(__name__, "mixer")


def __getattr__(name: str) -> Any:
    """The mixer's class of that name, or Stack, imported on first use (PEP 562)."""
    if name == "Stack":
        return load("loci.state.stack:Stack")
    return attribute(__name__, "mixer", name)

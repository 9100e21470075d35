"""loci: memory for learning systems.

The front door is lazy: importing it costs milliseconds and pulls in no model, no server and no torch.

>>> import loci
>>> with loci.Memory(":memory:") as memory:
...     _ = memory.add("Ana adopted a kitten", scope="trip")
...     memory.recall("what pet does Ana have?", scope="trip")[0].item.text
'Ana adopted a kitten'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loci.budget.fit import fit
    from loci.records import Hit, Hits, Item, Memory
    from loci.records.remote_async import AsyncMemory

__version__ = "0.1.0"
__all__ = ["AsyncMemory", "Hit", "Hits", "Item", "Memory", "__version__", "fit"]


def __getattr__(name: str) -> Any:
    """Load the public names on first use (PEP 562)."""
    if name == "AsyncMemory":
        from loci.records import remote_async

        return remote_async.AsyncMemory
    if name in {"Hit", "Hits", "Item", "Memory"}:
        from loci import records

        return getattr(records, name)
    if name == "fit":
        from loci.core.errors import need

        need("torch", extra="torch", who="fit")
        from loci.budget.fit import fit

        return fit
    raise AttributeError(f"module 'loci' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)

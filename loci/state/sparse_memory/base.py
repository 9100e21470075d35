"""The contract of sparse memories: a token reads a few rows of large tables, and nothing of the tokens beside it.

    y_t = read(h_t, the rows that h_t chooses)

Capacity is the rows there are, cost the rows that are read. What stands beside the tables (queries, keys, projections) is
dense and small. A memory is put beside or in place of a feed-forward layer, and what it says is added.

Shapes: N tokens, D width, m rows that a token reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class SparseMemory(nn.Module, ABC):
    """(N, D) -> (N, D) by a few rows of large tables. Members write the six things below."""

    D: int  # width of inputs and outputs
    touches: int  # rows of each table that a token reads, at most

    @abstractmethod
    def rows(self, h: Tensor) -> Tensor:
        """(N, D) -> (N, touches) of int64: the rows that each token reads; one may be there twice."""

    @abstractmethod
    def read(self, h: Tensor) -> Tensor:
        """(N, D) -> (N, D), from those rows alone."""

    @abstractmethod
    def densely(self, h: Tensor) -> Tensor:
        """The same by matrices over all rows, with zeros where a token does not read: slow, and what `read` must equal."""

    @abstractmethod
    def tables(self) -> tuple[nn.Parameter, ...]:
        """The parameters of which a token reads only some rows, each with the rows first."""

    @abstractmethod
    def shapes(self) -> Mapping[str, float]:
        """What the names of the card's byte formula stand for; the formula is of the parameters and buffers."""

    def forward(self, h: Tensor) -> Tensor:
        """What each token reads. ValueError for a wrong width, integer input, or values that are not finite."""
        name = type(self).__name__
        if h.dim() != 2 or h.shape[1] != self.D:
            raise ValueError(f"h is {tuple(h.shape)}, {name} takes (N, {self.D}); flatten batch and time into N tokens")
        if not h.is_floating_point():
            raise ValueError(
                f"h is {str(h.dtype).removeprefix('torch.')}, {name} takes floating-point rows; embed tokens first"
            )
        if not bool(h.isfinite().all()):
            raise ValueError("h has values that are not finite, for which no row is near; clean it first")
        return self.read(h) if len(h) else h

    def touched_bytes(self) -> int:
        """Bytes of table rows that one token reads, at most."""
        return self.touches * sum(table[0].numel() * table.element_size() for table in self.tables())


def groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Two groups of parameters for an optimizer: all else, then the tables of the sparse memories in the model.

    Tables learn by `table_rate` times the rate of all else, and decay alike:

    >>> from torch.optim import AdamW
    >>> from torch.optim.lr_scheduler import LambdaLR
    >>> from loci.state.sparse_memory.product_key import ProductKeyMemory
    >>> optimizer = AdamW(groups(ProductKeyMemory(8, n=4), lr=1e-3))
    >>> schedule = LambdaLR(optimizer, [lambda step: 1.0, lambda step: table_rate(step, steps=100)])
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.001, 0.004]
    """
    memories = [part for part in model.modules() if isinstance(part, SparseMemory)]
    tables = {id(table): table for memory in memories for table in memory.tables()}  # a shared one counts once
    rest = [param for param in model.parameters() if id(param) not in tables]
    return [{"params": rest, "lr": lr}, {"params": list(tables.values()), "lr": lr}]


def table_rate(step: int, *, steps: int, factor: float = 4.0) -> float:
    """1 + (factor - 1) max(0, 1 - step / steps): rows are seldom read, so they take larger steps at first.

    >>> [table_rate(step, steps=10) for step in (0, 5, 10, 20)]
    [4.0, 2.5, 1.0, 1.0]
    """
    return 1 + (factor - 1) * max(0.0, 1 - step / steps)

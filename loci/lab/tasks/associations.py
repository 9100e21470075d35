"""Random associations: keys of three symbols, each with a label that nothing but memory can tell.

    (a, b, c) -> label                                                          all of it drawn, so that no rule helps

`Associator` is a small network that reads a key and says its label: blocks x + ffn(norm(x)) + memory(norm(x)) at width D,
with or without memories. `recalled` trains it for a fixed number of steps on the pairs and asks for all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from loci.lab.claim import Evidence
from loci.state.sparse_memory.base import SparseMemory, groups, table_rate
from loci.state.sparse_memory.pool import Pool, balanced_std
from loci.state.sparse_memory.ultramem_v2 import UltraMemV2

PLACES = 3  # symbols of a key


class Associations(NamedTuple):
    """Keys, no two alike, and their labels."""

    keys: Tensor  # (count, 3) of int64
    labels: Tensor  # (count,) of int64


def associations(count: int, *, symbols: int, labels: int, random: torch.Generator) -> Associations:
    """Pairs of a key and a label. ValueError where there are not as many keys.

    >>> pairs = associations(5, symbols=4, labels=2, random=torch.Generator().manual_seed(0))
    >>> len(pairs.keys.unique(dim=0)), pairs.labels.shape
    (5, torch.Size([5]))
    """
    if not 0 < count <= symbols**PLACES or labels < 1:
        raise ValueError(
            f"count={count}, labels={labels} does not fit {symbols} symbols; choose 1 to {symbols**PLACES} pairs, and labels"
        )
    numbers = torch.randperm(symbols**PLACES, generator=random)[:count]
    keys = torch.stack([numbers // symbols**place % symbols for place in range(PLACES)], 1)
    return Associations(keys, torch.randint(labels, (count,), generator=random))


class Block(nn.Module):
    """x + ffn(norm(x)) + memory(norm(x)), the last where there is one."""

    def __init__(self, D: int, hidden: int, memory: SparseMemory | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(D)
        self.ffn = nn.Sequential(nn.Linear(D, hidden), nn.GELU(), nn.Linear(hidden, D))
        self.memory = memory

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        h = self.norm(x)
        said: Tensor = self.ffn(h)
        return x + said if self.memory is None else x + said + self.memory(h)


class Associator(nn.Module):
    """Keys (N, 3) -> scores of labels (N, labels), through one block for each of `memories`."""

    def __init__(self, D: int, memories: list[SparseMemory | None], *, hidden: int, symbols: int, labels: int) -> None:
        super().__init__()
        self.symbols = nn.ModuleList(nn.Embedding(symbols, D) for _ in range(PLACES))
        self.blocks = nn.Sequential(*(Block(D, hidden, memory) for memory in memories))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, labels)

    def forward(self, keys: Tensor) -> Tensor:
        """Symbols are added up, each with a vector of its own for its place."""
        x = sum((of(symbol) for of, symbol in zip(self.symbols, keys.unbind(1), strict=True)), torch.zeros(()))
        out: Tensor = self.head(self.norm(self.blocks(x)))
        return out

    def refresh(self) -> None:
        """Bring up to date what the memories know of their own parameters."""
        for block in self.blocks:
            if isinstance(block, Block) and isinstance(block.memory, UltraMemV2):
                block.memory.refresh()

    def activated_bytes(self) -> int:
        """Bytes that one token reads in the blocks: all parameters, but of tables and shuffles the touched rows alone."""
        memories = [part for part in self.modules() if isinstance(part, SparseMemory)]
        tables = {id(table) for memory in memories for table in memory.tables()}
        dense = [param for param in self.blocks.parameters() if id(param) not in tables]
        places = sum(memory.touches * 8 for memory in memories)  # of the shuffle, an int64 each
        return (
            sum(param.numel() * param.element_size() for param in dense)
            + places
            + sum(memory.touched_bytes() for memory in memories)
        )


def associator(
    D: int, *, layers: int, hidden: int, n: int = 0, d_p: int = 0, K: int = 16, m: int = 8, symbols: int, labels: int
) -> Associator:
    """With n > 0 a memory in each layer over one pool of layers * n * n rows; with n = 0 none."""
    memories: list[SparseMemory | None] = [None] * layers
    if n:
        std = balanced_std(D, m=m, heads=1, d_v=D, d_p=d_p, layers=layers, ffn=hidden / D)
        pool = Pool(n, layers=layers, d_v=D, d_p=d_p, std=std)
        memories = [UltraMemV2(D, pool, layer=layer, K=K, m=m) for layer in range(layers)]
    return Associator(D, memories, hidden=hidden, symbols=symbols, labels=labels)


def recalled(
    seed: int, *, pairs: int, symbols: int, labels: int, D: int, layers: int, hidden: int, steps: int, n: int = 0, d_p: int = 0,
    batch: int = 512, lr: float = 1e-3,
) -> Evidence:  # fmt: skip
    """Percent of the pairs that are known after the steps; bytes are those that a token reads in the blocks."""
    random = torch.Generator().manual_seed(seed)
    known = associations(pairs, symbols=symbols, labels=labels, random=random)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = associator(D, layers=layers, hidden=hidden, n=n, d_p=d_p, symbols=symbols, labels=labels)
    learnt(model, known, steps=steps, batch=batch, lr=lr, random=random)
    with torch.no_grad():
        right = (model(known.keys).argmax(1) == known.labels).double().mean()
    return Evidence(round(100 * float(right), 2), "% recalled", model.activated_bytes())


def learnt(
    model: Associator, known: Associations, *, steps: int, batch: int, lr: float, random: torch.Generator
) -> None:
    """Adam at a constant rate; tables start at four times of it. Pairs come in random order, epoch after epoch."""
    parts = [group for group in groups(model, lr) if group["params"]]
    optimizer = torch.optim.Adam(parts)
    rates = [lambda step: 1.0, lambda step: table_rate(step, steps=steps)][: len(parts)]
    schedule = LambdaLR(optimizer, rates)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(len(known.keys), generator=random)])
        some, order = order[:batch], order[batch:]
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(model(known.keys[some]), known.labels[some]))
        optimizer.step()
        schedule.step()
        model.refresh()

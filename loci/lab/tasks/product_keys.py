"""Random associations learned with a product-key memory in one block, beside wider feed-forward layers that read as much.

The task and the network are those of tasks/associations.py; here the memory stands in the last block but one and is alone. Each
number that a token reads in the blocks is multiplied once and added, so equal bytes are equal operations.
"""

from __future__ import annotations

import torch

from loci.lab.claim import Evidence
from loci.lab.tasks.associations import Associator, associations, learnt
from loci.state.sparse_memory.base import SparseMemory
from loci.state.sparse_memory.product_key import ProductKeyMemory


def associator(
    D: int, *, layers: int, hidden: int, n: int = 0, m: int = 16, K: int = 32, heads: int = 4, symbols: int, labels: int
) -> Associator:
    """With n > 0 a memory of n * n rows in the last block but one; with n = 0 none."""
    memories: list[SparseMemory | None] = [None] * layers
    if n:
        memories[-2] = ProductKeyMemory(D, n=n, m=m, K=K, heads=heads)
    return Associator(D, memories, hidden=hidden, symbols=symbols, labels=labels)


def recalled(
    seed: int, *, pairs: int, symbols: int, labels: int, D: int, layers: int, hidden: int, steps: int, n: int = 0, m: int = 16,
    K: int = 32, heads: int = 4, batch: int = 512, lr: float = 1e-3,
) -> Evidence:  # fmt: skip
    """Percent of the pairs that are known after the steps; bytes are those that a token reads in the blocks."""
    random = torch.Generator().manual_seed(seed)
    known = associations(pairs, symbols=symbols, labels=labels, random=random)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = associator(D, layers=layers, hidden=hidden, n=n, m=m, K=K, heads=heads, symbols=symbols, labels=labels)
    learnt(model, known, steps=steps, batch=batch, lr=lr, random=random)
    with torch.no_grad():
        right = (model(known.keys).argmax(1) == known.labels).double().mean()
    return Evidence(round(100 * float(right), 2), "% recalled", model.activated_bytes())

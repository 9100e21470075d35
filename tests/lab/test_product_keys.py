"""The network with product keys: one memory, and the bytes that a token reads counted by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.lab.tasks.product_keys import associator, recalled
from loci.state.sparse_memory.product_key import ProductKeyMemory

torch.set_num_threads(1)
SIZES = {"layers": 3, "hidden": 16, "symbols": 5, "labels": 4}


def test_one_memory_stands_before_the_last_block():
    blocks = associator(8, **SIZES, n=6, m=2, K=4, heads=2).blocks
    assert [isinstance(block.memory, ProductKeyMemory) for block in blocks] == [False, True, False]
    assert all(block.memory is None for block in associator(8, **SIZES).blocks)


def test_bytes_are_of_what_a_token_reads():
    dense = 3 * (2 * 8 + 8 * 16 + 16 + 16 * 8 + 8)
    memory = (
        8 * 8 + 8 + 2 * 4 + 2 * 2 * 6 * 2 + 2 * 2 * 8
    )  # queries, their norm, keys of both sides, 2 rows for each head
    places = 2 * 2 * 8  # an int64 for each row
    assert associator(8, **SIZES).activated_bytes() == 4 * dense
    assert associator(8, **SIZES, n=6, m=2, K=4, heads=2).activated_bytes() == 4 * (dense + memory) + places


def test_the_same_seed_recalls_the_same():
    options = {"pairs": 40, "D": 8, **SIZES, "steps": 30, "n": 6, "m": 2, "K": 4, "heads": 2, "batch": 20, "lr": 0.01}
    one, two = (recalled(3, **options) for _ in range(2))
    assert one == two
    assert one.value > recalled(3, **(options | {"steps": 1})).value

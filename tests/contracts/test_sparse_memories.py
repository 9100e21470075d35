"""Every sparse memory under every law of its kind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import Case
from loci.state.sparse_memory import sparse_memories
from loci.state.sparse_memory.checks import LAWS, sparse_memory_cases

torch.set_num_threads(1)
NAMES = set(sparse_memories())


@pytest.mark.parametrize("case", list(sparse_memory_cases()), ids=lambda case: case.id)
def test_sparse_memory_keeps_the_law(case: Case) -> None:
    case.run()


def test_there_are_sparse_memories_and_laws() -> None:
    assert {"product-key-memory", "ultramem-v2"} <= NAMES
    assert len({law.__name__ for law in LAWS}) == len(LAWS) > 12

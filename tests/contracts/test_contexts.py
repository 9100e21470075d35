"""Every context under every law of its kind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import Case
from loci.state.context import contexts
from loci.state.context.checks import LAWS, context_cases

torch.set_num_threads(1)
NAMES = set(contexts())


@pytest.mark.parametrize("case", list(context_cases()), ids=lambda case: case.id)
def test_context_keeps_the_law(case: Case) -> None:
    case.run()


def test_there_are_contexts_and_laws() -> None:
    assert {"cartridge", "soft-injection"} <= NAMES
    assert len({law.__name__ for law in LAWS}) == len(LAWS) > 12

"""Every optimizer under every law of its kind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import Case
from loci.weights.optim import optimizers
from loci.weights.optim.checks import LAWS, optimizer_cases

torch.set_num_threads(1)
NAMES = set(optimizers())


@pytest.mark.parametrize("case", list(optimizer_cases()), ids=lambda case: case.id)
def test_optimizer_keeps_the_law(case: Case) -> None:
    case.run()


def test_there_are_optimizers_and_laws() -> None:
    assert {"galore", "lamb", "lars", "sgd-sai", "apollo"} <= NAMES
    assert len({law.__name__ for law in LAWS}) == len(LAWS) > 10

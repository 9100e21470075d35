"""Every local trainer under every law of its kind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import Case, cases
from loci.weights.local import local_trainers
from loci.weights.local.checks import LAWS

torch.set_num_threads(1)
NAMES = set(local_trainers())


@pytest.mark.parametrize("case", list(cases("local-trainer", LAWS)), ids=lambda case: case.id)
def test_local_trainer_keeps_the_law(case: Case) -> None:
    case.run()


def test_there_are_local_trainers_and_laws() -> None:
    assert {"tpsgd", "drtp", "sltt", "sltt-k"} <= NAMES
    assert len({law.__name__ for law in LAWS}) == len(LAWS) > 10


def test_classes_are_found_by_name() -> None:
    from loci.weights import local

    assert local.TPSGD is local_trainers()["tpsgd"]
    with pytest.raises(AttributeError, match="has no 'TPSDG'; it offers .*TPSGD"):
        local.TPSDG

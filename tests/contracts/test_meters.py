"""Every meter under every law of its kind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.budget.meter_checks import LAWS
from loci.core.card import load_all, members
from loci.core.checking import Case, cases

torch.set_num_threads(1)
load_all("loci.budget")
load_all("loci.state")


@pytest.mark.parametrize("case", list(cases("meter", LAWS)), ids=lambda case: case.id)
def test_meter_keeps_the_law(case: Case) -> None:
    case.run()


def test_there_are_meters_and_laws() -> None:
    assert {"mixed-precision-carbon", "mamba-lyapunov"} <= {card.name for card, _ in members("meter")}
    assert len({law.__name__ for law in LAWS}) == len(LAWS) == 8

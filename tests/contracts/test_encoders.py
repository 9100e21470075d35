"""Every encoder under every law of its kind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import Case
from loci.state.encoder import encoders
from loci.state.encoder.checks import LAWS, encoder_cases

torch.set_num_threads(1)
NAMES = set(encoders())


@pytest.mark.parametrize("case", list(encoder_cases()), ids=lambda case: case.id)
def test_encoder_keeps_the_law(case: Case) -> None:
    case.run()


def test_there_are_encoders_and_laws() -> None:
    assert {"broad-mamba"} <= NAMES
    assert len({law.__name__ for law in LAWS}) == len(LAWS) > 12

"""Every mixer under every law of its kind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import Case
from loci.state import mixers
from loci.state.checks import LAWS, mixer_cases

torch.set_num_threads(1)
NAMES = set(mixers())


@pytest.mark.parametrize("case", list(mixer_cases()), ids=lambda case: case.id)
def test_mixer_keeps_the_law(case: Case) -> None:
    case.run()


def test_there_are_mixers_and_laws() -> None:
    assert {"elman", "jordan", "irnn", "lstm", "lstm-peephole", "gru", "ntm"} <= NAMES
    assert len({law.__name__ for law in LAWS}) == len(LAWS) > 12

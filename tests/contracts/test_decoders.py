"""Every decoder under every law of its kind, and Stack over mixers of several kinds."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import Case
from loci.state import Stack, mixers
from loci.state.decoder import decoders
from loci.state.decoder.checks import LAWS, decoder_cases, state_bytes_are_the_formula

torch.set_num_threads(1)
NAMES = set(decoders())


@pytest.mark.parametrize("case", list(decoder_cases()), ids=lambda case: case.id)
def test_decoder_keeps_the_law(case: Case) -> None:
    case.run()


@pytest.mark.parametrize("name", ["gru", "mlstm", "attention"])
@pytest.mark.parametrize(
    "law", [law for law in LAWS if law is not state_bytes_are_the_formula], ids=lambda law: law.__name__
)
def test_a_stack_keeps_the_law(law, name: str) -> None:
    """All but that of bytes, which are the sum over its mixers' cards."""
    member = mixers()[name]
    options = {key: value for key, value in member.card.example.items() if key != "D"}
    law(lambda: Stack(lambda D: member(D, **options), depth=2, V=11, D=member.card.example["D"]))


def test_there_are_decoders_and_laws() -> None:
    assert {"longmem"} <= NAMES
    assert len({law.__name__ for law in LAWS}) == len(LAWS) > 12

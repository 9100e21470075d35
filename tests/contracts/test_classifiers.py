"""Every classifier of streams under every law of its kind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import Case
from loci.state.classifier import classifiers
from loci.state.classifier.checks import LAWS, classifier_cases

torch.set_num_threads(1)
NAMES = set(classifiers())


@pytest.mark.parametrize("case", list(classifier_cases()), ids=lambda case: case.id)
def test_classifier_keeps_the_law(case: Case) -> None:
    case.run()


def test_there_are_classifiers_and_laws() -> None:
    assert {"lmuformer", "spiking-lmuformer"} <= NAMES
    assert len({law.__name__ for law in LAWS}) == len(LAWS) > 12

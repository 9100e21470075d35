"""Every scheme under every law of memory, on the file and on the server."""

from __future__ import annotations

import importlib.util

import pytest

from loci.core.checking import Case, cases
from loci.records import opening
from loci.records.checks import LAWS
from tests.stores import on_postgres

NAMES = opening.schemes()
MODULES = {"minilm": "sentence_transformers", "ann": "usearch", "llm": "httpx2", "torch": "torch"}


def test_there_are_schemes_and_laws() -> None:
    assert {"loci", "bm25", "dense"} <= set(NAMES)
    assert len({law.__name__ for law in LAWS}) == len(LAWS) > 10


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
@pytest.mark.parametrize("case", list(cases("scheme", LAWS)), ids=lambda case: case.id)
def test_scheme_keeps_the_law(case: Case, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in case.card.needs:
        if importlib.util.find_spec(MODULES.get(extra, extra)) is None:
            pytest.skip(f"{case.card.name} needs the extra {extra}")
    if engine == "postgres":
        on_postgres(monkeypatch)
    case.run()

"""Every embedder, index and language model under every law of its kind; http members talk to a real server."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

import pytest

import loci.ports
from loci.core.card import load, members
from loci.core.checking import Case, cases
from loci.core.errors import MissingExtra
from loci.ports import checks
from tests.ports.server import Server

KINDS = {"embedder": checks.EMBEDDER_LAWS, "index": checks.INDEX_LAWS, "llm": checks.LLM_LAWS}
SLOW = ("minilm",)  # loads a model: one instance serves all laws

for module in pkgutil.iter_modules(loci.ports.__path__):
    importlib.import_module(f"loci.ports.{module.name}")


def params() -> list[Any]:
    """Each case, allowed to open sockets when its member talks http."""
    found = []
    for kind, laws in KINDS.items():
        for case in cases(kind, laws):
            marks = [pytest.mark.enable_socket] if case.card.name == "http" else []
            found.append(pytest.param(case, id=f"{kind}-{case.id}", marks=marks))
    return found


@functools.cache
def shared(entry: str) -> Any:
    """One instance for the session."""
    return load(entry)()


def making(case: Case, server: Server | None) -> Any:
    """What the law calls in place of the member: the url is the server's, a slow instance is shared."""
    if server is None:
        return (lambda **_: shared(case.card.entry)) if case.card.name in SLOW else case.member

    def make(url: str, **rest: Any) -> Any:
        assert url.startswith("http://127.0.0.1:9/"), "the example must lead nowhere"
        server.reset()
        return case.member(url=server.url, **rest)

    return make


@pytest.mark.parametrize("case", params())
def test_law(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        if case.card.name == "http":
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            with Server() as server:
                Case(case.card, making(case, server), case.law).run()
        else:
            Case(case.card, making(case, None), case.law).run()
    except MissingExtra as error:
        pytest.skip(str(error))


def test_all_members_are_there() -> None:
    names = {kind: [card.name for card, _ in members(kind)] for kind in KINDS}
    assert set(names["embedder"]) >= {"hash", "http", "minilm"}
    assert set(names["index"]) >= {"exact", "usearch"}
    assert set(names["llm"]) >= {"http", "scripted"}

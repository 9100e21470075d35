"""Served memories, and clients of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from loci.records import Memory
from tests.http.serving import running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Memory, httpx2.Client]]:
    """One open server for the many small cases of a module that leave nothing behind."""
    with Memory(tmp_path_factory.mktemp("shared") / "m.db") as held, running(held) as address:
        with httpx2.Client(base_url=address, timeout=30, trust_env=False, verify=False) as http:
            yield held, http


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    """The memory behind the server."""
    with Memory(tmp_path / "served.db") as held:
        yield held


@pytest.fixture
def url(memory: Memory) -> Iterator[str]:
    """An open server on loopback."""
    with running(memory) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[httpx2.Client]:
    """Plain HTTP."""
    with httpx2.Client(base_url=url, timeout=30, trust_env=False, verify=False) as http:
        yield http

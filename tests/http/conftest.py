"""A real server on a real port, in a thread; what a test asks of it goes over a socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from loci.app.http.app import create
from loci.app.http.door import listening, server
from loci.records import Memory


@contextlib.contextmanager
def running(memory: Memory, app: Any = None, *, head_s: float = 10.0, **options: Any) -> Iterator[str]:
    """Serve a memory (or an app of one) until the end of the block; the url."""
    with listening("127.0.0.1", 0) as door:
        web = server(app or create(memory, **({"open_access": True} | options)), grace=5, head_s=head_s)
        thread = threading.Thread(target=web.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            web.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server did not stop"


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

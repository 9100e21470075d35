"""The laws of memory are those of the file and of the server: these tests run on both."""

import pytest

from loci.records import checks_store
from tests.stores import on_postgres

PORTABLE = {
    "test_calibrate", "test_contradict", "test_exchange", "test_forget", "test_hipporag2", "test_learning", "test_postings",
    "test_repeat", "test_scopes", "test_sleep", "test_time", "test_trust", "test_undo", "test_vectors",
}  # fmt: skip


def pytest_generate_tests(metafunc):
    if metafunc.module.__name__.rsplit(".", 1)[-1] in PORTABLE:
        metafunc.fixturenames.append("engine")
        metafunc.parametrize("engine", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def engine(request, monkeypatch):
    """Where `Memory(path)` keeps what it is given."""
    if request.param == "postgres":
        if request.node.get_closest_marker("file_only"):
            pytest.skip("this is about the file")
        on_postgres(monkeypatch, request.module, checks_store)
    return request.param

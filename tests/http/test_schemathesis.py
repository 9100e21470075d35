"""Thousands of requests made from the OpenAPI document, lawful and not: no 500, and every answer as documented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loci.app.http.limits import Limits
from loci.records import Memory, tokens
from tests.http.serving import running

pytestmark = [pytest.mark.enable_socket, pytest.mark.slow]


CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "negative_data_rejection", "unsupported_method", "ignored_auth",
)  # fmt: skip


def test_the_document_holds_under_fuzzing(tmp_path):
    with Memory(tmp_path / "m.db") as memory:
        memory.add([f"kitten {n}" for n in range(20)])
        secret, _ = tokens.create(memory, "fuzz", rights=tokens.RIGHTS)
        with running(memory, limits=Limits(rate=1e6)) as url:
            command = [
                str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS),
                "-H", f"Authorization: Bearer {secret}", "--max-examples", "40", "--seed", "1", "--phases", "examples,coverage,fuzzing",
                "--exclude-path", "/v1/import",  # it cannot make JSON lines; test_bulk does
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=280)
        assert memory.count(scope="/") >= 0
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]

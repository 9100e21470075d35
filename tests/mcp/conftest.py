"""Real servers: `loci mcp` as a user starts it, over stdio or on a free port of this machine."""

import contextlib
import os
import subprocess
import sys

import httpx2
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

LOCI = [sys.executable, "-m", "loci"]


@pytest.fixture
def stdio(tmp_path):
    """A client of a new server process: async with stdio("--scope", "acme/ana") as client."""

    def start(*args, file="m.db", mode="auto"):
        given = StdioServerParameters(
            command=LOCI[0], args=[*LOCI[1:], "mcp", str(tmp_path / file), *args], cwd=tmp_path
        )
        return Client(given, mode=mode)

    return start


class Served:
    """A server process that listens; stop it gently or not."""

    def __init__(self, args, env):
        self.process = subprocess.Popen(
            [*LOCI, "mcp", *args, "--http", "--port", "0"], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=env
        )  # fmt: skip
        line = self.process.stderr.readline()
        assert line.startswith("loci mcp: listening on http://"), line + self.process.stderr.read()
        self.url = line.split()[-1]
        self.here = self.url.replace("0.0.0.0", "127.0.0.1")

    def end(self, *, kill=False):
        (self.process.kill if kill else self.process.terminate)()
        code = self.process.wait(30)
        self.process.stderr.close()
        return code

    @contextlib.asynccontextmanager
    async def client(self, mode="auto", **headers):
        async with httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as http:
            async with Client(streamable_http_client(self.here, http_client=http), mode=mode) as client:
                yield client

    def post(self, **headers):
        """A bare request, for what a client of good manners would never send."""
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        sent = {"accept": "application/json, text/event-stream", **headers}
        return httpx2.post(self.here, json=ping, headers=sent, trust_env=False, timeout=30)


@pytest.fixture
def served(tmp_path):
    """Start servers; whatever is still running is stopped after the test."""
    running = []

    def start(*args, file="m.db", **env):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LOCI_")}
        running.append(Served([str(tmp_path / file), *args], {**clean, **env}))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            server.end()

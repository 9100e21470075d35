"""`loci mcp --http` on this machine: the same tools, foreign hosts, pages and tokens refused, restarts survived."""

import asyncio
import subprocess
import sys

import httpx2
import pytest

from loci.records import Memory

pytestmark = pytest.mark.enable_socket


async def remember(client, text):
    answer = await client.call_tool("remember", {"text": text})
    assert not answer.is_error
    return answer.structured_content["ids"][0]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_official_client_works_over_http(served, mode):
    server = served("--scope", "acme/ana")

    async def use():
        async with server.client(mode) as client:
            assert len((await client.list_tools()).tools) == 8
            assert await remember(client, "Ana: I adopted a kitten") == 1
            answer = await client.call_tool("recall", {"question": "what did Ana adopt?"})
            assert answer.structured_content["hits"][0]["text"] == "Ana: I adopted a kitten"
            assert (await client.call_tool("recall", {"question": "x", "scope": "/"})).is_error
            assert "kitten" in (await client.read_resource("loci://item/1")).contents[0].text

    asyncio.run(use())
    assert server.end() == 0


def test_many_clients_at_once_lose_nothing(served, tmp_path):
    server = served()

    async def work(n):
        async with server.client() as client:
            return await asyncio.gather(*(remember(client, f"note {n}-{m}") for m in range(10)))

    async def use():
        return await asyncio.gather(*map(work, range(6)))

    ids = [id_ for some in asyncio.run(use()) for id_ in some]
    assert len(set(ids)) == 60
    assert server.end() == 0
    with Memory(tmp_path / "m.db") as memory:
        assert {item.id for item in memory.items()} == set(ids)


def test_kill_and_restart_lose_nothing_that_was_acknowledged(served, tmp_path):
    server, told = served(), {}

    async def work(n):
        try:
            async with server.client() as client:
                for m in range(1000):
                    told[await remember(client, f"note {n}-{m}")] = f"note {n}-{m}"
        except Exception:  # the server died: which error is the client's affair
            return

    async def use():
        writers = [asyncio.create_task(work(n)) for n in range(3)]
        while len(told) < 30:
            assert not all(writer.done() for writer in writers)
            await asyncio.sleep(0.01)
        server.end(kill=True)
        await asyncio.wait(writers)

    asyncio.run(use())
    again = served()

    async def look():
        async with again.client() as client:
            return (await client.call_tool("stats", {})).structured_content["items"]

    assert asyncio.run(look()) >= len(told)
    with Memory(tmp_path / "m.db") as memory:
        assert told.items() <= {item.id: item.text for item in memory.items()}.items()


def test_foreign_hosts_and_pages_are_refused(served):
    server = served()
    port = server.url.split(":")[-1].split("/")[0]
    assert server.post().status_code == 200
    for host in (f"localhost:{port}", "localhost", f"127.0.0.1:{port}"):
        assert server.post(host=host).status_code == 200, host
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1.evil.example",
        f"localhost.evil.example:{port}",
        "[::2]",
    ):
        assert server.post(host=host).status_code == 421, host
    for origin in (f"http://localhost:{port}", "http://127.0.0.1"):
        assert server.post(origin=origin).status_code == 200, origin
    for origin in ("http://evil.example", "null", "http://localhost.evil.example", "file://", "http://evil.example:80"):
        assert server.post(origin=origin).status_code == 403, origin


def test_a_token_is_asked_for_by_every_request(served):
    server = served(LOCI_MCP_TOKEN="s3cret-\u00e9")
    right = "Bearer s3cret-\u00e9".encode()
    refused = [{}, {"authorization": "Bearer"}, {"authorization": "Bearer s3cret"}, {"authorization": b"Bearer s3cret-\xe9"}, {"authorization": b"Basic s3cret-\xc3\xa9"}, {"authorization": right + b"x"}, {"authorization": b"Bearer " + right}]  # fmt: skip
    for headers in refused:
        answer = server.post(**headers)
        assert answer.status_code == 401, headers
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "send it as: Authorization: Bearer TOKEN" in answer.text
        assert "s3cret" not in answer.text
    twice = httpx2.post(
        server.here, json={}, headers=[("authorization", right), ("authorization", right)], trust_env=False
    )
    assert twice.status_code == 401
    assert server.post(authorization=right).status_code == 200
    assert server.post(authorization=b"bearer" + right[6:]).status_code == 200

    async def use():
        async with server.client(authorization=right) as client:
            return await remember(client, "x")

    assert asyncio.run(use()) == 1


def test_with_a_token_it_may_be_reached_from_elsewhere_under_the_names_it_was_given(served):
    server = served("--host", "0.0.0.0", "--token", "t", "--allow-host", "memory.example")
    port = server.url.split(":")[-1].split("/")[0]
    token = {"authorization": "Bearer t"}
    assert server.post(host="memory.example", **token).status_code == 200
    assert server.post(host=f"memory.example:{port}", origin="https://memory.example", **token).status_code == 200
    assert server.post(host="memory.example").status_code == 401
    assert server.post(host="other.example", **token).status_code == 421
    assert server.post(origin="https://other.example", **token).status_code == 403


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            ["--host", "0.0.0.0"],
            "host='0.0.0.0' is reachable from other machines and no token is asked for; give --token",
        ),
        (["--host", "::"], "is reachable from other machines"),
        (["--host", "example.org"], "is reachable from other machines"),
        (["--token", ""], "the token is empty"),
        (["--token", " ", "--host", "0.0.0.0"], "the token is empty"),
        (["--host", "127.0.0.1", "--port", "99999"], "port=99999 is no port"),
        (["--host", "127.0.0.77.", "--token", "t"], "cannot listen on host='127.0.0.77.'"),
        (["--scope", "a/../b"], "is not a slash path"),
    ],
)
def test_what_is_not_safe_is_refused_in_one_line(tmp_path, args, sentence):
    done = subprocess.run(
        [sys.executable, "-m", "loci", "mcp", str(tmp_path / "m.db"), "--http", "--port", "0", *args],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.startswith("loci: ")
    assert done.stderr.count("\n") == 1


def test_a_body_too_large_is_refused_before_it_is_read(served):
    server = served()
    answer = httpx2.post(
        server.here, content=b"{" + b" " * (5 << 20), headers={"content-type": "application/json"}, trust_env=False
    )
    assert answer.status_code == 413
    assert server.post().status_code == 200

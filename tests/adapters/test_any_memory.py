"""Every adapter over every memory: a file, PostgreSQL, and `loci serve` over HTTP give the same answers."""

import asyncio
import subprocess
import sys

import pytest
from llama_index.core.base.llms.types import ChatMessage
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from loci.adapters import tools
from loci.adapters.langgraph import LociStore
from loci.adapters.llamaindex import LociBlock
from loci.adapters.openai_agents import LociSession
from loci.records import Memory
from tests import stores


@pytest.fixture(params=["file", "postgres", "http"])
def url(request, tmp_path):
    """Where a memory is: a path or a URL."""
    if request.param == "postgres":
        yield stores.tenant()
    elif request.param == "file":
        yield str(tmp_path / "m.db")
    else:
        request.getfixturevalue("socket_enabled")
        process = subprocess.Popen(
            [sys.executable, "-m", "loci", "serve", str(tmp_path / "m.db"), "--port", "0"], stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        yield process.stdout.readline().split()[-1]
        process.terminate()
        process.wait(30)
        process.stdout.close()


def test_all_of_them_work_and_keep_to_their_scope(url):
    async def talk(memory):
        session = LociSession("c", memory, scope="acme/agents")
        await session.add_items(
            [{"role": "user", "content": "I paint boats"}, {"type": "reasoning", "id": "r", "summary": []}]
        )
        assert await session.get_items(1) == [{"type": "reasoning", "id": "r", "summary": []}]
        assert await session.pop_item() == {"type": "reasoning", "id": "r", "summary": []}
        await LociSession("d", memory, scope="acme/agents").clear_session()
        block = LociBlock(memory=memory, scope="acme/llama")
        await block.aput([ChatMessage(role="user", content="Ana likes green tea")], session_id="s")
        assert "Ana likes green tea" in await block.aget([ChatMessage(role="user", content="who likes green tea?")])
        return await session.get_items()

    with Memory(url) as memory:
        store = LociStore(memory, scope="acme/graph")
        for name in ("Miso", "Misu"):
            store.put(("u", "a/b"), "pet", {"name": name, "kind": "kitten"})
        store.put(("u",), "pet", {"name": "Rex"})
        assert store.get(("u", "a/b"), "pet").value == {"name": "Misu", "kind": "kitten"}
        assert store.search(("u",), query="kitten")[0].value["name"] == "Misu"
        store.delete(("u", "a/b"), "pet")
        assert store.list_namespaces() == [("u",)]
        assert asyncio.run(talk(memory)) == [{"role": "user", "content": "I paint boats"}]
        for name, given in (
            ("remember", {"text": "Ana: I sail"}), ("recall", {"question": "who sails?"}), ("stats", {}),
            ("diff", {"before": "2020", "after": "2999"}),
        ):  # fmt: skip
            answer = tools.call(memory, name, given, scope="acme/tools")
            assert not answer.is_error, answer.text
        (sail,) = tools.call(memory, "recall", {"question": "who sails?"}, scope="acme/tools").data["hits"]
        for name, given in (
            ("feedback", {"question": "who sails?", "ids": [sail["id"]]}), ("forget", {"ids": [sail["id"]]}),
            ("restore", {"ids": [sail["id"]]}), ("history", {"id": sail["id"]}), ("forget", {"ids": [sail["id"]], "erase": True}),
        ):  # fmt: skip
            assert tools.call(memory, name, given, scope="acme/other").is_error
            answer = tools.call(memory, name, given, scope="acme/tools")
            assert not answer.is_error, answer.text
        texts = sorted(item.text for item in memory.items(scope="acme"))
        assert texts == ["Rex (name)", "user: Ana likes green tea", "user: I paint boats"]


def test_the_mcp_server_serves_it(url):
    async def use():
        server = StdioServerParameters(command=sys.executable, args=["-m", "loci", "mcp", url, "--scope", "acme/ana"])
        async with Client(server) as client:
            told = await client.call_tool("remember", {"text": "Ana: I paint boats"})
            assert not told.is_error, told.content[0].text
            found = await client.call_tool("recall", {"question": "what does Ana paint?"})
            assert (await client.call_tool("recall", {"question": "x", "scope": "acme"})).is_error
            return [hit["text"] for hit in found.structured_content["hits"]]

    assert asyncio.run(use()) == ["Ana: I paint boats"]

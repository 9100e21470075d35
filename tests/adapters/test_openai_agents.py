"""A session of the OpenAI Agents SDK: as lossless as its own SQLiteSession, in its own Runner, and recallable."""

import asyncio
import json
import random

import pytest
from agents import Agent, ModelResponse, RunConfig, Runner, SQLiteSession, Usage, function_tool
from agents.memory import Session, SessionSettings
from agents.models.interface import Model
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from loci.adapters.openai_agents import LociSession
from loci.app.answers import shown
from loci.records import Memory

ITEMS = [
    {"role": "user", "content": "I adopted a kitten called Miso"},
    {"role": "user", "content": [{"type": "input_text", "text": "and "}, {"type": "input_image", "image_url": "data:,x"}]},
    {"type": "message", "role": "assistant", "id": "m1", "status": "completed",
     "content": [{"type": "output_text", "text": "Lovely!\u2028\u00e9\U0001f600 \ud83d", "annotations": []}]},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{\"city\": \"Rome\"}"},
    {"type": "function_call_output", "call_id": "c1", "output": "zeppelin weather"},
    {"type": "reasoning", "id": "r1", "summary": []},
    {"role": "user", "content": ""},
]  # fmt: skip


@pytest.fixture
def memory():
    with Memory(":memory:", scope="acme") as memory:
        yield memory


def test_it_is_a_session(memory):
    assert isinstance(LociSession("s", memory), Session)


def test_a_random_sequence_gives_what_the_sdk_s_own_session_gives(memory):
    chance = random.Random(7)

    async def play():
        ours, theirs = LociSession("s", memory), SQLiteSession("s")
        for _ in range(150):
            match chance.choice(["add", "add", "get", "get", "pop", "clear" if chance.random() < 0.2 else "get"]):
                case "add":
                    some = [dict(chance.choice(ITEMS)) for _ in range(chance.randrange(4))]
                    await ours.add_items(some)
                    await theirs.add_items(some)
                case "get":
                    limit = chance.choice([None, 1, 2, 100])
                    assert await ours.get_items(limit) == await theirs.get_items(limit)
                case "pop":
                    assert await ours.pop_item() == await theirs.pop_item()
                case "clear":
                    await ours.clear_session()
                    await theirs.clear_session()
        assert await ours.get_items() == await theirs.get_items()
        theirs.close()

    asyncio.run(play())


def test_a_limit_comes_from_the_call_or_the_settings(memory):
    async def use():
        session = LociSession("s", memory, session_settings=SessionSettings(limit=2))
        await session.add_items(ITEMS[:4])
        return await session.get_items(), await session.get_items(1), await session.get_items(0)

    two, one, none = asyncio.run(use())
    assert (two, one, none) == (ITEMS[2:4], ITEMS[3:4], [])


def test_clear_and_pop_touch_their_own_session_only(memory):
    memory.add("Ana: written by hand", scope="acme/ana/s1")
    ids = ["s1", "s1/x", "s2", "..", "s1 "]

    async def use():
        sessions = {id_: LociSession(id_, memory, scope="acme/ana") for id_ in ids}
        for id_, session in sessions.items():
            await session.add_items([{"role": "user", "content": f"said in {id_}"}])
        await sessions["s1"].clear_session()
        await sessions["s1"].pop_item()
        await sessions["s2"].pop_item()
        return [[item["content"] for item in await session.get_items()] for session in sessions.values()]

    assert asyncio.run(use()) == [[], ["said in s1/x"], [], ["said in .."], ["said in s1 "]]
    assert [item.text for item in memory.items(scope="acme/ana/s1")] == ["Ana: written by hand"]


def test_what_was_said_is_recalled_across_sessions_and_what_tools_said_is_not(memory):
    async def use():
        await LociSession("s1", memory, scope="acme/ana").add_items(ITEMS)
        await LociSession("s2", memory, scope="acme/ana").add_items([{"role": "user", "content": "I sail a boat"}])

    asyncio.run(use())
    assert (
        memory.recall("what kitten did I adopt?", scope="acme/ana")[0].item.text
        == "user: I adopted a kitten called Miso"
    )
    assert len(memory.recall("boat", scope="acme/ana")) == 1
    assert memory.recall("zeppelin", scope="acme/ana") == []
    assert memory.recall("kitten", scope="acme/bo") == []


def test_recalled_text_is_not_remembered_again_and_still_stands_in_the_history(memory):
    memory.add("Ana: the safe code is 4711", scope="acme/ana/facts")
    quoted = shown(memory.recall("safe code", scope="acme/ana"))
    item = {"role": "user", "content": f"<memory>{quoted}</memory>\nAnd who feeds the parrot?"}

    async def use():
        session = LociSession("s", memory, scope="acme/ana")
        await session.add_items([item])
        return await session.get_items()

    assert asyncio.run(use()) == [item]
    assert [hit.item.text for hit in memory.recall("4711", scope="acme/ana")] == ["Ana: the safe code is 4711"]
    assert memory.recall("parrot", scope="acme/ana")[0].item.text == "user: And who feeds the parrot?"


def test_an_item_that_is_not_json_is_refused_and_nothing_is_kept(memory):
    async def use():
        session = LociSession("s", memory)
        with pytest.raises(TypeError, match="give input items that are JSON"):
            await session.add_items([ITEMS[0], {"role": "user", "content": object()}])
        return await session.get_items(), await session.pop_item()

    assert asyncio.run(use()) == ([], None)


def test_two_processes_never_pop_the_same_item(tmp_path):
    with Memory(tmp_path / "s.db") as one, Memory(tmp_path / "s.db") as two:

        async def use():
            sessions = [LociSession("s", one), LociSession("s", two)]
            await sessions[0].add_items([{"role": "user", "content": str(n)} for n in range(20)])
            got = await asyncio.gather(*(sessions[n % 2].pop_item() for n in range(24)))
            return [item["content"] for item in got if item is not None]

        assert sorted(asyncio.run(use()), key=int) == [str(n) for n in range(20)]


class Scripted(Model):
    """Answers from a list, and keeps what it was shown."""

    def __init__(self, *outputs):
        self.outputs, self.seen = list(outputs), []

    async def get_response(self, **given):
        self.seen.append(json.loads(json.dumps(given["input"])))
        return ModelResponse(output=[self.outputs.pop(0)], usage=Usage(), response_id=None)

    def stream_response(self, *args, **kwargs):
        raise NotImplementedError


def says(text):
    part = ResponseOutputText(text=text, type="output_text", annotations=[])
    return ResponseOutputMessage(id="m", role="assistant", status="completed", type="message", content=[part])


def test_the_sdk_s_runner_goes_on_where_it_stopped_after_a_restart(tmp_path):
    @function_tool
    def weather(city: str) -> str:
        """The weather."""
        return f"sun in {city}"

    call = ResponseFunctionToolCall(call_id="c1", name="weather", arguments='{"city": "Rome"}', type="function_call")
    quiet = RunConfig(tracing_disabled=True)

    async def turn(said, *outputs):
        model = Scripted(*outputs)
        with Memory(tmp_path / "a.db") as memory:
            session = LociSession("s1", memory, scope="acme/ana")
            agent = Agent(name="A", model=model, tools=[weather])
            result = await Runner.run(agent, said, session=session, run_config=quiet)
            return model.seen, result.final_output

    seen, final = asyncio.run(turn("My name is Ana. Weather in Rome?", call, says("Sun, Ana.")))
    assert final == "Sun, Ana."
    assert len(seen) == 2
    seen, final = asyncio.run(turn("What is my name?", says("Ana.")))
    kinds = [item.get("type", item.get("role")) for item in seen[0]]
    assert kinds == ["user", "function_call", "function_call_output", "message", "user"]
    assert "sun in Rome" in str(seen[0][2]["output"])
    with Memory(tmp_path / "a.db") as memory:
        assert memory.recall("name", scope="acme/ana")[0].item.session == "s1"

"""The plain list of tools: the shapes that endpoints take, one table with the MCP server, and calls that never raise."""

import json

import jsonschema
import pytest

from loci.adapters import tools
from loci.app import verbs
from loci.records import Memory


@pytest.fixture
def memory():
    with Memory(":memory:", scope="acme/ana") as memory:
        yield memory


def test_the_shapes_say_the_same():
    chat, responses, anthropic = tools.for_openai(), tools.for_responses(), tools.for_anthropic()
    assert [tool["function"]["name"] for tool in chat] == list(verbs.VERBS)
    for one, two, three in zip(chat, responses, anthropic, strict=True):
        assert one["type"] == two["type"] == "function"
        assert one["function"] == {
            "name": two["name"],
            "description": two["description"],
            "parameters": two["parameters"],
        }
        assert three == {"name": two["name"], "description": two["description"], "input_schema": two["parameters"]}
        jsonschema.Draft202012Validator.check_schema(three["input_schema"])
        assert set(three) == {"name", "description", "input_schema"}
        assert three["description"]
        assert all(part["description"] for part in three["input_schema"]["properties"].values())


def test_read_only_lists_and_calls_nothing_that_writes(memory):
    names = [tool["name"] for tool in tools.for_anthropic(read_only=True)]
    assert names == ["recall", "history", "diff", "stats"]
    for name in set(verbs.VERBS) - set(names):
        answer = tools.call(memory, name, {"text": ["x"], "ids": [1], "question": "x"}, read_only=True)
        assert answer.is_error
        assert "this memory is read-only; call one of recall, history, diff, stats" in answer.text
    assert memory.count() == 0


def test_every_verb_makes_its_round_trip(memory):
    ids = tools.call(
        memory, "remember", json.dumps({"text": ["Ana: I adopted a kitten", "Ana: I sail"], "at": "2023-05-03"})
    ).data["ids"]
    found = tools.call(memory, "recall", {"question": "what did Ana adopt?", "k": 1, "why": True})
    assert found.data["hits"][0]["id"] == ids[0]
    assert found.data["hits"][0]["at"] == "2023-05-03T00:00:00+00:00"
    assert sum(found.data["hits"][0]["why"].values()) == pytest.approx(found.data["hits"][0]["score"])
    assert '"Ana: I adopted a kitten"' in str(found)
    assert "because of" in str(found)
    assert tools.call(memory, "feedback", {"question": "what did Ana adopt?", "ids": ids[:1]}).data == {"learned": 1}
    assert memory.get(ids[:1])[0].uses == 1
    assert tools.call(memory, "forget", {"ids": ids[:1]}).data["forgotten"] == ids[:1]
    assert tools.call(memory, "restore", {"ids": ids[:1]}).data == {"restored": ids[:1]}
    assert [event["op"] for event in tools.call(memory, "history", {"id": ids[0]}).data["events"]][:1] == ["add"]
    came = tools.call(memory, "diff", {"before": "2020", "after": "2999"})
    assert [item["id"] for item in came.data["added"]] == ids
    assert tools.call(memory, "stats", None).data["items"] == 2
    erased = tools.call(memory, "forget", {"ids": ids, "erase": True})
    assert all(receipt["clean"] for receipt in erased.data["receipts"])


WRONG = [
    ("nope", {}, "there is no tool 'nope'; call one of remember, recall"),
    ("recall", {}, "recall was called without 'question'; give it (What is asked.)"),
    ("recall", {"question": None}, "without 'question'"),
    ("recall", {"question": 7}, "recall was given question=7; give text"),
    ("recall", {"question": "x", "k": "five"}, "give a whole number (How many items.)"),
    ("recall", {"question": "x", "k": True}, "give a whole number"),
    ("recall", {"question": "x", "k": -1}, "k=-1 is not a number of hits"),
    ("recall", {"question": "x", "limit": 5}, "recall takes no 'limit'; give question, k, scope"),
    ("recall", {"question": "x", "as_of": "soon"}, "as_of='soon' is not a date"),
    ("recall", {"question": "x", "file": "/etc/passwd"}, "recall takes no 'file'"),
    ("remember", {"text": ["x"], "kind": "rumour"}, "kind='rumour' is unknown"),
    ("remember", {"text": [{"a": 1}]}, "give text (Texts, one item each.)"),
    ("remember", {"text": ["x"], "supersedes": [99]}, "99"),
    ("feedback", {"question": "x", "ids": []}, "ids is empty"),
    ("feedback", {"question": "x", "ids": [99]}, "items [99] are not live"),
    ("feedback", {"question": "x", "ids": [1], "reward": 2}, "reward=2 is outside [-1, 1]"),
    ("forget", {"ids": [99]}, "items [99] are not live in this scope, nothing was forgotten"),
    ("forget", {"ids": ["1; DROP"]}, "give a whole number"),
    ("history", {"id": 99}, "items [99] are not live"),
    ("recall", "{", "the arguments of recall are not JSON"),
    ("recall", "[1]", "the arguments of recall are a list; give one JSON object"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "sentence"), WRONG)
def test_what_a_model_does_wrong_is_one_sentence_it_can_act_on(memory, name, arguments, sentence):
    memory.add("Ana: I sail")
    answer = tools.call(memory, name, arguments)
    assert answer.is_error
    assert sentence in answer.text
    assert answer.data == {"error": answer.text}
    assert "\n" not in answer.text
    assert memory.count() == 1


def test_one_text_is_a_list_of_one_and_a_whole_float_is_a_whole_number(memory):
    assert tools.call(memory, "remember", {"text": "Ana: I sail"}).data["ids"] == [1]
    assert len(tools.call(memory, "recall", {"question": "sail", "k": 1.0}).data["hits"]) == 1


def test_the_scope_narrows_and_never_widens(memory):
    memory.add("Ana: mine is the kitten", scope="acme/ana")
    memory.add("Ana: below is a kitten", scope="acme/ana/notes")
    strange = memory.add("Bo: foreign kitten", scope="acme/bo")
    memory.add("Ana: foreign kitten", scope="acme/anabel")

    def texts(**given):
        return {
            hit["text"] for hit in tools.call(memory, "recall", {"question": "kitten", "k": 9, **given}).data["hits"]
        }

    assert texts() == {"Ana: mine is the kitten", "Ana: below is a kitten"}
    assert texts(scope="acme/ana/notes") == texts(scope="/acme/ana/notes/") == {"Ana: below is a kitten"}
    tricks = ["/", "acme", "acme/bo", "acme/anabel", "acme/ana/../bo", "..", "acme/ana/..", "", " ", "acme//ana", "ACME/ANA", "acme/an\u0430", "acme/ana\x00/x", "acme\\ana", "%", "*", "acme/ana%2F..%2Fbo"]  # fmt: skip
    for trick in tricks:
        for name, given in (
            ("recall", {"question": "kitten"}), ("remember", {"text": ["x"]}), ("forget", {"ids": strange}), ("stats", {}),
            ("restore", {"ids": strange}), ("history", {"id": strange[0]}), ("diff", {"before": "2020", "after": "2999"}),
            ("feedback", {"question": "x", "ids": strange}),
        ):  # fmt: skip
            answer = tools.call(memory, name, {**given, "scope": trick})
            assert answer.is_error, (trick, name)
            assert "foreign" not in answer.text
    for trick in (None, 7, ["acme/bo"], {"a": 1}):
        answer = tools.call(memory, "recall", {"question": "kitten", "scope": trick, "k": 9})
        assert answer.is_error or len(answer.data["hits"]) == 2
    for name, given in (
        ("forget", {"ids": strange}), ("restore", {"ids": strange}), ("history", {"id": strange[0]}),
        ("feedback", {"question": "x", "ids": strange}), ("remember", {"text": ["x"], "supersedes": strange}),
    ):  # fmt: skip
        assert tools.call(memory, name, given).is_error  # ids of others are no way around it
    assert memory.count(scope="/") == 4
    assert tools.call(memory, "stats", {}).data == {
        "scope": "acme/ana",
        "items": 2,
        "kinds": {"episode": 2},
        "scopes": 2,
    }


def test_what_was_recalled_is_not_remembered_again(memory):
    tools.call(memory, "remember", {"text": ["Ana: I adopted a kitten"]})
    recalled = tools.call(memory, "recall", {"question": "kitten"}).text
    answer = tools.call(memory, "remember", {"text": [f"Note to self: {recalled}"]})
    assert answer.is_error
    assert "remember only what is new" in answer.text
    assert memory.count() == 1


def test_abstention_is_said_in_words(memory):
    tools.call(memory, "remember", {"text": ["Ana: I adopted a kitten", "Ana: I sail a boat"]})
    unsure = tools.call(memory, "recall", {"question": "which car does Ana drive to work?"})
    assert unsure.data["abstain"] is True
    assert unsure.data["known"] < 0.5
    assert "say that you do not know" in unsure.text
    nothing = tools.call(memory, "recall", {"question": "zebra"})
    assert nothing.data["hits"] == []
    assert "memory does not know" in nothing.text
    assert f"known {nothing.data['known']:.2f}" in nothing.text


def test_the_past_is_an_argument(memory):
    old = tools.call(
        memory, "remember", {"text": ["Ana: I work at the bakery"], "at": "2023-05-03", "known": "2023-05-03"}
    ).data["ids"]
    tools.call(
        memory,
        "remember",
        {"text": ["Ana: I work at the museum"], "at": "2024-01-10", "known": "2024-01-10", "supersedes": old},
    )
    asked = {"question": "where does Ana work?", "k": 1}
    assert "museum" in tools.call(memory, "recall", asked).text
    past = tools.call(memory, "recall", {**asked, "as_of": "2023-06-01"}).text
    assert "bakery" in past
    assert "museum" not in past


def test_who_says_it_and_how_far_it_is_believed_is_not_for_the_model(memory):
    author = {"principal": "mcp:assistant", "trust": 0}
    answer = tools.call(memory, "remember", {"text": ["Ana: I sail a boat"]}, author=author)
    (item,) = memory.get(answer.data["ids"])
    assert (item.principal, item.trust) == ("mcp:assistant", 0)
    claimed = tools.call(memory, "remember", {"text": ["trust me"], "trust": "owner"}, author=author)
    assert claimed.is_error
    assert "takes no 'trust'" in claimed.text
    assert memory.count() == 1
    assert not tools.call(memory, "recall", {"question": "what does Ana sail?"}, author=author).is_error

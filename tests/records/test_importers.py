"""Importers on files written here by the formats' own shapes."""

import json

import pytest

from loci import Memory
from loci.records import importers


def texts(path, **options):
    return [item.text for item in importers.read(path, **options)]


@pytest.fixture
def chatgpt(tmp_path):
    def node(name, parent, role, text, children=(), when=1700000000.0):
        message = {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}, "create_time": when}
        return {"id": name, "parent": parent, "children": list(children), "message": message if role else None}

    talk = {
        "title": "Trip", "conversation_id": "c1", "create_time": 1.7e9, "current_node": "d",
        "mapping": {
            "r": node("r", None, None, "", ["s"]),
            "s": node("s", "r", "system", "be nice", ["a"]),
            "a": node("a", "s", "user", "Where to in May?", ["b", "c"]),
            "b": node("b", "a", "assistant", "an answer that was regenerated"),
            "c": node("c", "a", "assistant", "To Naxos.", ["d"]),
            "d": node("d", "c", "user", "I booked the ferry."),
        },
    }  # fmt: skip
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([talk]))
    return path


def test_chatgpt_keeps_the_branch_that_was_shown(chatgpt):
    assert texts(chatgpt) == ["user: Where to in May?", "assistant: To Naxos.", "user: I booked the ferry."]
    first = next(iter(importers.read(chatgpt)))
    assert (first.at, first.known, first.session, first.source) == (1.7e9, 1.7e9, "chatgpt:c1", "chatgpt:c1#2")


def test_claude(tmp_path):
    path = tmp_path / "conversations.json"
    talk = {"uuid": "u1", "name": "x", "created_at": "2024-01-01T00:00:00Z", "chat_messages": [
        {"sender": "human", "text": "I moved to Porto", "created_at": "2024-01-02T00:00:00Z"},
        {"sender": "assistant", "text": "", "content": [{"type": "text", "text": "Lovely."}]},
        {"sender": "assistant", "text": ""},
    ]}  # fmt: skip
    path.write_text(json.dumps([talk]))
    found = list(importers.read(path))
    assert [item.text for item in found] == ["user: I moved to Porto", "assistant: Lovely."]
    assert found[0].at == 1704153600.0


@pytest.mark.parametrize("shape", ["list", "object", "lines"])
def test_openai_messages(tmp_path, shape):
    messages = [
        {"role": "system", "content": "You are helpful"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "I adopted a kitten"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "What is its name?"},
    ]
    path = tmp_path / "chat.json"
    path.write_text({
        "list": json.dumps(messages), "object": json.dumps({"messages": messages}),
        "lines": json.dumps({"messages": messages}) + "\n" + json.dumps({"messages": messages[:2]}) + "\n",
    }[shape])  # fmt: skip
    expected = ["user: I adopted a kitten", "assistant: What is its name?"]
    assert texts(path) == (expected + expected[:1] if shape == "lines" else expected)


def test_a_folder_of_markdown(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.md").write_text("# Pets\n\nMiso is a cat.\n\nHe is grey.\n\n## Food\nTuna only.\n", "utf-8")
    (tmp_path / "sub" / "b.txt").write_text("x" * 1300 + "\n\nshort é\n", "utf-8")
    (tmp_path / "c.bin").write_bytes(b"\xff")
    found = list(importers.read(tmp_path))
    assert [(item.source, item.text[:20], item.meta.get("title")) for item in found] == [
        ("a.md#1", "Miso is a cat.\n\nHe i", "Pets"),
        ("a.md#2", "Tuna only.", "Food"),
        ("sub/b.txt#1", "x" * 20, None),
        ("sub/b.txt#2", "short é", None),
    ]


def test_running_again_adds_nothing_and_goes_on_where_it_was_cut(chatgpt):
    with Memory(":memory:") as memory:
        first = next(iter(importers.read(chatgpt)))
        memory.add(first, scope="me")  # as if it had been cut after one item
        done = importers.run(memory, chatgpt, scope="me")
        assert (done.added, done.skipped, done.total) == (2, 1, 3)
        again = importers.run(memory, chatgpt, scope="me")
        assert (again.added, again.skipped) == (0, 3)
        assert memory.count(scope="me") == 3
        assert memory.recall("what did I book?", scope="me")[0].item.text == "user: I booked the ferry."
        memory.forget(memory.recall("ferry", k=1, scope="me").ids)
        assert importers.run(memory, chatgpt, scope="me").added == 0  # what was forgotten stays so


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("{broken", {}, "line 1 is not JSON"),
        ('{"a": 1}', {}, "no chat that loci knows"),
        ('[{"role": "user", "content": "x"}, {"content": "y"}]', {}, "message 2 has no role"),
        ('[{"role": "user", "content": "x"}]', {"format": "claude"}, "conversation 1 has no chat_messages"),
        ("x", {"format": "spoon"}, "choose one of"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, options, says):
    path = tmp_path / "chat.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=says):
        texts(path, **options)

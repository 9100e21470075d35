"""The members that talk http, against a real server that misbehaves: tries again, says what is wrong, shows no key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from loci.core.errors import LLMError
from loci.ports.embed_http import HTTPEmbedder
from loci.ports.llm_http import HTTPLLM
from tests.ports.server import GOOD, Server, chat

pytestmark = pytest.mark.enable_socket
pytest.importorskip("httpx2", reason="the extra llm is not installed")

KEY = "sk-very-secret"
ASK = [{"role": "user", "content": "Which pet?"}]
BUSY = (503, {}, "busy")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as served:
        yield served


def embedder(server: Server, **rest: Any) -> HTTPEmbedder:
    return HTTPEmbedder(server.url, "m", **{"dim": 16, "key": KEY, "pause": lambda _: None, **rest})


def llm(server: Server, **rest: Any) -> HTTPLLM:
    return HTTPLLM(server.url, "m", **{"key": KEY, "pause": lambda _: None, **rest})


def refused(call: Any) -> str:
    with pytest.raises(LLMError) as caught:
        call()
    shown = str(caught.value) + repr(caught.value.__cause__)
    assert KEY not in shown, "the key is in the error"
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_a_request_says_what_the_form_asks_for(server: Server) -> None:
    llm(server, options={"temperature": 0}).complete(ASK, {"type": "object"})
    embedder(server).embed(["a", "", "b"])
    chatted, embedded = server.seen
    assert chatted["path"] == "/v1/chat/completions"
    assert chatted["body"] | {"response_format": None} == {
        "model": "m", "messages": ASK, "temperature": 0, "response_format": None,
    }  # fmt: skip
    assert embedded["body"] == {"model": "m", "input": ["a", "b"], "encoding_format": "float"}, "a blank text was sent"
    assert {seen["headers"]["authorization"] for seen in server.seen} == {f"Bearer {KEY}"}


def test_texts_are_sent_in_batches_and_come_back_in_order(server: Server) -> None:
    texts = [f"text {n}" for n in range(10)]
    rows = embedder(server, batch=4).embed(texts)
    assert [len(seen["body"]["input"]) for seen in server.seen] == [4, 4, 2]
    for text, row in zip(texts, rows, strict=True):
        asked = np.array(server._row(text))
        assert np.allclose(row, asked / np.linalg.norm(asked), atol=1e-6)


def test_a_busy_server_is_asked_again_after_longer_and_longer(server: Server) -> None:
    waits: list[float] = []
    server.faults = [BUSY, (429, {"retry-after": "7"}, ""), (429, {"retry-after": "tomorrow"}, "")]
    assert llm(server, pause=waits.append).complete(ASK).text == "It is a kitten."
    assert waits == [0.5, 7.0, 2.0]
    server.faults = [(429, {"retry-after": "86400"}, "")]
    llm(server, pause=waits.append).complete(ASK)
    assert waits[-1] == 60.0, "nobody waits a day"


def test_it_gives_up_and_says_where(server: Server) -> None:
    server.faults = [BUSY] * 4
    said = refused(lambda: llm(server).complete(ASK))
    assert f"{server.url}/chat/completions answered 503 (busy)" in said
    assert len(server.seen) == 4
    said = refused(lambda: HTTPLLM("http://127.0.0.1:9/v1", "m", key=KEY, pause=lambda _: None).complete(ASK))
    assert "check that the server runs" in said


@pytest.mark.parametrize(
    ("status", "advice"), [(400, "change what the server refuses"), (401, "check the key"), (404, "check the url")]
)
def test_a_refusal_is_not_asked_again(server: Server, status: int, advice: str) -> None:
    server.faults = [(status, {}, f"you sent the key {KEY} " + "x" * 9000)]
    assert advice in refused(lambda: embedder(server).embed(["a"]))
    assert len(server.seen) == 1


@pytest.mark.parametrize("body", ["<html>hello</html>", "[1, 2]", "", "[" * 100_000, "null"])
def test_an_answer_that_is_no_json_object(server: Server, body: str) -> None:
    server.faults = [(200, {}, body)] * 2
    assert "no JSON object" in refused(lambda: llm(server).complete(ASK))
    assert "no JSON object" in refused(lambda: embedder(server).embed(["a"]))


ONE = {"index": 0, "embedding": [1.0] * 16}


@pytest.mark.parametrize(
    "data",
    [
        None, [], [ONE], [ONE, ONE], [ONE, ONE | {"index": 7}], [ONE, {"index": 1}], [ONE, {"index": 1, "embedding": "abc"}],
        [ONE, {"index": 1, "embedding": [None] * 16}], [ONE, {"index": 1, "embedding": [[1.0]] * 16}], "ab", [1, 2],
    ],
)  # fmt: skip
def test_an_answer_that_is_no_embeddings(server: Server, data: Any) -> None:
    server.faults = [(200, {}, json.dumps({"data": data}))]
    assert "HTTPEmbedder: model 'm'" in refused(lambda: embedder(server).embed(["a", "b"]))


def test_rows_of_another_dim_say_which(server: Server) -> None:
    assert "construct with dim=16" in refused(lambda: embedder(server, dim=8).embed(["a"]))


@pytest.mark.parametrize(
    "body", ["{}", '{"choices": []}', '{"choices": [7]}', chat(None), chat(None, refusal="I will not")]
)
def test_an_answer_without_text(server: Server, body: str) -> None:
    server.faults = [(200, {}, body)]
    said = refused(lambda: llm(server).complete(ASK))
    assert "sent no text" in said
    assert ("I will not" in said) == ("I will not" in body)


def test_an_answer_cut_off_says_so(server: Server) -> None:
    server.faults = [(200, {}, chat(GOOD[:9], finish="length"))]
    assert "cut off at its token limit" in refused(lambda: llm(server).complete(ASK, {"type": "object"}))


def test_tokens_are_counted_where_the_server_does(server: Server) -> None:
    server.faults = [(200, {}, '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}')]
    assert llm(server).complete(ASK).usage == {}
    assert llm(server).complete(ASK).usage == {"input": 21, "output": 5}


def test_a_password_in_the_url_is_not_shown(server: Server) -> None:
    server.faults = [(404, {}, "no")]
    said = refused(lambda: HTTPLLM(server.url.replace("//", "//ana:hush@") + "?token=hush", "m").complete(ASK))
    assert "hush" not in said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"url": "localhost:80"}, "not a web address"), ({"url": "ftp://x/"}, "not a web address"), ({"key": "a\nb"}, "header"),
        ({"key": ""}, "header"), ({"timeout": 0}, "positive"), ({"retries": -1}, "negative"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_at_once(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        HTTPLLM(**{"url": "http://127.0.0.1:9/v1", "model": "m", **given})
    assert given.get("key") is None or repr(given["key"]) not in str(caught.value)

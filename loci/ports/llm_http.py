"""A language model behind a server: any endpoint that speaks the OpenAI chat form, local or hosted.

Paper: none; POST {url}/chat/completions with {"model", "messages"} answers {"choices", "usage"}.
Differs: an answer under a schema is checked here, whether or not the server enforces it.
Keeps: nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from loci.core.card import method
from loci.core.errors import LLMError
from loci.core.ports import Completion, Message
from loci.ports.answers import Schema, chat, read
from loci.ports.wire import Pause, Wire


@method(
    name="http",
    kind="llm",
    title="OpenAI-style chat endpoint",
    says="completes chats by any server that speaks the OpenAI form; an answer under a schema is checked",
    bytes="0",
    example={"url": "http://127.0.0.1:9/v1", "model": "example"},
    needs=("llm",),
)
class HTTPLLM:
    """A language model by a server. `options` are further fields of the request, such as {"temperature": 0}.

    Tries `retries` times more on a busy server. `strict` asks the server to enforce the schema, which some do only
    for schemas that close every object. `key` goes into the header and into no message.

    >>> llm = HTTPLLM("http://127.0.0.1:11434/v1", "llama3.2", options={"temperature": 0})
    >>> answer = llm.complete([{"role": "user", "content": "Say hello."}])  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        timeout: float = 120.0,
        retries: int = 3,
        strict: bool = False,
        options: Mapping[str, Any] | None = None,
        pause: Pause = time.sleep,
    ) -> None:
        self.model, self.strict = model, strict
        self.options = dict(options or {})
        self._wire = Wire(url, who="HTTPLLM", key=key, timeout=timeout, retries=retries, pause=pause)

    def complete(self, messages: Sequence[Message], schema: Schema | None = None) -> Completion:
        """Answer with text, tokens, and `data` under a schema; LLMError when server or answer fail."""
        body: dict[str, Any] = {**self.options, "model": self.model, "messages": chat(messages)}
        if schema is not None:
            form = {"name": "answer", "schema": schema, "strict": self.strict}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        answer = self._wire.post("/chat/completions", body)
        text, note = self._text(answer)
        data = None
        if schema is not None:
            data = read(text, schema, who=f"model {self.model!r}", decode=self._wire.decode, note=note)
        return Completion(text, data, _usage(answer.get("usage")))

    def _text(self, answer: Mapping[str, Any]) -> tuple[str, str]:
        """The answer's words, and a note when they were cut off."""
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"]
            if not isinstance(text, str):
                raise TypeError(str(choice["message"].get("refusal") or "no content"))
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise LLMError(
                f"HTTPLLM: model {self.model!r} sent no text ({type(error).__name__}: {error});"
                f" change the request or check that it is a chat model"
            ) from error
        return text, " (cut off at its token limit)" if choice.get("finish_reason") == "length" else ""


def _usage(given: Any) -> dict[str, int]:
    """Tokens as "input" and "output", where the server counts them."""
    if not isinstance(given, Mapping):
        return {}
    both = {"input": given.get("prompt_tokens"), "output": given.get("completion_tokens")}
    return {name: count for name, count in both.items() if type(count) is int}

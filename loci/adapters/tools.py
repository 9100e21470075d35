"""The verbs as a plain list of tools for any model that calls functions: OpenAI's two shapes, Anthropic's, and a `call`.

>>> from loci import Memory
>>> from loci.adapters import tools
>>> [tool["name"] for tool in tools.for_anthropic(read_only=True)]
['recall', 'history', 'diff', 'stats']
>>> with Memory(":memory:") as memory:
...     _ = tools.call(memory, "remember", {"text": ["Ana adopted a kitten"]})
...     print(tools.call(memory, "recall", '{"question": "what did Ana adopt?"}').data["hits"][0]["text"])
Ana adopted a kitten
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loci.app import verbs
from loci.app.answers import Answer
from loci.records import Memory
from loci.records.scope import DEFAULT


def for_openai(*, scope: str = DEFAULT, read_only: bool = False) -> list[dict[str, Any]]:
    """Tools for Chat Completions, and for the many endpoints that speak like it."""
    return [{"type": "function", "function": tool} for tool in _tools("parameters", scope, read_only)]


def for_responses(*, scope: str = DEFAULT, read_only: bool = False) -> list[dict[str, Any]]:
    """Tools for OpenAI's Responses."""
    return [{"type": "function", **tool, "strict": False} for tool in _tools("parameters", scope, read_only)]


def for_anthropic(*, scope: str = DEFAULT, read_only: bool = False) -> list[dict[str, Any]]:
    """Tools for Anthropic's Messages."""
    return _tools("input_schema", scope, read_only)


def _tools(schema: str, scope: str, read_only: bool) -> list[dict[str, Any]]:  # noqa: FBT001 - private
    return [
        {"name": verb.name, "description": verb.says, schema: verb.schema(scope)}
        for verb in verbs.offered(read_only=read_only)
    ]


def call(
    memory: Memory,
    name: str,
    arguments: Mapping[str, Any] | str | None,
    *,
    scope: str | None = None,
    read_only: bool = False,
    author: Mapping[str, Any] | None = None,
) -> Answer:
    """Do what a model asked for, arguments as it gave them (JSON text or a dict); never raises for what a model did wrong.

    scope: the limit of this model, by default the memory's own; its arguments may narrow it, never widen it.
    author: `{"principal": ..., "trust": ...}` of what it remembers; its arguments cannot choose them.
    `answer.text` goes back to the model, with every memory in quotes; `answer.data` is the same as JSON.
    """
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            return _wrong(f"the arguments of {name} are not JSON ({error}); give one JSON object")
    if arguments is not None and not isinstance(arguments, Mapping):
        return _wrong(f"the arguments of {name} are a {type(arguments).__name__}; give one JSON object")
    return verbs.attempt(memory, name, arguments, scope=scope, read_only=read_only, author=author)


def _wrong(sentence: str) -> Answer:
    return Answer(sentence, {"error": sentence}, is_error=True)

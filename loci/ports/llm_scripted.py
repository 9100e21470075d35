"""A language model that replays what it was given: for tests, demos and recorded runs.

Paper: none.
Differs: nothing.
Keeps: the script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock

from loci.core.card import method
from loci.core.errors import LLMError
from loci.core.ports import Completion, Message
from loci.ports.answers import Schema, chat, read

Script = Sequence[str] | Mapping[str, str] | Callable[[Sequence[Message]], str]

_EXAMPLE = [
    '{"pet": "kitten", "age": 2}',
    "It is a kitten.",
    '{"pet": "kitten"}',
    '{"pet": "kitten", "age": "two"}',
    '```json\n{"pet": "dog", "age": 7}\n```',
    '["kitten", 2]',
    '{"pet": "cat", "age": 3, "name": "Tom"}',
]


@method(
    name="scripted",
    kind="llm",
    title="Scripted answers",
    says="replays given answers, checked like a real model's: tests and demos need no server",
    bytes="S",
    example={"script": _EXAMPLE},
)
class ScriptedLLM:
    """Answers from a script; raises LLMError when it has none left or the answer breaks the schema.

    A sequence is replayed in order. A mapping is looked up by the last message: the key that equals it, else the
    first that is part of it. A function is called with the messages. `calls` keeps what was asked.

    >>> llm = ScriptedLLM(["hello", '{"pet": "cat"}'])
    >>> ask = [{"role": "user", "content": "what pet?"}]
    >>> llm.complete(ask).text, llm.complete(ask, {"type": "object"}).data
    ('hello', {'pet': 'cat'})
    """

    def __init__(self, script: Script) -> None:
        if isinstance(script, str | bytes):
            raise TypeError(f"script is one {type(script).__name__}; give a list, such as [answer]")
        if not callable(script) and not isinstance(script, Sequence | Mapping):
            raise TypeError(f"script is a {type(script).__name__}; give a list, a mapping or a function")
        self.script = script
        self.calls: list[list[dict[str, str]]] = []
        self._lock = Lock()

    def complete(self, messages: Sequence[Message], schema: Schema | None = None) -> Completion:
        """The script's next answer, `data` under a schema; LLMError when none is left or it breaks that."""
        asked = chat(messages)
        with self._lock:
            turn = len(self.calls)
            self.calls.append(asked)
        text = self._answer(asked, turn)
        data = None if schema is None else read(text, schema, who="the script")
        return Completion(text, data)

    def _answer(self, asked: list[dict[str, str]], turn: int) -> str:
        if callable(self.script):
            return self.script(asked)
        if not isinstance(self.script, Mapping):
            if turn >= len(self.script):
                raise LLMError(f"the script has {len(self.script)} answers, asked was {turn + 1} times; add answers")
            return self.script[turn]
        last = asked[-1]["content"]
        if last in self.script:
            return self.script[last]
        for part, text in self.script.items():
            if part in last:
                return text
        raise LLMError(f"the script has no answer to {last[:80]!r}; add one of its phrases as a key")

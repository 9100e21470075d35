r"""Reading twice: the question, the context, the context again, the question, for a model that reads once and forgets.

    prompt = hint + context + between + context + question

What a model of constant memory keeps of its first reading is a guess at what will be asked; the second reading comes after
that was said. Memory stays as it is and nothing is trained: what it costs is a prompt about twice as long.

Paper: Arora et al., "Just read twice: closing the recall gap for recurrent language models", arXiv:2407.05483
(JRT-Prompt).
Differs: nothing; the hint is the caller's ("Information about KEY. " in the authors' extraction tasks), and the question
itself unless one is given, so that it is always seen before the second reading.
Keeps: nothing; a state does not grow with a prompt.

>>> read_twice("Ana has a cat.", " Pet:", hint="Information about Pet. ", between="\n").prompt
'Information about Pet. Ana has a cat.\nAna has a cat. Pet:'
>>> read_twice([1, 2, 3], [9])
Prompt(prompt=[9, 1, 2, 3, 1, 2, 3, 9], once=4, twice=8)
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

Words = TypeVar("Words", str, list[int])


class Prompt(NamedTuple, Generic[Words]):
    """A prompt, and the lengths of reading once and twice: characters of strings, or tokens."""

    prompt: Words
    once: int
    twice: int


def read_twice(
    context: Words, question: Words, *, hint: Words | None = None, between: Words | None = None
) -> Prompt[Words]:
    """The prompt that shows `context` twice, over strings or lists of tokens; `hint` is the question unless given."""
    parts = {"context": context, "question": question, "hint": hint, "between": between}
    for name, part in parts.items():
        if part is not None and type(part) is not type(context):
            raise TypeError(
                f"{name} is a {type(part).__name__}, context a {type(context).__name__}; give strings or lists of tokens"
            )
    if not hint and hint is not None:
        raise ValueError(
            "hint is empty, so the first reading would not know what is asked; leave it out to repeat question"
        )
    first = question if hint is None else hint
    middle = context[:0] if between is None else between
    prompt = first + context + middle + context + question
    return Prompt(prompt, len(context) + len(question), len(prompt))

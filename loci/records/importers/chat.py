"""OpenAI-style messages: [{role, content}], {"messages": [...]}, or one of these a line.

What a person and an assistant said is kept, as "user: ..." and "assistant: ..."; system and tool messages are not memories.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loci.core.clock import moment
from loci.records.item import Item

SPOKEN = ("user", "assistant", "human")


def fits(records: Sequence[Any]) -> bool:
    """Whether these are messages, or conversations of messages."""
    first = records[0] if records and isinstance(records[0], dict) else {}
    return ("role" in first and "content" in first) or isinstance(first.get("messages"), list)


def read(records: Sequence[Any], name: str) -> Iterator[Item]:
    """Items of messages, each conversation a session of its own."""
    talks = (
        records if records and isinstance(records[0], dict) and "messages" in records[0] else [{"messages": records}]
    )
    for number, talk in enumerate(talks, start=1):
        messages = talk.get("messages") if isinstance(talk, dict) else None
        if not isinstance(messages, list):
            raise ValueError(f"{name} record {number} has no messages; give {{'messages': [...]}} in each")
        title = str(talk.get("id") or talk.get("title") or f"{name}:{number}")
        for at, message in enumerate(messages, start=1):
            if not isinstance(message, dict) or "role" not in message:
                raise ValueError(f"{name} record {number} message {at} has no role; give role and content in each")
            when = message.get("timestamp", message.get("created_at", talk.get("created_at")))
            yield from turn(
                str(message.get("name") or message["role"]),
                said(message.get("content")),
                title,
                at,
                when,
                role=message["role"],
            )


def turn(speaker: str, text: str, session: str, number: int, when: Any, *, role: str) -> Iterator[Item]:
    """One spoken turn as an item; nothing for other roles and empty texts."""
    if role not in SPOKEN or not text.strip():
        return
    at = None if when in (None, "") else moment(when)
    yield Item(text=f"{speaker}: {text}", at=at, known=at, session=session, source=f"{session}#{number}")


def said(content: Any) -> str:
    r"""The text of a message: as it is, or of its text parts.

    >>> said([{"type": "text", "text": "hello"}, {"type": "image_url"}, "there"])
    'hello\nthere'
    """
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part if isinstance(part, str) else part.get("text", "") for part in parts if isinstance(part, str | dict)]
    return "\n".join(text for text in texts if isinstance(text, str) and text)

"""Claude's export, conversations.json: chat_messages with a sender and text or content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loci.records.importers.chat import said, turn
from loci.records.item import Item


def fits(records: Sequence[Any]) -> bool:
    """Whether these are conversations with chat_messages."""
    return bool(records) and isinstance(records[0], dict) and isinstance(records[0].get("chat_messages"), list)


def read(records: Sequence[Any], name: str) -> Iterator[Item]:
    """The turns of every conversation; "human" speaks as "user"."""
    for number, talk in enumerate(records, start=1):
        if not isinstance(talk, dict) or not isinstance(talk.get("chat_messages"), list):
            raise ValueError(
                f"{name} conversation {number} has no chat_messages; give the conversations.json of a Claude export"
            )
        title = str(talk.get("uuid") or talk.get("name") or number)
        for at, message in enumerate(talk["chat_messages"], start=1):
            role = message.get("sender", "")
            text = said(message.get("content")) or message.get("text") or ""
            when = message.get("created_at") or talk.get("created_at")
            yield from turn("user" if role == "human" else role, text, f"claude:{title}", at, when, role=role)

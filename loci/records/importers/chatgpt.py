"""ChatGPT's export, conversations.json: a tree of messages, of which the shown branch was the conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loci.records.importers.chat import said, turn
from loci.records.item import Item


def fits(records: Sequence[Any]) -> bool:
    """Whether these are conversations with a mapping of nodes."""
    return bool(records) and isinstance(records[0], dict) and isinstance(records[0].get("mapping"), dict)


def read(records: Sequence[Any], name: str) -> Iterator[Item]:
    """The turns on the way from the root to the current node of every conversation."""
    for number, talk in enumerate(records, start=1):
        if not isinstance(talk, dict) or not isinstance(talk.get("mapping"), dict):
            raise ValueError(
                f"{name} conversation {number} has no mapping; give the conversations.json of a ChatGPT export"
            )
        title = str(talk.get("conversation_id") or talk.get("id") or talk.get("title") or number)
        for at, message in enumerate(_branch(talk), start=1):
            role = (message.get("author") or {}).get("role", "")
            text = said((message.get("content") or {}).get("parts"))
            when = message.get("create_time") or talk.get("create_time")
            yield from turn(role, text, f"chatgpt:{title}", at, when, role=role)


def _branch(talk: dict[str, Any]) -> list[dict[str, Any]]:
    mapping = talk["mapping"]
    node = talk.get("current_node") or _last(mapping)
    branch, seen = [], set()
    while node in mapping and node not in seen:
        seen.add(node)
        if mapping[node].get("message"):
            branch.append(mapping[node]["message"])
        node = mapping[node].get("parent")
    return branch[::-1]


def _last(mapping: dict[str, Any]) -> str | None:
    leaves = [name for name, node in mapping.items() if not node.get("children")]
    return leaves[-1] if leaves else None

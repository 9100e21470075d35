"""A session of the OpenAI Agents SDK that lives in a `Memory`: the history lossless, what was said recallable.

    session = LociSession("conversation-7", memory, scope="acme/ana")
    result = await Runner.run(agent, "Hello", session=session)
    memory.recall("what did Ana say about Rome?", scope="acme/ana")     # across all her sessions

Every input item is kept as it is, as JSON, in `meta`; the item's text is what the user and the assistant said, without
memories that were recalled into it. Calls of tools, their results and reasoning are kept for the history, not for recall.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from agents import TResponseInputItem
from agents.memory import SessionABC, SessionSettings
from agents.memory.session_settings import resolve_session_limit

from loci.adapters.paths import path
from loci.adapters.said import turn
from loci.core.errors import UnknownItem
from loci.records import Item, Memory

_KEY = "openai_agents"
_SAID = ("user", "assistant")


class LociSession(SessionABC):
    """The history of one conversation, in a scope of its own below `scope`; other scopes are never touched.

    pinned: items are kept when a budget forgets, since a model refuses a history with holes; False lets them go.
    """

    def __init__(
        self,
        session_id: str,
        memory: Memory,
        *,
        scope: str | None = None,
        session_settings: SessionSettings | None = None,
        pinned: bool = True,
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings or SessionSettings()
        self.memory = memory
        self.scope = path(memory.scope if scope is None else scope, [session_id])
        self._pinned = pinned

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The history, oldest first; with a limit, its latest part."""
        most = resolve_session_limit(limit, self.session_settings)
        held = await asyncio.to_thread(self._held)
        if most is not None:
            held = held[-most:] if most > 0 else []
        return [_given(item) for item in held]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add to the history, all of them or none."""
        if items:
            await _finished(self._add, items)

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the latest item away and return it; None when there is none."""
        return cast("TResponseInputItem | None", await _finished(self._pop))

    async def clear_session(self) -> None:
        """Forget the items of this session."""
        await _finished(self._clear)

    def _held(self) -> list[Item]:
        found = self.memory.items(scope=self.scope)
        return [item for item in found if item.scope == self.scope and _KEY in item.meta]

    def _add(self, items: list[TResponseInputItem]) -> None:
        new = [
            Item(
                text=_said(json.loads(data)),
                session=self.session_id,
                scope=self.scope,
                pinned=self._pinned,
                meta={_KEY: data},
            )
            for data in map(_dumped, items)
        ]
        self.memory.add(new, scope=self.scope)

    def _pop(self) -> TResponseInputItem | None:
        while held := self._held():
            try:
                self.memory.forget(held[-1].id, scope=self.scope)
            except UnknownItem:
                continue  # another process took it
            return _given(held[-1])
        return None

    def _clear(self) -> None:
        while held := self._held():
            try:
                self.memory.forget([item.id for item in held], scope=self.scope)
            except UnknownItem:
                continue  # another process took some of them; look again
            return


async def _finished(work: Callable[..., Any], *given: Any) -> Any:
    """Do work in a thread to its end, even when the caller is cancelled: a write is done or not begun."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *given))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _dumped(item: Any) -> str:
    try:
        return json.dumps(item)  # ASCII: even a lone surrogate comes back
    except (TypeError, ValueError) as error:
        raise TypeError(f"a session item cannot be kept ({error}); give input items that are JSON") from error


def _given(item: Item) -> TResponseInputItem:
    return cast("TResponseInputItem", json.loads(str(item.meta[_KEY])))


def _said(item: Any) -> str:
    """What a user or an assistant said, as `role: words`; empty for anything else."""
    if not isinstance(item, Mapping) or item.get("role") not in _SAID:
        return ""
    content = item.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [str(part["text"]) for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    return turn(str(item["role"]), texts)

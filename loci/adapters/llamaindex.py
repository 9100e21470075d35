"""Long-term memory for LlamaIndex: a memory block that keeps what leaves the short-term history and recalls it when asked.

    block = LociBlock(memory=Memory("trip.db"), scope="acme/ana")
    agent_memory = llama_index.core.memory.Memory.from_defaults(session_id="s1", memory_blocks=[block])
    await agent.run("What did I adopt?", memory=agent_memory)

What users and assistants said is kept word for word, without memories that were recalled into it. What is recalled comes
quoted, as data; when memory does not know, the block stays silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock
from llama_index.core.bridge.pydantic import Field
from llama_index.core.memory.memory import BaseMemoryBlock
from pydantic import SkipValidation

from loci.adapters.said import turn, words
from loci.app.answers import shown
from loci.app.quote import BEGIN, END
from loci.records import Item, Memory

_SAID = (MessageRole.USER, MessageRole.ASSISTANT)
_TOKEN = 4  # characters of one token, about


class LociBlock(BaseMemoryBlock[str]):
    """A block of long-term memory in one scope of a `Memory`."""

    name: str = Field(default="loci", description="The name of the memory block.")
    memory: SkipValidation[Memory] = Field(description="The memory: a file, a server or a URL, opened.", exclude=True)
    scope: str | None = Field(default=None, description="Whose memory; by default the memory's own scope.")
    k: int = Field(default=5, description="How many items to recall.")
    max_tokens: int | None = Field(default=None, description="Recall only what fits.")
    when_unsure: bool = Field(default=False, description="Show also what is found when memory probably does not know.")

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        """What answers the last thing that the user said, quoted; nothing when memory does not know."""
        asked = (words(_texts(one)) for one in reversed(messages or []) if one.role == MessageRole.USER)
        question = next(filter(None, asked), "")
        if not question:
            return ""
        hits = await asyncio.to_thread(
            self.memory.recall, question, self.k, scope=self.scope, max_tokens=self.max_tokens
        )
        return shown(hits) if hits and (self.when_unsure or not hits.abstain) else ""

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """Keep what was said, each message one item, neighbours in their session."""
        new = [
            Item(text=said, session=message.additional_kwargs.get("session_id"))
            for message in messages
            if message.role in _SAID and (said := turn(message.role.value, _texts(message)))
        ]
        if new:
            await asyncio.to_thread(self.memory.add, new, scope=self.scope)

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """Drop the last of the recalled memories until enough tokens are saved; None when nothing is left."""
        lines = content.splitlines()
        inside = lines[1:-1]
        saved = 0
        while inside and saved < tokens_to_truncate * _TOKEN:
            saved += len(inside.pop()) + 1
        return "\n".join([BEGIN, *inside, END]) if inside else None


def _texts(message: ChatMessage) -> Iterator[str]:
    return (block.text for block in message.blocks if isinstance(block, TextBlock))

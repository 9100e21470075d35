"""The command that gives feedback."""

from __future__ import annotations

from typing import Annotated

import typer

from loci.app.common import File, Ids, Json, Scope, opened, out
from loci.records import Hit, Hits, Memory


def learn(
    file: File,
    question: Annotated[str, typer.Argument(help="What was asked, word for word.", show_default=False)],
    ids: Ids,
    *,
    reward: Annotated[float, typer.Option(help="1 useful, 0 useless, -1 harmful.")] = 1.0,
    scope: Scope = "default",
    as_json: Json = False,
) -> None:
    """Tell which recalled items answered a question, so that the next recall is better."""
    with opened(file) as memory:
        count = feedback(memory, question, ids, reward=reward, scope=scope)
    out({"learned": count}, f"learned from {count} items", as_json=as_json)


def feedback(memory: Memory, question: str, ids: list[int], *, reward: float, scope: str) -> int:
    """Learn from a question and the ids that answered it, without the hits that a recall gave; how many items."""
    if not ids:
        raise ValueError("ids is empty; give the ids of the items that answered the question")
    items = memory.get(ids, scope=scope)
    memory.learn(Hits([Hit(item, 0.0, {}) for item in items], query=question, scope=scope), reward)
    return len(items)

"""From scored candidates to what is handed out: near duplicates once, within a number of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from loci.records import near
from loci.records.item import Hit

TOKEN = 4  # characters of one token, about


def wider(k: int) -> int:
    """How many candidates to ask a scheme for, so that k are left after near duplicates collapse."""
    return k + max(5, k // 2) if k else 0


def pick(hits: Sequence[Hit], k: int, max_tokens: int | None = None) -> list[Hit]:
    """The first k hits that do not repeat a better one and together fit `max_tokens`, best first."""
    if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 0):
        raise ValueError(f"max_tokens={max_tokens!r} is not a number of tokens; give an int of at least 0")
    chosen: list[Hit] = []
    left = None if max_tokens is None else max_tokens * TOKEN
    for hit in hits:
        if len(chosen) == k:
            break
        if any(near.same(hit.item.text, better.item.text) for better in chosen):
            continue
        if left is not None:
            if len(hit.item.text) > left:
                continue
            left -= len(hit.item.text) + 1
        chosen.append(hit)
    return chosen

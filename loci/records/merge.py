"""Near-duplicate items of one scope: all pairs above a word overlap, found without comparing all pairs."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from loci.records import near
from loci.records.item import Item

LEAST = 0.9


def duplicates(items: Sequence[Item], *, least: float = LEAST) -> dict[int, int]:
    """Which item repeats which: id of the repetition to id of the oldest (or pinned) item that says the same.

    Nobody stands for another: only items of one principal and one trust are merged, so that undoing one takes no other's.

    Prefix filtering (Chaudhuri et al., 2006): texts with Jaccard overlap of at least `least` share one of the
    floor((1 - least) * n) + 1 rarest of their n words, so only such pairs are compared. `merge_slow` is the oracle.
    """
    words = [near.words(item.text) for item in items]
    rarity = Counter(word for some in words for word in some)
    buckets: dict[tuple[str, tuple[object, ...]], list[int]] = defaultdict(list)
    into: dict[int, int] = {}
    for place in _oldest_first(items):
        ranked = sorted(words[place], key=lambda word: (rarity[word], word))
        prefix = ranked[: math.floor((1 - least) * len(ranked) + 1e-9) + 1] or [""]
        key = (*_whose(items[place]), *near.key(items[place].text))
        seen = sorted({other for word in prefix for other in buckets[word, key]})
        first = next((o for o in seen if near.same(items[o].text, items[place].text, least=least)), None)
        if first is not None and not items[place].pinned:
            into[items[place].id] = items[first].id
            continue
        for word in prefix:
            buckets[word, key].append(place)
    return into


def merge_slow(items: Sequence[Item], *, least: float = LEAST) -> dict[int, int]:
    """The same by comparing every pair."""
    into: dict[int, int] = {}
    kept: list[Item] = []
    for place in _oldest_first(items):
        item = items[place]
        alike = [k for k in kept if _whose(k) == _whose(item) and near.same(k.text, item.text, least=least)]
        if alike and not item.pinned:
            into[item.id] = alike[0].id
        else:
            kept.append(item)
    return into


def _whose(item: Item) -> tuple[str, str, int, str | None]:
    return item.scope, item.kind, item.trust, item.principal


def _oldest_first(items: Sequence[Item]) -> list[int]:
    return sorted(range(len(items)), key=lambda place: (not items[place].pinned, items[place].id))

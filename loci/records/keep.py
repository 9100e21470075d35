"""What to keep when bytes are short: the items that cover the most of what may be asked, a byte.

Greedy cover (Nemhauser et al., 1978: within 1 - 1/e of the best for this submodular gain). The gain of an item is

    (1 + uses) * (1 / 2 if it only asks) * sum_t idf_t (sqrt(c_t + 1) - sqrt(c_t)) / bytes

with c_t the number of kept items that contain term t: the first mention of a rare word counts most, the tenth little.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from loci.records import analysis
from loci.records.item import Item

_ROW = 120  # bytes of an item's row and its place in two trees, about
_ENTRY = 12  # bytes of one posting with its share of the row, about


def cost(item: Item, dim: int = 0) -> int:
    """Bytes that an item takes in the store, about: row, text, postings, vector."""
    return _ROW + len(item.text.encode()) + _ENTRY * len(set(analysis.tokens_of(item))) + 2 * dim


def order(items: Sequence[Item], uses: Mapping[int, float], *, dim: int = 0) -> list[Item]:
    """All items, those to keep longest first; `uses` says how often past questions needed an item."""
    terms = [frozenset(analysis.tokens_of(item)) for item in items]
    found = Counter(term for some in terms for term in some)
    idf = {term: math.log1p((len(items) - n + 0.5) / (n + 0.5)) for term, n in found.items()}
    held: Counter[str] = Counter()

    def gain(place: int) -> float:
        item = items[place]
        news = sum(idf[t] * (math.sqrt(held[t] + 1) - math.sqrt(held[t])) for t in terms[place])
        asks = 0.5 if item.text.rstrip().endswith("?") else 1.0
        return (1 + uses.get(item.id, 0.0)) * asks * news / cost(item, dim)

    heap = [(-gain(place), place) for place in range(len(items))]
    heapq.heapify(heap)
    chosen = []
    while heap:
        _, place = heapq.heappop(heap)
        now = -gain(place)  # gains only fall, so an item that is still first is the best (lazy greedy)
        if heap and now > heap[0][0]:
            heapq.heappush(heap, (now, place))
            continue
        chosen.append(items[place])
        held.update(terms[place])
    return chosen

"""From scored candidates to what is handed out: near duplicates once, within a number of tokens, the less trusted outvoted.

Untrusted hits stand behind trusted ones: each needs a trusted hit before it, whose score it does not pass, so one is never
first and they are never more than half. How many places they have depends on the trusted hits alone, so nothing that an
untrusted text says, and no number of its copies, wins it a place more. Where no trusted item answers, scores decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from loci.records import analysis, near
from loci.records.item import ORDINARY, OWNER, Hit

TOKEN = 4  # characters of one token, about
TRUST = "trust"  # the part of a score that outvoting takes away
ALIKE = 0.4  # word overlap from which untrusted texts are copies of one another
COMPARABLE = 0.5  # an owner's item goes before others on its subject from this share of their score


def wider(k: int) -> int:
    """How many candidates to ask a scheme for, so that k are left after near duplicates collapse."""
    return k + max(5, k // 2) if k else 0


def pick(hits: Sequence[Hit], k: int, max_tokens: int | None = None, *, untrusted: Sequence[Hit] = ()) -> list[Hit]:
    """The first k hits that do not repeat a better one and together fit `max_tokens`, best first.

    untrusted: candidates that `hits` outvote.
    """
    if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 0):
        raise ValueError(f"max_tokens={max_tokens!r} is not a number of tokens; give an int of at least 0")
    chosen: list[Hit] = []
    room = _Room(max_tokens)
    trusted, others = list(hits), [hit for hit in untrusted if not _repeats(hit, hits)]
    votes = 0  # of trusted hits that no untrusted one has used up
    while len(chosen) < k and (trusted or (others and votes)):
        if others and votes and not (trusted and trusted[0].score > others[0].score):
            hit = lowered(others.pop(0), chosen[-1].score)
            if not _copies(hit, chosen) and room.takes(hit):
                chosen.append(hit)
                votes -= 1
        elif trusted:
            hit = trusted.pop(0)
            if not _repeats(hit, [one for one in chosen if one.item.trust >= hit.item.trust]) and room.takes(hit):
                chosen.append(hit)
                votes += 1
    return chosen


class _Room:
    """What is left of a number of tokens."""

    def __init__(self, tokens: int | None) -> None:
        self._left = None if tokens is None else tokens * TOKEN

    def takes(self, hit: Hit) -> bool:
        """Whether a hit's text still fits; if so, its room is taken."""
        if self._left is None:
            return True
        if len(hit.item.text) > self._left:
            return False
        self._left -= len(hit.item.text) + 1
        return True


def lowered(hit: Hit, most: float) -> Hit:
    """A hit whose score is at most `most`; what that takes away is a part of the score."""
    if hit.score <= most:
        return hit
    return Hit(hit.item, most, {**hit.why, TRUST: hit.why.get(TRUST, 0.0) + most - hit.score})


def _repeats(hit: Hit, better: Sequence[Hit]) -> bool:
    return any(near.same(hit.item.text, one.item.text) for one in better)


def _copies(hit: Hit, chosen: Sequence[Hit]) -> bool:
    """Whether an untrusted hit says in much the same words what an untrusted one before it says."""
    words = near.words(hit.item.text)
    return any(near.overlap(words, near.words(one.item.text)) >= ALIKE for one in chosen if one.item.trust < ORDINARY)


def owner_first(query: str, hits: Sequence[Hit]) -> list[Hit]:
    """Hits in order, each other one lowered behind the owner's on the same subject: a word of the question is in both."""
    owners = [hit for hit in hits if hit.item.trust == OWNER]
    if not owners or len(owners) == len(hits):
        return list(hits)
    asked = set(analysis.query_tokens(query))
    terms = {hit.item.id: asked & set(analysis.tokens(hit.item.text)) for hit in hits}

    def outvoted(hit: Hit) -> Hit:
        above = [one.score for one in owners
                 if terms[one.item.id] & terms[hit.item.id] and one.score >= COMPARABLE * hit.score]  # fmt: skip
        return hit if hit.item.trust == OWNER else lowered(hit, min(chain(above, [hit.score])))

    return sorted(map(outvoted, hits), key=lambda hit: (-hit.score, hit.item.trust != OWNER))

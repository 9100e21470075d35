"""Context: what the surroundings of a turn say for it. Scores are added, never ranks.

An item's score is its own BM25 plus the same measure over its surroundings: for each word of the question the best
match within three turns (a soft *and* over the window), the session's best scores, and the score of a question that it
follows; times factors for who speaks and how. An item without a session keeps a multiple of its BM25, so a store of independent
documents keeps the plain BM25 order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loci.core.ports import I64
from loci.records import analysis
from loci.records.ledger import F64
from loci.records.view import View

REACH = 3  # turns on each side of the wide window
SEEDS = 200  # items with the best BM25 that are scored in full, with their neighbours
USER = "user"  # the speaker of imported chats for whom an assistant asks
ROLES = (USER, "assistant")
BEST = 5  # turns whose scores speak for their session


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the parts; chosen by leave-one-conversation-out on five conversations of LoCoMo (docs/recall.md)."""

    around: float = 0.8  # the best match of each word within 3 turns
    session: float = 0.2  # the sum of the session's 5 best scores
    answer: float = 0.7  # the previous turn's score when that turn asks
    speaker: float = 0.8  # factor 1 + speaker for turns of the one speaker whom the question names, or who asks it
    first: float = 0.2  # factor 1 + first for turns in the first person


def seeds(view: View, own: F64, most: int = SEEDS) -> I64:
    """Places of the live items with the best own scores, above 0, rising."""
    return np.sort(view.top(own, most))


def around(view: View, places: I64) -> tuple[I64, I64]:
    """Places with their neighbours, in the order of talk; and where each stands in that order (neighbours differ by 1)."""
    line = view.ledger.line()
    if line is None:
        spots = places
    else:
        back = np.empty(len(line), np.int64)
        back[line] = np.arange(len(line))
        spots = back[places]
    reach = np.arange(-2 * REACH, 2 * REACH + 1)
    near = np.zeros(len(view.ledger), bool)
    near[np.clip(spots[:, None] + reach, 0, len(near) - 1)] = True
    spots = np.flatnonzero(near)
    found = spots if line is None else line[spots]
    live = view.live[found]
    return found[live], spots[live]


def matches(terms: Mapping[str, tuple[I64, F64]], places: I64) -> F64:
    """What each term (rows) gives to each place (columns)."""
    out = np.zeros((len(terms), len(places)))
    for row, (of, part) in zip(out, terms.values(), strict=True):
        if len(of):
            at = np.minimum(np.searchsorted(of, places), len(of) - 1)
            hit = of[at] == places
            row[hit] = part[at[hit]]
    return out


def parts(
    query: str, view: View, terms: Mapping[str, tuple[I64, F64]], own: F64, found: I64, spots: I64, weights: Weights
) -> dict[str, F64]:
    """The parts of the score of each place of `found`, as `around` gave it; they sum to the score."""
    ledger = view.ledger
    session = ledger.session[found]
    asks = (ledger.cues[found] & analysis.ASKS) > 0
    table = matches(terms, found)
    words = table.sum(0)
    wide, answer = table, np.zeros(len(found))
    for step in range(1, min(REACH, len(found) - 1) + 1):
        joined = (spots[step:] - spots[:-step] == step) & (session[step:] == session[:-step]) & (session[step:] >= 0)
        best = wide.copy()
        np.maximum(best[:, step:], table[:, :-step] * joined, out=best[:, step:])
        np.maximum(best[:, :-step], table[:, step:] * joined, out=best[:, :-step])
        wide = best
        if step == 1:
            answer[1:] = words[:-1] * joined * asks[:-1]
    shares = {
        "words": words,
        "around": weights.around * wide.sum(0),
        "session": weights.session * _sessions(own, found, session),
        "answer": weights.answer * answer,
    }
    score = sum(shares.values(), np.zeros(len(found)))
    named = speaker_named(query, view)
    shares["speaker"] = weights.speaker * score * (ledger.speaker[found] == named) * (named >= 0)
    shares["first person"] = weights.first * (score + shares["speaker"]) * ((ledger.cues[found] & analysis.FIRST) > 0)
    return shares


def speaker_named(query: str, view: View) -> int:
    """Number of the one speaker whom a question is about: named in it, or `user` when it says "I"; -1 otherwise."""
    words = set(analysis.query_tokens(query))
    speakers = view.ledger.speakers
    if analysis.in_first_person(query) and USER in speakers:
        return speakers[USER]
    named = [number for name, number in speakers.items() if name not in ROLES and words & set(analysis.tokens(name))]
    return named[0] if len(named) == 1 else -1


def _sessions(own: F64, found: I64, session: I64) -> F64:
    """For each place, the sum of the best own scores of its session; its own score where it has none."""
    scores = own[found]
    order = np.lexsort((-scores, session))
    kinds, start, inverse = np.unique(session[order], return_index=True, return_inverse=True)
    rank = np.arange(len(order)) - start[inverse]
    sums = np.bincount(inverse, scores[order] * (rank < BEST), len(kinds))
    out = np.empty(len(found))
    out[order] = sums[inverse]
    return np.where(session >= 0, out, scores)

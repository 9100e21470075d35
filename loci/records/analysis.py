"""From text to index terms: words, question-word stop list, stems, dates."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from loci.records.item import Item

VERSION = 1  # raised when terms change: `loci doctor` then rebuilds the index

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
STOP = frozenset(
    """a about am an and are as at be been being but by can could did do does doing done for from had has have having he
    her hers him his how i if in into is it its me might my of on or our ours she should so some such than that the
    their theirs them then there these they this those to too us very was we were what when where which who whom whose
    why will with would you your yours""".split()
)


@lru_cache(maxsize=200_000)
def _term(word: str) -> str:
    return "" if word in STOP else word


def tokens(text: str, at: float | None = None) -> list[str]:
    """Index terms of a text, in order, with those of the date on which it happened."""
    terms = [term for word in _WORD.findall(text.lower()) if (term := _term(word))]
    if at is not None:
        terms += date_terms(at)
    return terms


def tokens_of(item: Item) -> list[str]:
    """Index terms of an item."""
    return tokens(item.text, item.at)


@lru_cache(maxsize=10_000)
def date_terms(at: float) -> tuple[str, ...]:
    """Day, month and year as they are asked for."""
    when = datetime.fromtimestamp(at, tz=UTC)
    return tuple(map(_term, (str(when.day), when.strftime("%B").lower(), str(when.year))))


def query_tokens(text: str) -> list[str]:
    """Index terms of a question."""
    return tokens(text)

"""From text to index terms: words, question-word stop list, stems, dates; and the few cues that scoring uses."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from loci.records.item import Item
from loci.records.stem import stem

ASKS, FIRST = 1, 2  # cues: ends with a question; speaks in the first person

STOP = frozenset(
    """a an the and or but if of at by for with about to from in on into over under as is are was were be been being am
    do does did doing done have has had having i me my we our you your he him his she her it its them their this
    that these those there here what which who whom whose when where why how will would can could should shall may
    might must not no nor so than then too very just also s t d m ll re ve don didn doesn isn aren wasn weren won
    wouldn couldn shouldn hasn haven hadn up out off some any all both each more most other such only own same because
    while during before after again further once between through against above below down now""".split()
)
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts written without spaces
_SPEAKER = re.compile(r"^([^\W\d_][^:\n]{0,39}): ")
_UNCLEAN = re.compile(r"[^\w ]|_")
_BRACKETS = re.compile(r"\s*\([^)]*\)\s*$")
_TITLE = 120  # characters of a title at most
_WORD_LENGTH = 100  # characters of a word that count: what is longer is no word
_NAME = 500  # characters of a fact or entity that can be found by its name
_FIRST_PERSON = re.compile(r"\b(?:i|my|me|we|our)\b", re.IGNORECASE)
_MONTHS = "january february march april may june july august september october november december".split()


@lru_cache(maxsize=200_000)
def _terms(word: str) -> tuple[str, ...]:
    """The terms of one lower-case word: none for a stop word, pairs of characters where no spaces are written."""
    if word in STOP:
        return ()
    word = word[:_WORD_LENGTH]
    if _UNSPACED.search(word):
        return tuple(word[at : at + 2] for at in range(max(len(word) - 1, 1)))
    return (stem(word) if word.isalpha() else word,)


def tokens(text: str, at: float | None = None) -> list[str]:
    """Index terms of a text, in order, with those of the date on which it happened.

    >>> tokens("Ana's kittens were running", 1683072000.0)
    ['ana', 'kitten', 'run', '3', 'may', '2023']
    """
    words = _WORD.findall(text.lower().replace("\u2019", "'").replace("'s", ""))
    terms = [term for word in words for term in _terms(word)]
    if at is not None:
        terms += date_terms(at)
    return terms


def tokens_of(item: Item) -> list[str]:
    """Index terms of an item."""
    return tokens(item.text, item.at)


def query_tokens(text: str) -> list[str]:
    """Index terms of a question."""
    return tokens(text)


@lru_cache(maxsize=10_000)
def date_terms(at: float) -> tuple[str, str, str]:
    """Day, month and year as they are asked for; past the stop list, so that May stays findable."""
    when = datetime.fromtimestamp(at, tz=UTC)
    return str(when.day), stem(_MONTHS[when.month - 1]), str(when.year)


def speaker(text: str) -> str | None:
    """Who speaks, from a text that begins "Name: ".

    >>> speaker("Ana: I adopted a kitten"), speaker("no speaker here")
    ('Ana', None)
    """
    found = _SPEAKER.match(text)
    return found[1] if found else None


def cues(text: str) -> int:
    """Which of ASKS and FIRST are true of a spoken turn; 0 for text without a speaker."""
    found = _SPEAKER.match(text)
    if found is None:
        return 0
    said = text[found.end() :]
    return ASKS * said.rstrip().endswith("?") + FIRST * in_first_person(said)


def said(item: Item) -> tuple[str | None, int]:
    """Who speaks and how, for turns of a session: a document's "Title: ..." is nobody's speech."""
    return (speaker(item.text), cues(item.text)) if item.session is not None else (None, 0)


def head(item: Item) -> str | None:
    r"""The name of what an item is about: its title, or first line; all of an entity or fact; None for talk.

    >>> head(Item(text="The Zone (2017 film)\nA film by Denys Desjardins."))
    'the zone'
    """
    if item.kind in ("entity", "fact"):
        return item.text if len(item.text) <= _NAME else None
    first, newline, _ = item.text[: 2 * _TITLE].partition("\n")
    title = item.meta.get("title") or (first if newline and item.session is None else None)
    if not isinstance(title, str) or len(title) > _TITLE:
        return None
    return clean(_BRACKETS.sub("", title)) or None


def clean(text: str) -> str:
    """A phrase as a node is named: lower case, letters, digits and single spaces.

    >>> clean("  The O'Hare_Airport ")
    'the o hare airport'
    """
    return " ".join(_UNCLEAN.sub(" ", text.lower()).split())


def in_first_person(text: str) -> bool:
    """Whether somebody speaks of themselves."""
    return _FIRST_PERSON.search(text) is not None

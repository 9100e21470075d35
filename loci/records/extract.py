"""Entities and triples by rules: what there is without a language model. Thousands of passages a second.

A sentence's subject is the title where the passage has one, else its first name; every other name, number or date in the
sentence becomes an object, and the words between them the relation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from loci.records import analysis
from loci.records.analysis import clean

Triple = tuple[str, str, str]

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'A-Z0-9])|\n+")
_NAME = re.compile(
    r"(?:[^\W\d_a-z][\w'’.-]*(?:\s+(?:of|the|de|van|von|and|&|la|le|du|di|da)(?=\s+[^\W\d_a-z]))*\s*)+|\b\d[\d,./:-]*\b"
)
_LONGEST = 6  # words of a relation


def triples(text: str, title: str | None = None) -> list[Triple]:
    """Cleaned (subject, relation, object) of a passage, each once.

    >>> triples("Erik Hort was born in Montebello. He played for Rockland.", title="Erik Hort")
    [('erik hort', 'born', 'montebello'), ('erik hort', 'played', 'rockland')]
    """
    found: dict[Triple, None] = {}
    body = text.removeprefix(title).lstrip("\n") if title else text
    for sentence in _SENTENCE.split(body):
        for triple in _of(sentence, title):
            found[triple] = None
    return list(found)


def names(text: str) -> list[str]:
    """Names, numbers and dates of a text, cleaned, in order; a single word that only begins a sentence counts too."""
    return [name for match in _NAME.finditer(text) if (name := _name(match[0]))]


def _name(text: str) -> str:
    words = clean(text).split()
    while words and words[0] in analysis.STOP:
        words.pop(0)
    while words and words[-1] in analysis.STOP:
        words.pop()
    return " ".join(words)


def _of(sentence: str, title: str | None) -> Iterator[Triple]:
    matches = [(match, name) for match in _NAME.finditer(sentence) if (name := _name(match[0]))]
    if not matches:
        return
    subject = clean(re.sub(r"\s*\(.*\)$", "", title)) if title else matches[0][1]
    before = 0 if title else matches[0][0].end()
    for match, name in matches if title else matches[1:]:
        if name != subject and name not in subject:
            between = [w for w in clean(sentence[before : match.start()]).split() if w not in analysis.STOP]
            yield subject, " ".join(between[-_LONGEST:]) or "with", name
        before = match.end()

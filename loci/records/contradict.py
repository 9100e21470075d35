"""Contradictions by rule: the same subject, the same functional relation, another object. A proposal, never an act.

A relation is functional when one holds at a time: where one lives, for whom one works, what one's favourite dish is. Only within
such a slot can a later statement supersede an earlier one; "I love tea" and "I love coffee" do not exclude each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from loci.records import analysis
from loci.records.item import ORDINARY, Item

_RELATIONS: tuple[tuple[str, str], ...] = (
    ("lives in", r"(?:live|lives|lived|am living|is living|moved|have moved|has moved|relocated) (?:in|to|at)"),
    ("works for", r"(?:work|works|am working|is working|started working|got a job) (?:at|for|in)"),
    ("works as", r"(?:work|works|am working|is working) as"),
    ("is called", r"(?:am|is|are|'m) (?:called|named)|name is"),
    ("is married to", r"(?:am|is|'m|got|are) (?:married|engaged) to"),
    ("is aged", r"(?:am|is|'m|turned|just turned)(?= \d{1,3}(?: years)?\b)"),
    ("drives", r"(?:drive|drives|am driving|is driving)"),
    ("favourite", r"(?:favou?rite [\w ]{2,30}?) (?:is|are)"),
    ("e-mail", r"e-?mail(?: address)? is"),
    ("phone", r"(?:phone|mobile)(?: number)? is"),
)
_SUBJECT = r"(?P<subject>\bI\b|\b[Mm]y\b|\b[Hh]e\b|\b[Ss]he\b|\b[^\W\d_a-z][\w'-]*(?: [^\W\d_a-z][\w'-]*)?)"
_OBJECT = r"\s+(?P<object>[^.,;!?\n]{1,60})"
_STATED = [
    (
        name,
        re.compile(rf"{_SUBJECT}(?:'s)?\s+(?:(?:now|currently|just|recently|new)\s+)?(?P<relation>{words}){_OBJECT}"),
    )
    for name, words in _RELATIONS
]
_NOW = re.compile(r"\s+(?:now|today|these days|again|anymore|since .*|as of .*)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Slot:
    """A functional statement: who, which relation, what."""

    subject: str
    relation: str
    object: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """`new` may supersede `old`; pass it to `Memory.add(..., supersedes=[old])` or look first.

    trust and old_trust are theirs: what is trusted less supersedes nothing.
    """

    old: int
    new: int
    slot: Slot
    was: str
    trust: int = ORDINARY
    old_trust: int = ORDINARY


def slots(item: Item) -> list[Slot]:
    """Functional statements of an item; "I" is its speaker.

    >>> slots(Item(text="Ana: I work at the museum now."))
    [Slot(subject='ana', relation='works for', object='the museum')]
    """
    speaker = analysis.speaker(item.text)
    said = item.text[len(speaker) + 2 :] if speaker else item.text
    found = []
    for name, pattern in _STATED:
        for match in pattern.finditer(said):
            subject = match["subject"]
            if subject.lower() in ("i", "my"):
                subject = speaker or "i"
            elif subject.lower() in ("he", "she"):
                continue  # whom a pronoun means is not for a rule to say
            relation = analysis.clean(match["relation"]) if name == "favourite" else name
            value = analysis.clean(_NOW.sub("", match["object"].rstrip()))
            if value and not value.startswith(("not ", "no longer")):
                found.append(Slot(analysis.clean(subject), relation, value))
    return found


def propose(new: Item, held: Sequence[Item]) -> list[Proposal]:
    """Which of the held items a new one may supersede: the same slot with another object, and not later."""
    found = []
    said = {(slot.subject, slot.relation): slot for slot in slots(new)}
    for item in held:
        if item.id == new.id or (item.at is not None and new.at is not None and item.at > new.at):
            continue
        for slot in slots(item):
            now = said.get((slot.subject, slot.relation))
            if now is not None and not _agree(now.object, slot.object):
                found.append(Proposal(item.id, new.id, now, slot.object, new.trust, item.trust))
    return found


def _agree(one: str, two: str) -> bool:
    a, b = set(analysis.tokens(one)), set(analysis.tokens(two))
    return a <= b or b <= a

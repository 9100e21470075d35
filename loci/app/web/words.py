"""What the viewer says: times, sizes, beliefs and events in words, the same on every page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from loci.core import sizes
from loci.records import Event, Hits, Item
from loci.records.item import ORDINARY, OWNER, UNTRUSTED

_LONG = 600  # characters of a text that a list shows
PARTS = ("words", "around", "session", "speaker", "first person", "recency", "meaning", "linked", "learned")
_OPS = {
    "add": "added", "derive": "derived", "import": "imported", "forget": "forgotten", "restore": "restored",
    "merge": "merged into a near duplicate", "budget": "dropped to fit a budget", "close": "ended", "learn": "learned from feedback",
    "consolidate": "consolidated",
}  # fmt: skip


def day(seconds: float | None) -> str:
    """A day in words.

    >>> day(1683072000.0), day(None)
    ('3 May 2023', 'not stated')
    """
    if seconds is None:
        return "not stated"
    when = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{when.day} {when:%B} {when.year}"


def moment_of(seconds: float | None) -> str:
    """A time in words: the day, and the hour where there is one.

    >>> moment_of(1683072000.0), moment_of(1683122460.0)
    ('3 May 2023', '3 May 2023, 14:01 UTC')
    """
    if seconds is None:
        return "not stated"
    when = datetime.fromtimestamp(seconds, tz=UTC)
    return day(seconds) if (when.hour, when.minute, when.second) == (0, 0, 0) else f"{day(seconds)}, {when:%H:%M} UTC"


def date_of(seconds: float) -> str:
    """A day as a date field holds it.

    >>> date_of(1683122460.0)
    '2023-05-03'
    """
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d")


def month(seconds: float) -> str:
    """A month in words: the headings of the timeline.

    >>> month(1683072000.0)
    'May 2023'
    """
    when = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{when:%B} {when.year}"


def when_of(item: Item) -> float:
    """When an item stands on the timeline: when it happened, else when it became known."""
    return item.at if item.at is not None else item.known or 0.0


def belief(hits: Hits) -> str:
    """How likely it is that memory holds the answer."""
    return "Probably not in memory" if hits.abstain else "Probably in memory"


def parts(why: Mapping[str, float]) -> list[tuple[str, float]]:
    """The parts of a score that show at two figures, largest first; small ones together, where they show.

    >>> parts({"words": 1.0, "recency": 0.001, "around": -0.5})
    [('words', 1.0), ('around', -0.5)]
    """
    large = {name: value for name, value in why.items() if abs(value) >= 0.005}
    rest = sum(value for name, value in why.items() if name not in large)
    named = {**large, "rest": rest} if abs(rest) >= 0.005 else large
    return sorted(named.items(), key=lambda part: -part[1])


def score_of(why: Mapping[str, float]) -> str:
    """A score in words, for those who do not see the bar.

    >>> score_of({"words": 1.25, "session": 0.5})
    'Score 1.75, made of words 1.25, session 0.50'
    """
    return f"Score {sum(why.values()):.2f}, made of " + ", ".join(f"{name} {x:.2f}" for name, x in parts(why))


def event_of(event: Event) -> str:
    """What was done to an item."""
    said = _OPS.get(event.op, event.op)
    by = event.detail.get("by")
    if event.op == "close" and by:
        return f"{said}, by {', '.join(f'#{id_}' for id_ in by)}"
    return said


def short(text: str, most: int = _LONG) -> str:
    """A text as far as a list shows it.

    >>> short("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def trust_of(item: Item) -> str:
    """How far an item may be believed."""
    return {UNTRUSTED: "untrusted", ORDINARY: "ordinary", OWNER: "owner"}.get(item.trust, str(item.trust))


def gone(item: Item) -> str:
    """How a forgotten item is away."""
    return f"{'in quarantine since' if item.held else 'forgotten'} {moment_of(item.gone)}"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> count(1, "item"), count(2000, "item"), count(2, "memory", "memories")
    ('1 item', '2,000 items', '2 memories')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: float) -> str:
    """Bytes in words."""
    return sizes.show(number)


def url(path: str, **params: Any) -> str:
    """A page of the viewer, with what it should show; what is empty is left out.

    >>> url("/", q="a b", scope="", k=5)
    '/?q=a+b&k=5'
    """
    given = {name: value for name, value in params.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path

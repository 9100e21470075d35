"""Time comes in through here: seconds since 1970 in UTC, or anything that `moment` can read."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]
When = float | int | str | datetime

system: Clock = time.time

_PARTIAL = re.compile(r"^\d{4}(-\d{2})?$")
_FIRST, _LAST = -62135596800, 253402300799
_SPOKEN = (
    "%I:%M %p on %d %B, %Y",  # 1:56 pm on 8 May, 2023
    "%d %B %Y",
    "%d %B, %Y",
    "%B %d, %Y",
    "%Y/%m/%d (%a) %H:%M",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
)


class FixedClock:
    """A clock for tests and replays: it moves only when told to.

    >>> clock = FixedClock(10.0)
    >>> clock.tick(5.0); clock()
    15.0
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float = 1.0) -> None:
        """Move forward by `seconds`."""
        self.now += seconds


def moment(when: When, *, name: str = "at") -> float:
    """Read a time: seconds since 1970, a datetime, or a date in ISO 8601 or plain English. Naive means UTC.

    >>> moment("2023-05-03") == moment("3 May 2023") == moment(1683072000)
    True
    """
    if isinstance(when, bool):
        raise TypeError(f"{name}={when!r} is a bool; give seconds, a datetime or an ISO date such as '2023-05-03'")
    if isinstance(when, int | float):
        if not math.isfinite(when):
            raise ValueError(f"{name}={when!r} is not a time; give finite seconds since 1970")
        if not _FIRST <= when <= _LAST:
            raise ValueError(
                f"{name}={when!r} is outside the years 1 to 9999; give seconds since 1970, not milliseconds"
            )
        return float(when)
    if isinstance(when, str):
        when = _parse(when.strip(), name)
    if not isinstance(when, datetime):
        raise TypeError(
            f"{name} is a {type(when).__name__}; give seconds, a datetime or an ISO date such as '2023-05-03'"
        )
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _parse(text: str, name: str) -> datetime:
    if _PARTIAL.match(text):
        text += "-01-01" if len(text) == 4 else "-01"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    for form in _SPOKEN:
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007 - `moment` sets UTC
        except ValueError:
            continue
    raise ValueError(f"{name}={text!r} is not a date; give ISO 8601 such as '2023-05-03' or '2023-05-03T14:00'")


def iso(seconds: float) -> str:
    """Print a time as ISO 8601 in UTC, without fractions when there are none.

    >>> iso(1683072000.0)
    '2023-05-03T00:00:00+00:00'
    """
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat()

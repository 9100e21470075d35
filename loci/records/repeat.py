"""Calls that may be repeated: a key under which the first call's ids are kept for a week.

A client that lost the answer sends the same call again and adds nothing twice. The key is kept in the transaction of
the call, so it is there exactly when the items are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from loci.records.database import Database

WINDOW_S = 7 * 86400.0
_LONGEST = 500


def check(key: str) -> None:
    """Raise where a key is none: text of 1 to 500 characters."""
    if not isinstance(key, str):
        raise TypeError(f"once is a {type(key).__name__}; give a key of your own as text")
    if not 1 <= len(key) <= _LONGEST:
        raise ValueError(f"once has {len(key)} characters; give a key of 1 to {_LONGEST}")


def told(db: Database, scope: int, key: str) -> list[int] | None:
    """The ids of the first call under a key, None when there was none."""
    row = db.execute("SELECT ids FROM request WHERE scope = ? AND key = ?", (scope, key)).fetchone()
    return None if row is None else [int(id_) for id_ in json.loads(row[0])]


def keep(db: Database, scope: int, key: str, ids: Sequence[int], now: float) -> None:
    """Remember what a call gave; keys older than a week go."""
    db.execute("DELETE FROM request WHERE time < ?", (now - WINDOW_S,))
    db.execute(
        "INSERT INTO request (scope, key, time, ids) VALUES (?, ?, ?, ?)", (scope, key, now, json.dumps(list(ids)))
    )

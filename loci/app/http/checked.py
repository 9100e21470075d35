"""An export from a stranger, checked before it is imported: it may speak only of its own items, links and scopes.

Ids of an import are moved behind those of the store, and may then only fall into the range reserved for it. So every
id must lie in 1..last of its own file; zero or less would name items that are there already, perhaps another tenant's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loci.records.scope import ROOT
from loci.records.scope import scope as checked


def check(source: Path) -> None:
    """Refuse (ValueError, with the line) an export that names what is not its own."""
    items = links = named_items = named_links = 0
    with source.open("rb") as file:
        for number, text in enumerate(file, start=1):
            try:
                row = json.loads(text)
                own, others, link, other_links = _ids(row)
                _scopes(row)
                if any(
                    isinstance(id_, bool) or not isinstance(id_, int) or id_ < 1
                    for id_ in (*own, *others, *link, *other_links)
                ):
                    raise ValueError("an id is below 1")
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise ValueError(
                    f"line {number} is not a line of an export ({error}); give the file as export wrote it"
                ) from None
            items, links = max(items, *own, 0), max(links, *link, 0)
            named_items, named_links = max(named_items, *others, 0), max(named_links, *other_links, 0)
    if named_items > items or named_links > links:
        raise ValueError("the export names items or links that it does not hold; give the file as export wrote it")


def _ids(row: Mapping[str, Any]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Ids of a line: items it holds and names, links it holds and names."""
    match row:
        case {"item": item}:
            return [item["id"]], [], [], []
        case {"past": past}:
            return [], [past["item"]], [], []
        case {"derived": [item, source]}:
            return [], [item, source], [], []
        case {"link": link}:
            return [], [link["src"], link["dst"]], [link["id"]], []
        case {"unlinked": [link, *_]}:
            return [], [], [], [link]
        case {"vouched": [link, source]}:
            return [], [source], [], [link]
        case {"state": [_, name]}:
            return [], [int(name.partition(":")[2])] if name.startswith("item:") else [], [], []
        case {"asked": _}:
            return [], list(row["hits"]), [], []
        case {"event": _}:
            return [], [id_ for id_ in (row["first"], row["last"]) if id_ is not None], [], []
        case {"scope": _} | {"loci": _}:
            return [], [], [], []
    raise ValueError(f"it has keys {sorted(row)}")


def _scopes(row: Mapping[str, Any]) -> None:
    if "scope" in row and row["scope"] != ROOT and checked(row["scope"]) != row["scope"]:
        raise ValueError(f"scope {row['scope']!r} is not in its written form")

"""The contract of a scheme: a paper as four functions from a read-only view to proposed changes.

A scheme never writes. It reads a `View` (a snapshot of one scope at one version) and returns `Changes`; only the
store applies them, in one short transaction, with an audit event each. So no scheme can lose data, leak a scope
or forget provenance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from loci.records.item import Hit, Hits, Item, Link

if TYPE_CHECKING:
    from loci.records.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked. `vector` is there when the memory has an embedder; `now` is the time that recency counts from."""

    text: str
    k: int = 5
    now: float = 0.0
    kinds: tuple[str, ...] | None = None  # None: every kind


@dataclass(frozen=True, slots=True)
class New:
    """A derived item that a scheme proposes; `alias` is how links of the same Changes name it (negative)."""

    alias: int
    item: Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a scheme wants changed. Ids are items of the view's scope; negative ids are aliases of `put`.

    put: derived items (each with `sources`); vouch: derived item id -> more sources of it; link: relations; close: item id -> time at which it stops to hold;
    forget: ids to tombstone (verbatim episodes only from `consolidate`); value: id -> (value, uses);
    state: name -> bytes (safetensors or JSON), None deletes.
    """

    put: Sequence[New] = ()
    vouch: Mapping[int, Sequence[int]] = field(default_factory=dict)
    link: Sequence[Link] = ()
    close: Mapping[int, float] = field(default_factory=dict)
    forget: Sequence[int] = ()
    value: Mapping[int, tuple[float, int]] = field(default_factory=dict)
    state: Mapping[str, bytes | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any((self.put, self.vouch, self.link, self.close, self.forget, self.value, self.state))


@runtime_checkable
class Scheme(Protocol):
    """How a memory writes, recalls, learns and sleeps. `local` is true when write() needs no network and is fast."""

    name: str
    local: bool

    def write(self, new: Sequence[Item], view: View) -> Changes:
        """Derive from items that were just committed: extract, link, close what they contradict."""
        ...

    def recall(self, query: Query, view: View) -> list[Hit]:
        """The k best live items of the view, best first, each with the parts of its score."""
        ...

    def learn(self, hits: Hits, reward: float, view: View) -> Changes:
        """Learn from feedback on hits of an earlier recall; reward in [-1, 1]."""
        ...

    def consolidate(self, view: View, budget: int | None) -> Changes:
        """Propose merges, abstractions and links while asleep; the memory gates and applies them."""
        ...


class Plain:
    """Nothing written, learned or consolidated: what a plain retriever does. Schemes inherit these three."""

    name: str = "plain"
    local: bool = True

    def write(self, new: Sequence[Item], view: View) -> Changes:
        """Derive nothing."""
        return Changes()

    def learn(self, hits: Hits, reward: float, view: View) -> Changes:
        """Learn nothing."""
        return Changes()

    def consolidate(self, view: View, budget: int | None) -> Changes:
        """Propose nothing."""
        return Changes()


def json_state(view: View, name: str) -> dict[str, Any]:
    """A scheme's saved state as JSON, {} when there is none."""
    import json

    saved = view.state(name)
    return json.loads(saved) if saved else {}

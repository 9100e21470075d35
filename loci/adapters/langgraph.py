"""A `BaseStore` of LangGraph over a `Memory`: put, get, delete and list as a key-value store, search as recall.

    graph = builder.compile(store=LociStore(Memory("trip.db"), scope="acme"))

A namespace is a scope below `scope`, and a key a scope below that (`("users", "ana"), "pet"` is `acme/users/ana/=pet`): so a
get costs the same beside a million keys, and the memory's own recall sees what the store holds. A put of a key that is there
supersedes it: `get` gives the new value, `as_of` still knows the old one. A delete forgets every version of the key, and
nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    get_text_at_path,
    validate_op_namespace,
)
from langgraph.store.base import Item as StoreItem

from loci.adapters.paths import names, path, segment
from loci.core.errors import UnknownItem
from loci.records import Item, Memory

_KEY = "langgraph"
_TRIES = 5
_Namespace = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A key's present value, and the item that holds it."""

    namespace: _Namespace
    item: Item

    @property
    def key(self) -> str:
        """As it was given."""
        return str(self.item.meta[_KEY]["key"])

    @property
    def value(self) -> dict[str, Any]:
        """As it was put."""
        return dict(self.item.meta[_KEY]["value"])

    @property
    def created(self) -> float:
        """When the key was first put."""
        return float(self.item.meta[_KEY].get("created") or self.item.known or 0.0)

    def fields(self) -> dict[str, Any]:
        """What both of LangGraph's item classes are made of."""
        return {
            "namespace": self.namespace, "key": self.key, "value": self.value,
            "created_at": datetime.fromtimestamp(self.created, UTC),
            "updated_at": datetime.fromtimestamp(self.item.known or self.created, UTC),
        }  # fmt: skip


class LociStore(BaseStore):
    """LangGraph's long-term memory in one scope of a `Memory`; times to live are not supported and say so.

    fields: which fields of a value are searched when a put names none (LangGraph's paths, such as "text" or "notes[*].body");
    by default all of them.
    """

    supports_ttl = False
    __slots__ = ("fields", "memory", "scope")

    def __init__(self, memory: Memory, *, scope: str | None = None, fields: Sequence[str] | None = None) -> None:
        self.memory = memory
        self.scope = path(memory.scope if scope is None else scope, ())
        self.fields = None if fields is None else list(fields)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations: what is read is read before what is written; of two puts of one key the last counts."""
        given = list(ops)
        for op in given:
            self._check(op)
        results: list[Result] = [self._read(op) for op in given]
        puts = {(op.namespace, op.key): op for op in given if isinstance(op, PutOp)}
        for op in puts.values():
            self._write(op)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`, in a thread."""
        return await asyncio.to_thread(self.batch, list(ops))

    def _check(self, op: Op) -> None:
        validate_op_namespace(op)
        if isinstance(op, PutOp):
            if not op.namespace:
                raise InvalidNamespaceError(
                    "the namespace of a put is empty; give at least one label, such as ('users', 'ana')"
                )
            if op.ttl is not None:
                raise NotImplementedError(
                    f"ttl={op.ttl} was given, and a memory does not forget by the clock; leave it out, and forget with delete "
                    "or with memory.consolidate(budget=...)"
                )

    # --- read -----------------------------------------------------------------------------------------------------

    def _read(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            found = self._find(op.namespace, op.key)
            return StoreItem(**found[-1].fields()) if found else None
        if isinstance(op, SearchOp):
            return self._search(op)
        if isinstance(op, ListNamespacesOp):
            return self._namespaces(op)
        if isinstance(op, PutOp):
            return None
        raise TypeError(
            f"{type(op).__name__} is not an operation of a store; give GetOp, PutOp, SearchOp or ListNamespacesOp"
        )

    def _entries(self, prefix: _Namespace) -> list[_Entry]:
        """The present entries at or under a namespace; where two writers raced for a key, the later."""
        found: dict[tuple[_Namespace, str], _Entry] = {}
        for item in self.memory.items(scope=path(self.scope, prefix)):
            if _KEY in item.meta:
                entry = self._entry(item)
                found[entry.namespace, entry.key] = entry
        return list(found.values())

    def _find(self, namespace: _Namespace, key: str) -> list[_Entry]:
        """Every present item of a key, oldest first: one, unless two writers raced."""
        place = self._place(namespace, key)
        items = self.memory.items(scope=place)
        return [_Entry(namespace, item) for item in items if item.scope == place and _KEY in item.meta]

    def _place(self, namespace: _Namespace, key: str) -> str:
        """The scope of a key; no label begins with `=`, so none can be taken for a key."""
        return f"{path(self.scope, namespace)}/={segment(key) if key else ''}"

    def _entry(self, item: Item) -> _Entry:
        return _Entry(names(self.scope, item.scope.rpartition("/")[0]), item)

    def _search(self, op: SearchOp) -> list[SearchItem]:
        if not op.query:
            newest = reversed(self._entries(op.namespace_prefix))
            entries: list[tuple[_Entry, float | None]] = [(entry, None) for entry in newest]
        else:
            entries = self._recalled(op, op.query)
        kept = [(entry, score) for entry, score in entries if matches(entry.value, op.filter or {})]
        return [SearchItem(**entry.fields(), score=score) for entry, score in kept[op.offset : op.offset + op.limit]]

    def _recalled(self, op: SearchOp, query: str) -> list[tuple[_Entry, float | None]]:
        """Entries that answer a query, best first; all of them where a filter will take some away."""
        place = path(self.scope, op.namespace_prefix)
        most = self.memory.count(scope=place) if op.filter else op.offset + op.limit
        hits = self.memory.recall(query, most, scope=place)
        mine = [hit for hit in hits if _KEY in hit.item.meta]
        if len(mine) < len(hits) == most:  # others speak in this scope too: look further for ours
            hits = self.memory.recall(query, self.memory.count(scope=place), scope=place)
            mine = [hit for hit in hits if _KEY in hit.item.meta]
        return [(self._entry(hit.item), hit.score) for hit in mine]

    def _namespaces(self, op: ListNamespacesOp) -> list[_Namespace]:
        found = {entry.namespace for entry in self._entries(())}
        kept = [name for name in found if all(_fits(name, rule) for rule in op.match_conditions or ())]
        if op.max_depth is not None:
            kept = list({name[: op.max_depth] for name in kept})
        return sorted(kept)[op.offset : op.offset + op.limit]

    # --- write ----------------------------------------------------------------------------------------------------

    def _write(self, op: PutOp) -> None:
        """Put or delete a key; look again when another writer was faster."""
        for turn in range(_TRIES):
            there = self._find(op.namespace, op.key)
            try:
                if op.value is None:
                    self._delete(self._place(op.namespace, op.key), there)
                else:
                    self._put(op, op.value, there)
                return
            except UnknownItem:
                if turn == _TRIES - 1:
                    raise

    def _put(self, op: PutOp, value: Mapping[str, Any], there: list[_Entry]) -> None:
        kept: dict[str, Any] = {"key": op.key, "value": dict(value)}
        if there:
            kept |= {"created": there[-1].created, "before": there[-1].item.id}
        place = self._place(op.namespace, op.key)
        item = Item(text=self._text(op, value), kind="note", scope=place, pinned=True, meta={_KEY: kept})
        self.memory.add(item, scope=place, supersedes=[entry.item.id for entry in there])

    def _delete(self, place: str, there: list[_Entry]) -> None:
        """Forget a key with its earlier versions, which its items name one after the other."""
        ids = []
        for entry in there:
            item: Item | None = entry.item
            while item is not None:
                ids.append(item.id)
                item = self._before(item, place)
        if ids:
            self.memory.forget(list(dict.fromkeys(ids)), scope=place)

    def _before(self, item: Item, place: str) -> Item | None:
        before = item.meta[_KEY].get("before")
        try:
            return None if before is None else self.memory.get(int(before), scope=place)[0]
        except UnknownItem:
            return None  # it was forgotten already

    def _text(self, op: PutOp, value: Mapping[str, Any]) -> str:
        """What recall reads of a value: the fields that were named, else everything in it."""
        if op.index is False:
            return ""
        wanted = self.fields if op.index is None else op.index
        if wanted is None:
            return "\n".join(_lines(dict(value)))
        return "\n".join(text for field in wanted for text in get_text_at_path(dict(value), field))


def _lines(value: Any, at: tuple[str, ...] = ()) -> Iterable[str]:
    """The leaves of a value, each with the words of its path; no `path: ` in front, which would name a speaker."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _lines(part, (*at, str(key).replace("_", " ")))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _lines(part, at)
    elif value is not None:
        yield f"{value} ({' '.join(at)})"


def matches(value: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a value passes a filter: equality, nested fields, and $eq $ne $gt $gte $lt $lte.

    >>> matches({"age": 5, "tags": {"a": 1}}, {"age": {"$gte": 5}, "tags": {"a": 1}})
    True
    """
    return all(_passes(value.get(name), test) for name, test in wanted.items())


def _passes(value: Any, test: Any) -> bool:
    if isinstance(test, Mapping):
        if any(str(name).startswith("$") for name in test):
            return all(_compare(value, operator, other) for operator, other in test.items())
        return isinstance(value, Mapping) and all(_passes(value.get(name), part) for name, part in test.items())
    if isinstance(test, list | tuple):
        return isinstance(value, list | tuple) and len(value) == len(test) and all(map(_passes, value, test))
    return bool(value == test)


def _compare(value: Any, operator: str, other: Any) -> bool:
    if operator in ("$eq", "$ne"):
        return bool(value == other) is (operator == "$eq")
    if operator not in ("$gt", "$gte", "$lt", "$lte"):
        raise ValueError(f"{operator!r} is not an operator of a filter; use $eq, $ne, $gt, $gte, $lt or $lte")
    try:
        left, right = float(value), float(other)
    except (TypeError, ValueError):
        return False
    return {"$gt": left > right, "$gte": left >= right, "$lt": left < right, "$lte": left <= right}[operator]


def _fits(name: _Namespace, rule: MatchCondition) -> bool:
    """Whether a namespace begins or ends with a path, in which * stands for any label."""
    if len(name) < len(rule.path):
        return False
    part = name[: len(rule.path)] if rule.match_type == "prefix" else name[len(name) - len(rule.path) :]
    return all(wanted in ("*", label) for label, wanted in zip(part, rule.path, strict=True))

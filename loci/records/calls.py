"""The verbs of `Memory` as calls over a network: one table that the server and both clients read.

A verb is a POST to `/v1/<verb>` whose body holds the arguments by name, as JSON; arguments left out are the verb's own
defaults. What a verb takes is read from its signature in `Memory`, so nothing is written down twice.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loci.core.clock import moment
from loci.records import plain
from loci.records.item import Hits, Ids, Item
from loci.records.memory import Memory
from loci.records.scope import DEFAULT

PREFIX = "/v1/"
_TIMES = ("at", "since", "until", "known")
_GIVEN_BY_STORE = frozenset({"id", "gone", "held", "version"})
NEW = tuple(field for field in dataclasses.fields(Item) if field.name not in _GIVEN_BY_STORE)


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: the right it needs, whether it may be repeated, and how its answer is read.

    key: the one key of the answer, "" where the answer is an object by itself. again: calling twice is calling once.
    whole: it is about the whole store, so only a token of "/" may use it. slow: it may take minutes.
    """

    name: str
    right: str
    key: str
    read: Callable[[Any], Any]
    again: bool = False
    whole: bool = False
    slow: bool = False

    @property
    def path(self) -> str:
        """Where the server answers it."""
        return PREFIX + self.name

    @property
    def signature(self) -> inspect.Signature:
        """How `Memory` declares it."""
        return inspect.signature(getattr(Memory, self.name))

    def write(self, result: Any) -> Any:
        """What the verb returned, as its answer in JSON values."""
        if isinstance(result, Hits):
            return plain.of_hits(result)
        if isinstance(result, Ids):
            return {"ids": list(result), "scope": result.scope}
        return {self.key: plain.of(result)} if self.key else plain.of(result)

    def answer(self, row: Any) -> Any:
        """An answer in JSON values, as what the verb returns."""
        return self.read(row[self.key] if self.key else row)


def _nothing(_: object) -> None:
    return None


VERBS: Mapping[str, Verb] = {verb.name: verb for verb in (
    Verb("add", "write", "", plain.ids, again=True),
    Verb("link", "write", "id", int),
    Verb("learn", "write", "done", _nothing),
    Verb("recall", "read", "", plain.hits, again=True),
    Verb("get", "read", "items", plain.each(plain.item), again=True),
    Verb("items", "read", "items", plain.each(plain.item), again=True),
    Verb("links", "read", "links", plain.each(plain.link), again=True),
    Verb("count", "read", "count", int, again=True),
    Verb("contradictions", "read", "proposals", plain.each(plain.proposal), again=True),
    Verb("history", "read", "events", plain.each(plain.event), again=True),
    Verb("diff", "read", "", plain.diff, again=True),
    Verb("jobs", "read", "jobs", plain.each(plain.job), again=True),
    Verb("forget", "forget", "", plain.ids),
    Verb("restore", "forget", "", plain.ids),
    Verb("quarantine", "forget", "", plain.ids),
    Verb("quarantined", "read", "items", plain.each(plain.item), again=True),
    Verb("release", "forget", "", plain.ids),
    Verb("undo", "forget", "", plain.undone),
    Verb("verify_forgotten", "forget", "", plain.receipt, again=True, slow=True),
    Verb("consolidate", "admin", "", plain.report, slow=True),
    Verb("work", "admin", "jobs", plain.each(plain.job), whole=True, slow=True),
    Verb("embed", "admin", "made", int, whole=True, slow=True),
    Verb("erase", "admin", "erased", int, whole=True, slow=True),
    Verb("flush", "admin", "done", _nothing, again=True, whole=True),
    Verb("wipe", "admin", "done", _nothing, whole=True, slow=True),
)}  # fmt: skip


def body(
    verb: Verb, signature: inspect.Signature, args: Sequence[Any], given: Mapping[str, Any], *, scope: str | None = None
) -> plain.Plain:
    """The arguments of a call by name, as JSON values; TypeError and ValueError as the verb itself raises them.

    scope: the client's own, for calls that name none.
    """
    bound = signature.bind(None, *args, **given).arguments
    values = {name: value for name, value in list(bound.items())[1:] if value is not signature.parameters[name].default}
    if verb.name == "learn":
        return _praise(values)
    found = values.get("ids")
    if isinstance(found, Hits):
        found = values["ids"] = found.ids
    if isinstance(found, Ids) and values.get("scope") is None:
        values["scope"] = found.scope
    elif scope is not None and "scope" in signature.parameters and values.get("scope") is None:
        values["scope"] = scope
    sent = {name: _argument(name, value, signature.parameters[name].annotation) for name, value in values.items()}
    if verb.name == "add":
        sent.setdefault("once", uuid.uuid4().hex)  # so that a call whose answer was lost can be repeated
    return sent


def _argument(name: str, value: Any, annotation: str) -> Any:
    """One argument as JSON, by what its annotation says of it."""
    if value is None:
        return None
    if "When" in annotation:
        return moment(value, name=name)
    if name == "what":
        return [new(one) for one in ([value] if isinstance(value, str | Item) else value)]
    if "Sequence[int]" in annotation:
        return _whole([value] if isinstance(value, int) else value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def _whole(ids: Iterable[Any]) -> list[int]:
    some = list(ids)
    if wrong := [one for one in some if isinstance(one, bool) or not isinstance(one, int)]:
        raise TypeError(f"ids has {wrong[0]!r}; give ids as ints, as add and recall return them")
    return some


def new(one: object) -> Any:
    """A text or item to be added: an item says only what differs from an item of which nothing is known."""
    if isinstance(one, str):
        return one
    if not isinstance(one, Item):
        raise TypeError(f"add was given a {type(one).__name__}; give text, an Item, or a list of them")
    row: dict[str, Any] = {"text": one.text}
    for field in NEW[1:]:
        value = getattr(one, field.name)
        if field.name in _TIMES and value is not None:
            row[field.name] = moment(value, name=field.name)
        elif field.name == "scope":
            row |= {} if value == DEFAULT else {"scope": value}
        elif value != field.default and value not in ({}, ()):
            row[field.name] = (
                dict(value) if isinstance(value, Mapping) else list(value) if field.name == "sources" else value
            )
    return row


def _praise(values: Mapping[str, Any]) -> plain.Plain:
    """What `learn` needs of hits: which, with which parts, as an answer to what."""
    hits, reward = values["hits"], values["reward"]
    if not isinstance(hits, Hits):
        raise TypeError(f"hits is a {type(hits).__name__}; give the Hits that recall returned, or hits.only(ids)")
    told = plain.of_hits(hits)
    del told["abstain"]
    return told | {
        "hits": [{"id": hit["item"]["id"], "score": hit["score"], "why": hit["why"]} for hit in told["hits"]],
        "reward": reward,
    }


def encode(value: Any, *, strict: bool = True) -> bytes:
    """A body in UTF-8; ValueError for what JSON or UTF-8 cannot hold (a question's lone surrogates become marks)."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "strict" if strict else "replace")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"this call cannot be sent ({error}); give text without lone surrogates and meta that is JSON"
        ) from error

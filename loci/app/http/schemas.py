"""Typed models of every request and answer. What a verb takes is read from its signature, what it gives from our dataclasses."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, create_model

from loci.records.calls import NEW, VERBS, Verb
from loci.records.consolidate import Report
from loci.records.contradict import Proposal
from loci.records.forget import Receipt
from loci.records.history import Diff, Event
from loci.records.item import Hit, Item, Link
from loci.records.jobs import Job
from loci.records.undo import Undone

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_LARGEST = 2**53 - 1  # what JSON readers everywhere keep exactly

Id = Annotated[int, Field(ge=0, le=_LARGEST, description="The id of an item.")]
Whole = Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]
Kind = Literal["episode", "fact", "entity", "case", "skill", "note"]
Trust = Literal["untrusted", "ordinary", "owner", 0, 1, 2]
Time = float | str  # seconds since 1970, or a date such as 2023-05-03


def _json(meta: dict[str, Any]) -> dict[str, Any]:
    json.dumps(meta, allow_nan=False)  # JSON as such has no nan, Python's reader lets it pass
    return meta


Meta = Annotated[dict[str, JsonValue], AfterValidator(_json)]
_TYPES: dict[str, Any] = {
    "str": str, "str | None": str | None, "bool": bool, "float": float, "float | None": float | None, "int": Whole,
    "int | str": Whole | str, "int | None": Whole | None, "When": Time, "When | None": Time | None, "int | str | None": Whole | str | None,
    "Sequence[int]": list[Id], "Sequence[int] | None": list[Id] | None, "int | Sequence[int]": Id | list[Id],
    "Sequence[str] | None": list[str] | None, "tuple[int, ...]": list[Id], "Mapping[str, Any]": Meta,
    "Mapping[str, Any] | None": Meta | None,
}  # fmt: skip
_NAMED: dict[str, Any] = {"id": Id, "src": Id, "dst": Id, "kind": Kind, "kinds": list[Kind] | None,
    "trust": Trust}  # fmt: skip
_WORDS = {
    "what": "A text, an item, or a list of them; all are kept or none.",
    "scope": "Whose memory: a slash path at or under the token's scope, which is the default.",
    "at": "When it happened: seconds since 1970, or a date.", "since": "Holds from; for undo, written then or later.", "until": "Holds until, exclusive.",
    "known": "When it became known; now unless stated.", "session": "Items of one session are neighbours.",
    "principal": "Who said it: user:ana, web:example.org.",
    "trust": "untrusted, ordinary or owner (0, 1, 2); more than ordinary needs the right to admin.",
    "source": "Where it came from, in your words.", "pinned": "Never dropped by a budget.", "meta": "Any JSON object.",
    "kind": "episode, fact, entity, case, skill or note.", "supersedes": "Ids of items whose validity this ends.",
    "once": "A key: the same call again within a week adds nothing and gives the first ids.",
    "query": "The question.", "k": "How many hits at most.", "as_of": "Read the past as it was then.",
    "max_tokens": "Only what fits so many tokens of a prompt.", "kinds": "Only items of these kinds.",
    "ids": "Ids of items.", "erase": "For good, without a window to restore.", "budget": "Bytes to fit, such as 64MB.",
    "waiting": "Only what has not ended.", "text": "A text to look for in the bytes of the store.",
    "before": "A time.", "after": "A later time; for embed, the id after which to begin.",
    "store": "The store's own name, as a proof that everything is meant.",
    "window": "Seconds: what was forgotten longer ago goes.", "limit": "How many at most.",
}  # fmt: skip


def _field(name: str, annotation: str, default: Any) -> Any:
    kind = _NAMED.get(name) or _TYPES[annotation]
    return (kind, Field(default, description=_WORDS.get(name)))


def _new_item() -> Any:
    """What an item may say when it is added: the fields of `Item` that the store does not give itself."""
    fields: dict[str, Any] = {"text": (str, ...), "scope": (str | None, Field(None, description=_WORDS["scope"]))}
    for field in NEW:
        time = field.name in ("at", "since", "until", "known")
        fields.setdefault(field.name, _field(field.name, "When | None" if time else str(field.type), None))
    return create_model(
        "NewItem", __config__=_STRICT, __doc__="An item to be added; only its text must be given.", **fields
    )


NewItem: Any = _new_item()
_TYPES["str | Item | Iterable[str | Item]"] = str | NewItem | list[str | NewItem]


class Praised(BaseModel):
    """One hit that was of use or harm: its item, and the parts of its score."""

    model_config = _STRICT
    id: Id
    score: float
    why: dict[str, float]


class LearnAsk(BaseModel):
    """Hits as recall gave them, and how useful they were, from -1 to 1."""

    model_config = _STRICT
    query: str
    hits: list[Praised]
    reward: float
    scope: str | None = Field(None, description=_WORDS["scope"])
    known: float = 0.0
    threshold: float = 0.5
    error: float = 1.0


class HitsAnswer(BaseModel):
    """Hits, best first, and how likely it is that the answer is in memory at all."""

    query: str
    scope: str
    known: float = Field(description="The probability that the answer is in memory.")
    threshold: float
    error: float = Field(description="The stated error of the decision to abstain or not.")
    abstain: bool
    hits: list[Hit]


class IdsAnswer(BaseModel):
    """Ids, and the scope they were read or written under."""

    ids: list[int]
    scope: str


class ErrorBody(BaseModel):
    """What went wrong: a kind from the tree of errors, and one sentence that says what to do."""

    model_config = ConfigDict(extra="allow")
    type: str
    message: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorBody


class StoreAnswer(BaseModel):
    """The store behind the server, and what this token may do there."""

    name: str
    version: str
    scheme: str
    scope: str = Field(description="The scope of calls that name none.")
    sees: str = Field(description="The scope at or under which everything lies that this token sees.")
    rights: list[str]
    nbytes: int | None = Field(description="Bytes of the whole store; null for a token that sees a part.")


class Alive(BaseModel):
    """That the server answers."""

    ok: bool


_ANSWERS: dict[str, Any] = {
    "recall": HitsAnswer, "add": IdsAnswer, "forget": IdsAnswer, "restore": IdsAnswer, "diff": Diff, "consolidate": Report,
    "verify_forgotten": Receipt, "quarantine": IdsAnswer, "release": IdsAnswer, "undo": Undone,
}  # fmt: skip
_KEYS: dict[str, Any] = {
    "items": list[Item], "links": list[Link], "events": list[Event], "jobs": list[Job], "proposals": list[Proposal],
    "count": int, "id": int, "made": int, "erased": int, "done": None,
}  # fmt: skip

_GIVES = {
    "items": "Items.", "links": "Links.", "events": "Lines of the audit, oldest first.", "jobs": "Slow work.",
    "proposals": "What may supersede what.", "count": "How many.", "id": "The id of the link.",
    "made": "How many vectors were made.", "erased": "How many items were erased.", "done": "That it is done.",
}  # fmt: skip


def asked(verb: Verb) -> type[BaseModel]:
    """The model of a verb's arguments."""
    if verb.name == "learn":
        return LearnAsk
    fields = {
        name: _field(name, str(one.annotation), ... if one.default is inspect.Parameter.empty else one.default)
        for name, one in verb.signature.parameters.items()
        if name != "self"
    }
    name = "".join(part.title() for part in verb.name.split("_")) + "Ask"
    return create_model(name, __config__=_STRICT, __doc__=f"What {verb.name} takes.", **fields)


def given(verb: Verb) -> Any:
    """The model of a verb's answer."""
    if not verb.key:
        return _ANSWERS[verb.name]
    fields: dict[str, Any] = {verb.key: (_KEYS[verb.key], ...)}
    return create_model(f"{verb.key.title()}Answer", __doc__=_GIVES[verb.key], **fields)


ASKED = {name: asked(verb) for name, verb in VERBS.items()}
_GIVEN = {verb.key: given(verb) for verb in VERBS.values() if verb.key}
GIVEN = {name: _GIVEN[verb.key] if verb.key else given(verb) for name, verb in VERBS.items()}
STATUSES = {
    400: "The body is not JSON.", 401: "No token, or one that is unknown, expired or revoked.",
    403: "The token's scope or rights do not allow it.", 404: "An id that is not live in the scope.",
    408: "The body came too slowly.", 409: "Items moved meanwhile; read again, then write.",
    413: "More bytes than one call may have.", 422: "An argument that cannot be.", 429: "Too many requests a second.",
    500: "The store or the server failed.", 502: "A model that the memory uses failed.",
    503: "Busy; call again after Retry-After.", 507: "No space, or over the budget.",
}  # fmt: skip
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": says} for status, says in STATUSES.items()
}

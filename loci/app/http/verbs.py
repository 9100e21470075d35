"""The verbs of `Memory` as paths: one endpoint made for each row of the table in `loci.records.calls`."""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from loci.app.http.auth import Access
from loci.app.http.desk import Here, Session
from loci.app.http.gate import Rule
from loci.app.http.limits import Limits
from loci.app.http.schemas import ASKED, ERRORS, GIVEN, LearnAsk
from loci.records import Hit, Hits, Item, plain, trusts
from loci.records.calls import VERBS, Verb
from loci.records.item import ORDINARY
from loci.records.undo import Undone

JSON = "application/json"
_KEY = 255  # characters of an idempotency key
_PIECE = 500  # items of a long list that are made JSON at once


def routes() -> tuple[APIRouter, dict[str, Rule]]:
    """The paths of all verbs, and what the gate asks of them."""
    router = APIRouter(responses=ERRORS)
    for verb in VERBS.values():
        router.add_api_route(
            verb.path, _endpoint(verb), methods=["POST"], operation_id=verb.name, tags=[verb.right],
            response_model=GIVEN[verb.name], summary=_words(verb)[0], description=_words(verb)[1],
        )  # fmt: skip
    return router, {verb.path: Rule(verb.right, whole=verb.whole) for verb in VERBS.values()}


def _words(verb: Verb) -> tuple[str, str]:
    from loci.records import Memory

    first, _, rest = inspect.cleandoc(getattr(Memory, verb.name).__doc__ or "").partition("\n")
    whole = ", of a token whose scope is '/'" * verb.whole
    return first, f"{rest.strip()}\n\nNeeds the right to **{verb.right}**{whole}.".strip()


def _endpoint(verb: Verb) -> Callable[..., Response]:
    model = ASKED[verb.name]
    if verb.name == "add":

        def add(asked: model, here: Here, idempotency_key: Annotated[str | None, Header()] = None) -> Response:  # type: ignore[valid-type]
            return _run(verb, here, _arguments(asked) | _key(asked, idempotency_key))

        return add

    def call(asked: model, here: Here) -> Response:  # type: ignore[valid-type]
        return _run(verb, here, _praised(asked, here) if isinstance(asked, LearnAsk) else _arguments(asked))

    return call


def _run(verb: Verb, here: Session, given: dict[str, Any]) -> Response:
    """Run one verb inside what the token sees, within the limits."""
    desk, access = here.desk, here.access
    _small(given, desk.limits)
    if "scope" in verb.signature.parameters:
        given["scope"] = access.at(given.get("scope"))
    if verb.name == "add":
        trusted(given, access)
    if verb.name == "verify_forgotten":
        desk.may_verify(access, given["id"], given.get("text"))
    result = getattr(desk.memory, verb.name)(**given)
    if given.get("erase"):
        desk.note_erased(result.forgotten if isinstance(result, Undone) else result, given["scope"])
    desk.metrics.told(verb.name, result)
    if isinstance(result, list) and len(result) > _PIECE and verb.key:
        return StreamingResponse(_pieces(verb.key, result), media_type=JSON)
    return Response(plain.dumps(verb.write(result)), media_type=JSON)


def _arguments(asked: Any) -> dict[str, Any]:
    """What was given, as `Memory` takes it."""
    given = {name: getattr(asked, name) for name in asked.model_fields_set}
    if "what" in given:
        what = given["what"] if isinstance(given["what"], list) else [given["what"]]
        given["what"] = [new(one) for one in what]
    return given


def new(one: str | BaseModel) -> str | Item:
    """A text or item to be added; an item says only what was given."""
    if isinstance(one, str):
        return one
    row = {name: getattr(one, name) for name in one.model_fields_set if getattr(one, name) is not None}
    return Item(**{**row, "sources": tuple(row.get("sources", ()))})


def _key(asked: Any, header: str | None) -> dict[str, str]:
    """The idempotency key: as an argument or as the standard's header."""
    if header is not None and asked.once is not None and header != asked.once:
        raise ValueError("once and the header Idempotency-Key differ; give one of them")
    key = asked.once if header is None else header
    if key is not None and not 0 < len(key) <= _KEY:
        raise ValueError(f"once has {len(key)} characters; give a key of 1 to {_KEY}")
    return {} if key is None else {"once": key}


def _praised(asked: LearnAsk, here: Session) -> dict[str, Any]:
    """Hits again, their items as the store holds them: what a caller says of an item's text is not believed."""
    _small({"ids": asked.hits}, here.desk.limits)
    scope, memory = here.access.at(asked.scope), here.desk.memory
    with memory.reading() as db:
        found = memory.view(db, scope).get([hit.id for hit in asked.hits])
    hits = Hits(
        (Hit(found[hit.id], hit.score, hit.why) for hit in asked.hits if hit.id in found),
        query=asked.query, scope=scope, known=asked.known, threshold=asked.threshold, error=asked.error,
    )  # fmt: skip
    return {"hits": hits, "reward": asked.reward}


def trusted(given: dict[str, Any], access: Access) -> None:
    """Only an admin may say that something is to be trusted more than what anyone says."""
    claims = [given.get("trust"), *(getattr(one, "trust", ORDINARY) for one in given["what"])]
    if any(claim is not None and trusts.level(claim) > ORDINARY for claim in claims):
        access.need("admin")


def _small(given: dict[str, Any], limits: Limits) -> None:
    for name in ("what", "ids", "supersedes"):
        held = given.get(name)
        if isinstance(held, list) and len(held) > limits.items:
            raise ValueError(
                f"{name} has {len(held)} entries; give at most {limits.items} in one call, or use /v1/import"
            )
    if isinstance(given.get("k"), int) and given["k"] > limits.k:
        raise ValueError(f"k={given['k']} is over {limits.k}; ask for fewer hits")


def _pieces(key: str, rows: list[Any]) -> Iterator[bytes]:
    """A long list as one JSON object, made piece by piece."""
    yield b'{"' + key.encode() + b'":['
    for start in range(0, len(rows), _PIECE):
        some = plain.dumps(plain.of(rows[start : start + _PIECE]))[1:-1]
        yield (b"," if start else b"") + some
    yield b"]}"

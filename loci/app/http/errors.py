"""Errors as answers: one JSON body for all of them, and a status for every leaf of the tree in `loci.core.errors`."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from loci.core import errors
from loci.records import plain

_log = logging.getLogger("loci.http")
_RETRY_S = 1
_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.UnknownItem, 404),
    (errors.ConflictError, 409),
    (errors.BudgetExceeded, 507),
    (errors.StorageFull, 507),
    (errors.Busy, 503),
    (errors.ClosedError, 503),
    (errors.ReadOnly, 403),
    (errors.Denied, 403),
    (errors.LLMError, 502),
    (errors.LociError, 500),  # NotAStore, MissingExtra and whatever else cannot be helped by the caller
    (RecursionError, 422),  # JSON nested deeper than can be kept
    (OverflowError, 422),
    (ValueError, 422),
    (TypeError, 422),
)


class Refused(Exception):
    """A request that is answered without asking the memory."""

    def __init__(self, status: int, kind: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, headers or {}


def answer(status: int, kind: str, message: str, *, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """The one body of all errors."""
    content = plain.dumps({"error": {"type": kind, "message": message, **more}})
    return Response(content, status, headers, media_type="application/json")


def answered(error: BaseException) -> Response:
    """Any error as an answer. What we did not foresee goes to the log with its trace, and to nobody else."""
    if isinstance(error, Refused):
        return answer(error.status, error.kind, str(error), headers=error.headers)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status == 500 and not isinstance(error, errors.LociError):
        _log.error("a request failed", exc_info=error)
        return answer(500, "InternalError", "the server failed; its log says why, call again or tell who runs it")
    if status == 500:
        _log.error("%s: %s", type(error).__name__, error)
    kind = "ValueError" if isinstance(error, ValueError | OverflowError | RecursionError) else type(error).__name__
    text = "the body is nested too deeply; give a flatter meta" if isinstance(error, RecursionError) else str(error)
    more = {"needed": error.needed, "limit": error.limit} if isinstance(error, errors.BudgetExceeded) else {}
    headers = {"retry-after": str(_RETRY_S)} if status == 503 else None
    return answer(status, kind, text, headers=headers, **more)


def install(app: FastAPI) -> None:
    """Let the app answer every error so."""

    async def ours(request: Request, error: Exception) -> Response:
        return answered(error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _invalid(error)

    async def web(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "ValueError")
        said = {
            404: "there is no such path; see /docs for those there are",
            405: f"{request.method} is not how this path is asked; see /docs",
            400: "the body is not JSON in UTF-8; give one JSON object",
        }.get(error.status_code, str(error.detail))
        return answer(error.status_code, kind, said, headers=dict(error.headers or {}))

    for kind in (errors.LociError, ValueError, TypeError, Refused, RecursionError, OverflowError):
        app.add_exception_handler(kind, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, web)


def _invalid(error: RequestValidationError) -> Response:
    """What does not fit a model: where, and what was expected. What was given is not sent back."""
    found = [
        {
            "at": ".".join(str(part) for part in one["loc"][1:]) or "body",
            "says": str(one["msg"]),
            "kind": str(one["type"]),
        }
        for one in error.errors()[:10]
    ]
    if found[0]["kind"] == "json_invalid":
        return answer(400, "ValueError", "the body is not JSON; give one JSON object")
    wrong_type = all(one["kind"].endswith("_type") for one in found)
    said = "; ".join(f"{one['at']}: {one['says']}" for one in found)
    return answer(
        422, "TypeError" if wrong_type else "ValueError", f"{said}; see /docs for what this path takes", details=found
    )

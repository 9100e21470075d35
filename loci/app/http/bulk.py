"""Import and export as streams of JSON lines: with progress, resumable, in memory never more than a batch."""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TextIO, cast

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from loci.app.http import checked, stream
from loci.app.http.desk import Here, Session
from loci.app.http.gate import Rule
from loci.app.http.schemas import ERRORS, NewItem
from loci.app.http.verbs import new, trusted
from loci.core.errors import StorageFull
from loci.records import exchange
from loci.records.scope import ROOT

BATCH = 500  # lines that are added by one call
RULES = {
    "/v1/export": Rule("read", stream=True),
    "/v1/import": Rule("write", stream=True),
}
_LINES: dict[str, Any] = {"content": {stream.LINES: {"schema": {"type": "string"}}}}
_OPENED = b'{"loci":'

router = APIRouter(responses=ERRORS)


@router.get(
    "/v1/export", operation_id="export", tags=["read"], response_class=Response,
    responses={200: _LINES | {"description": "One JSON object a line, as docs/schema.md describes."}},
)  # fmt: skip
async def export(here: Here, scope: str | None = None) -> Response:
    """Everything at or under a scope as JSON lines, from one snapshot. The first line says how many items follow."""
    path = here.access.at(here.access.scope if scope is None else scope)

    def _work(put: stream.Put) -> None:
        outlet = stream.Outlet(put)
        exchange.export(here.desk.memory, cast("TextIO", outlet), scope=path)
        outlet.flush()

    return StreamingResponse(stream.spoken(here.desk, _work), media_type=stream.LINES)


@router.post(
    "/v1/import", operation_id="import", tags=["write"], response_class=Response,
    responses={200: _LINES | {"description": "Progress, one JSON object a line; the last has `done` or `error`."}},
    openapi_extra={"requestBody": {"required": True} | _LINES},
)  # fmt: skip
async def import_(request: Request, here: Here, scope: str | None = None) -> Response:
    """Add a stream of JSON lines: items such as {"text": "...", "at": "2023-05-03"}, or an export of loci.

    Each batch of items is on the disk before the next is read. Send the same lines again after a break: what was kept is
    not added twice (items: within a week). An export is checked whole before the first line is written; since it brings its
    own history, it needs the right to **admin**.
    """
    path = here.access.at(scope)
    lines = stream.heard(request, here.desk.limits)
    first = await anext(lines, b"")
    if first.startswith(_OPENED):
        here.access.need("admin")
        said = _exported(here, here.access.scope if scope is None else path, first, lines)
    else:
        said = _plain(here, path, first, lines)
    return stream.Lines(said, media_type=stream.LINES)


# --- items ----------------------------------------------------------------------------------------------------------


async def _plain(here: Session, path: str, first: bytes, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Add items batch by batch. The key of a batch is the digest of all lines so far, so a repeated import adds nothing."""
    digest, pace, number, added = hashlib.sha256(path.encode()), stream.Pace(), 0, 0
    batch: list[tuple[int, bytes]] = []
    try:
        async for one in _all(first, lines):
            number += 1
            if one.strip():
                batch.append((number, one))
                digest.update(one + b"\n")
            if len(batch) == BATCH:
                added += await run_in_threadpool(_add, here, path, batch, digest.hexdigest())
                batch = []
                if pace.due:
                    yield stream.line(lines=number, items=added)
        if batch:
            added += await run_in_threadpool(_add, here, path, batch, digest.hexdigest())
    except Exception as error:  # noqa: BLE001 - said as the last line
        yield stream.failed(error)
        return
    yield stream.line(done=True, lines=number, items=added)


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for one in rest:
        yield one


def _add(here: Session, path: str, batch: list[tuple[int, bytes]], digest: str) -> int:
    what = [_item(number, text) for number, text in batch]
    trusted({"what": what}, here.access)
    ids = here.desk.memory.add(what, scope=path, once=f"import:{digest}")
    here.desk.metrics.told("add", ids)
    return len(ids)


def _item(number: int, text: bytes) -> Any:
    try:
        return new(NewItem.model_validate(json.loads(text)))
    except ValidationError as error:
        found = error.errors()[0]
        said = f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"
    except (ValueError, RecursionError) as error:
        said = f"not JSON, {type(error).__name__}"
    raise ValueError(f'line {number} is no item ({said}); give {{"text": "..."}}, the lines before it are kept')


# --- exports of loci ------------------------------------------------------------------------------------------------


async def _exported(here: Session, path: str, first: bytes, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Spool an export to the disk, check it, load it; a killed load goes on when the same export is sent again."""
    desk, pace, size = here.desk, stream.Pace(), 0
    with tempfile.TemporaryDirectory(prefix="loci-import-", dir=_folder(desk.memory.path)) as folder:
        source = Path(folder) / "export.jsonl"
        try:
            with source.open("wb") as file:
                async for one in _all(first, lines):
                    file.write(one + b"\n")
                    size += len(one) + 1
                    if pace.due:
                        yield stream.line(received=size)
            if here.access.scope != ROOT:
                await run_in_threadpool(checked.check, source)
        except Exception as error:  # noqa: BLE001 - said as the last line
            yield stream.failed(_full(error))
            return

        def _work(put: stream.Put) -> None:
            def _progress(done: int, total: int) -> None:
                if pace.due:
                    put(stream.line(lines=done, of=total))

            added = exchange.load(desk.memory, source, scope=None if path == ROOT else path, progress=_progress)
            desk.metrics.added.inc(added)
            put(stream.line(done=True, items=added))

        async for said in stream.spoken(desk, _work):
            yield said


def _folder(path: str) -> str | None:
    """Where to spool: beside the store, which has room for it, where the store is a file."""
    folder = Path(path).parent
    return None if "://" in path or not folder.is_dir() else str(folder)


def _full(error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("no space left to receive the import; nothing of it was kept, free some space")
    return error

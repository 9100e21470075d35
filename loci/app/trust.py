"""Commands that contain a source: quarantine and undo."""

from __future__ import annotations

from typing import Annotated

import typer

from loci.app.common import File, Json, Scope, opened, out

Principal = Annotated[str | None, typer.Option(help="Who said it, exactly.")]
Source = Annotated[str | None, typer.Option(help="Where it came from, exactly.")]


def quarantine(
    file: File,
    *,
    principal: Principal = None,
    source: Source = None,
    scope: Scope = "default",
    release: Annotated[list[int] | None, typer.Option(help="Bring held items back, by id.")] = None,
    as_json: Json = False,
) -> None:
    """Hold all that came from somewhere until it is released.

    Without a principal, source or release, it lists what is held.
    """
    if release and (principal is not None or source is not None):
        raise ValueError("--release was given with --principal or --source; choose one")
    with opened(file) as memory:
        if release:
            came = memory.release(release, scope=scope)
            out({"released": came}, f"released {' '.join(map(str, came))}", as_json=as_json)
            return
        if principal is None and source is None:
            held = memory.quarantined(scope=scope)
            out(
                {"held": held},
                "\n".join(f"#{item.id}  {item.text}" for item in held) or "nothing is held",
                as_json=as_json,
            )
            return
        went = memory.quarantine(principal=principal, source=source, scope=scope)
    out({"held": went}, f"held {' '.join(map(str, went))}" if went else "nothing came from there", as_json=as_json)
    if not went:
        raise typer.Exit(1)


def undo(
    file: File,
    *,
    principal: Principal = None,
    source: Source = None,
    since: Annotated[str | None, typer.Option(help="Only what was written then or later.")] = None,
    scope: Scope = "default",
    erase: Annotated[bool, typer.Option("--erase", help="For good, bytes and all.")] = False,
    as_json: Json = False,
) -> None:
    """Forget all that came from somewhere, and undo what it did.

    Items that it had superseded hold again.
    """
    with opened(file) as memory:
        done = memory.undo(principal=principal, source=source, since=since, scope=scope, erase=erase)
    out(done, str(done), as_json=as_json)
    if not (done.forgotten or done.reopened):
        raise typer.Exit(1)

"""Commands that read: recall, history, diff, stats."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from loci.app.common import EmbedderName, File, Json, SchemeName, Scope, opened, out
from loci.core import sizes
from loci.core.clock import iso
from loci.records import Hits


def recall(
    file: File,
    question: Annotated[str, typer.Argument(help="What is asked.", show_default=False)],
    *,
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 5,
    scope: Scope = "default",
    as_of: Annotated[str | None, typer.Option(help="Read the past as it was: 2023-06-01.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Only what fits a prompt.")] = None,
    why: Annotated[bool, typer.Option("--why", help="Show the parts of each score.")] = False,
    scheme: SchemeName = "loci",
    embedder: EmbedderName = "none",
    as_json: Json = False,
) -> None:
    """Recall what answers a question, best first. Exit code 1 when nothing is found."""
    with opened(file, scheme=scheme, embedder=embedder) as memory:
        hits = memory.recall(question, k, scope=scope, as_of=as_of, max_tokens=max_tokens)
    found = {
        "query": question, "scope": hits.scope, "known": hits.known, "abstain": hits.abstain, "error": hits.error,
        "hits": [{"id": hit.item.id, "text": hit.item.text, "score": hit.score, "why": dict(hit.why), "at": hit.item.at,
                  "scope": hit.item.scope, "source": hit.item.source} for hit in hits],
    }  # fmt: skip
    out(found, shown(hits, why=why), as_json=as_json)
    if not hits:
        raise typer.Exit(1)


def shown(hits: Hits, *, why: bool) -> str:
    """Hits as lines of text."""
    lines = []
    for hit in hits:
        when = f"  ({iso(hit.item.at)[:10]})" if hit.item.at is not None else ""
        lines.append(f"{hit.score:7.2f}  #{hit.item.id}  {hit.item.text}{when}")
        if why:
            parts = sorted(hit.why.items(), key=lambda part: -part[1])
            lines.append("         " + "  ".join(f"{name} {value:.2f}" for name, value in parts if abs(value) >= 0.005))
    says = "probably not in memory" if hits.abstain else "probably in memory"
    return "\n".join([*lines, f"known {hits.known:.2f}: the answer is {says}"])


def history(
    file: File,
    id: Annotated[int, typer.Argument(help="The id of an item.", show_default=False)],  # noqa: A002
    *,
    scope: Scope = "default",
    as_json: Json = False,
) -> None:
    """What became of an item, oldest first."""
    with opened(file) as memory:
        events = memory.history(id, scope=scope)
    out(events, "\n".join(f"{iso(event.time)}  {event.op}  {event.detail or ''}" for event in events), as_json=as_json)


def diff(
    file: File,
    before: Annotated[str, typer.Argument(help="A date.", show_default=False)],
    after: Annotated[str, typer.Argument(help="A later date.", show_default=False)],
    *,
    scope: Scope = "default",
    as_json: Json = False,
) -> None:
    """What became recallable between two dates, and what ceased to be."""
    with opened(file) as memory:
        found = memory.diff(before, after, scope=scope)
    out(found, str(found), as_json=as_json)


def stats(
    file: File, *, scope: Annotated[str, typer.Option(help="Of which scope; / is all.")] = "/", as_json: Json = False
) -> None:
    """How much is in a file, of what, in how many bytes."""
    with opened(file) as memory:
        items = memory.items(scope=scope)
        kinds: dict[str, int] = {}
        for item in items:
            kinds[item.kind] = kinds.get(item.kind, 0) + 1
        found: dict[str, Any] = {
            "file": memory.path, "store": memory.name, "items": len(items), "kinds": kinds,
            "scopes": len({item.scope for item in items}), "bytes": memory.nbytes,
            "jobs_waiting": len(memory.jobs(scope=scope, waiting=True)),
        }  # fmt: skip
    lines = [f"{key:13} {sizes.show(value) if key == 'bytes' else value}" for key, value in found.items()]
    out(found, "\n".join(lines), as_json=as_json)

"""Commands that keep house: forget, consolidate, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from loci.app.common import File, Ids, Json, Scope, opened, out
from loci.core import sizes


def forget(
    file: File,
    ids: Ids,
    *,
    scope: Scope = "default",
    erase: Annotated[bool, typer.Option("--erase", help="For good, bytes and all, and prove it.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="Bring forgotten items back.")] = False,
    as_json: Json = False,
) -> None:
    """Forget items and what was known only through them."""
    if erase and restore:
        raise ValueError("--erase and --restore were both given; choose one")
    with opened(file) as memory:
        if restore:
            came = memory.restore(ids, scope=scope)
            out({"restored": came}, f"restored {' '.join(map(str, came))}", as_json=as_json)
            return
        went = memory.forget(ids, scope=scope, erase=erase)
        receipts = [memory.verify_forgotten(id_) for id_ in went] if erase else []
    lines = [f"forgot {' '.join(map(str, went))}", *map(str, receipts)]
    out({"forgotten": went, "receipts": receipts}, "\n".join(lines), as_json=as_json)
    if not all(receipt.clean for receipt in receipts):
        raise typer.Exit(1)


def consolidate(
    file: File,
    *,
    budget: Annotated[str | None, typer.Option(help="Bytes to fit, such as 64MB.")] = None,
    scope: Scope = "default",
    as_json: Json = False,
) -> None:
    """Sleep: merge, and forget down to a budget; nothing that past questions needed."""
    with opened(file) as memory:
        report = memory.consolidate(budget=budget, scope=scope)
    sums = f"merged {report.merged}, forgot {report.forgotten}, replayed {report.questions} past questions"
    lines = [f"{sizes.show(report.bytes_before)} -> {sizes.show(report.bytes_after)}; {sums}"]
    lines += [
        f"  {step.what}: {step.items} items, recall {step.before:.3f} -> {step.after:.3f}, {'done' if step.committed else 'refused'}"
        for step in report.steps
    ]
    if not report.met:
        lines.append(
            f"the budget of {sizes.show(report.budget or 0)} was not met: what is left is pinned or was needed"
        )
    out(report, "\n".join(lines), as_json=as_json)
    if not report.met:
        raise typer.Exit(1)


def doctor(
    file: File,
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild caches; never touches a text.")] = False,
    as_json: Json = False,
) -> None:
    """Check a file: integrity, orphans, index drift. Exit code 1 when something is wrong."""
    from loci.records import doctor as clinic

    findings = clinic.repair(file) if repair else clinic.examine(file)
    left = clinic.examine(file) if repair else findings
    lines = [f"{'repaired' if repair and finding not in left else 'found'}: {finding}" for finding in findings]
    out({"findings": findings, "left": left}, "\n".join(lines) or "healthy", as_json=as_json)
    if left:
        raise typer.Exit(1)

"""A dry run of sleep: consolidate a copy and say what went. The memory itself is only read."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from loci.app.web.desk import Work
from loci.app.web.local import Local
from loci.app.web.reading import Reading
from loci.core import sizes
from loci.records import Item, Memory, exchange
from loci.records.consolidate import Report
from loci.records.scope import ROOT

MOST = 256_000_000  # bytes of a store that is still copied to try


@dataclass(frozen=True, slots=True)
class Trial:
    """What consolidation did to the copy: its report, and the items that are not recalled any more."""

    report: Report
    merged: list[Item]
    dropped: list[Item]
    copied: int  # bytes of the copy before
    held: int  # bytes of the memory itself


def trial(reading: Reading, scheme: str, budget: str, work: Work) -> Trial:
    """Export to a temporary folder, import there, consolidate there, compare; the folder goes when it is done.

    A copy is a file without vectors, so the budget is scaled by the bytes of the copy over those of the store.
    """
    limit = sizes.parse(budget)
    held = reading.held()
    if held is not None and held > MOST:
        raise ValueError(
            f"the store holds {sizes.show(held)}, a dry run here copies at most {sizes.show(MOST)}; copy the file and run "
            f"loci consolidate --budget {budget} on the copy"
        )
    with tempfile.TemporaryDirectory(prefix="loci-view-") as folder:
        lines = Path(folder) / "copy.jsonl"
        work.begin("Copying")
        with lines.open("w", encoding="utf-8") as out:
            reading.export(out, work.report)
        with Memory(Path(folder) / "copy.db", scheme=scheme, clock=reading.now) as copy:
            work.begin("Reading the copy")
            exchange.load(copy, lines, progress=work.report)
            copy.flush()
            return _consolidated(copy, limit, held, work)


def _consolidated(copy: Memory, limit: int, held: int | None, work: Work) -> Trial:
    before = {item.id: item for item in copy.items(scope=ROOT)}
    size = copy.nbytes
    held = size if held is None else held
    work.begin("Consolidating the copy")
    report = copy.consolidate(budget=int(limit * size / held), scope=ROOT)
    after = {item.id for item in copy.items(scope=ROOT)}
    merged = _forgotten(copy)
    went = [item for id_, item in before.items() if id_ not in after]
    return Trial(
        report,
        [item for item in went if item.id in merged],
        [item for item in went if item.id not in merged],
        size,
        held,
    )


def _forgotten(copy: Memory) -> set[int]:
    """Items that were merged lie in the copy as forgotten ones; what a budget dropped was erased."""
    line = Local(copy).line(ROOT, None, forgotten=True, count=10**9)
    return {row.item.id for row in line.rows}

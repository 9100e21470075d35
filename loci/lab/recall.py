"""`loci bench recall`: how much of what a question needs is among the first k hits, on real sets."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loci.lab.data import Book, books
from loci.records.memory import Memory

Progress = Callable[[int, int], None]


def run(
    path: Path,
    *,
    scheme: str = "loci",
    embedder: str = "none",
    k: Sequence[int] = (5, 10),
    store: str = ":memory:",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Keep every book of a folder in its own scope, ask its questions, score by the share of gold items in the top k."""
    with Memory(store, scheme=scheme, embedder=embedder, log_queries=False) as memory:
        return measure(memory, books(path), dataset=path.name, embedder=embedder, k=k, progress=progress)


def measure(
    memory: Memory,
    shelf: Sequence[Book],
    *,
    dataset: str,
    embedder: str,
    k: Sequence[int] = (5, 10),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score an open memory on books; the figures of `loci bench recall --json`."""
    total = sum(len(book.items) + len(book.questions) for book in shelf)
    done, spent, seconds = 0, 0.0, []
    found: list[tuple[str, dict[int, float], float, bool]] = []
    for book in shelf:
        start = time.perf_counter()
        memory.add(book.items, scope=f"{dataset}/{book.name}")
        spent += time.perf_counter() - start
        done += len(book.items)
        for question in book.questions:
            start = time.perf_counter()
            hits = memory.recall(question.text, k=max(k), scope=f"{dataset}/{book.name}")
            seconds.append(time.perf_counter() - start)
            names = [hit.item.source for hit in hits]
            shares = {n: len(question.gold.intersection(map(str, names[:n]))) / max(len(question.gold), 1) for n in k}
            found.append((question.category, shares, hits.known, question.answerable))
            done += 1
            if progress is not None and done % 20 == 0:
                progress(done, total)
    answerable = [row for row in found if row[3]]
    groups = sorted({row[0] for row in answerable})
    items = sum(len(book.items) for book in shelf)
    return {
        "dataset": dataset,
        "scheme": memory.scheme.name,
        "embedder": embedder,
        "questions": len(answerable),
        **{f"r@{n}": _mean([row[1][n] for row in answerable]) for n in k},
        "by_category": {
            group: {"questions": sum(row[0] == group for row in answerable)}
            | {f"r@{n}": _mean([row[1][n] for row in answerable if row[0] == group]) for n in k}
            for group in groups
        },
        "known_auroc": auroc([row[2] for row in found if row[3]], [row[2] for row in found if not row[3]]),
        "ingest_per_s": round(items / max(spent, 1e-9), 1),
        "recall_p50_ms": round(1000 * statistics.median(seconds), 3) if seconds else None,
        "recall_p95_ms": round(1000 * float(np.quantile(seconds, 0.95)), 3) if seconds else None,
        "bytes": memory.nbytes,
    }


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Chance that a positive scores above a negative, ties half; None when one side is empty.

    >>> auroc([0.9, 0.5], [0.5, 0.1])
    0.875
    """
    if not positive or not negative:
        return None
    low = np.sort(np.asarray(negative))
    below = np.searchsorted(low, positive, "left") + np.searchsorted(low, positive, "right")
    return round(float(below.mean() / 2 / len(low)), 4)


def _mean(values: Sequence[float]) -> float:
    return round(100 * float(np.mean(values)), 2) if values else 0.0

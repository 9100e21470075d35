"""loci side by side with other stores in one run: quality, ingest, recall times, open time, bytes.

    python benchmarks/records.py [--sizes 6k,100k,1m] [--cap 120] [--only NAME,...] [--tables-only]

Real conversations for quality (LoCoMo, where LOCI_DATA has it), synthetic items beyond: 20 words of a Zipf vocabulary of 50,000, sessions of
20 items, questions of 4 words of an item. A peer that is not installed, or that takes longer than the cap, is left out and named.
Writes benchmarks/results/records.json, docs/pictures/records.svg and the tables of docs/benchmarks.md.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
from peers import PEERS, Loci
from rich.console import Console

from loci import Item
from loci.lab import data
from loci.ports.embed_minilm import MiniLMEmbedder

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "records.json"
CONSOLE = Console(stderr=True)
SIZES = {"6k": 6_000, "100k": 100_000, "1m": 1_000_000}
VOCABULARY, WORDS, BATCH, QUESTIONS = 50_000, 20, 10_000, 50


class TooSlow(Exception):
    """The cap was reached."""


def synthetic(seed):
    """Batches of items for ever, and the questions of the first batch."""
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(VOCABULARY) + 10)
    words = np.array([f"w{n}x" for n in range(VOCABULARY)])
    while True:
        rows = words[rng.choice(VOCABULARY, size=(BATCH, WORDS), p=share / share.sum())]
        yield [Item(text=" ".join(row), session=str(n // 20)) for n, row in enumerate(rows)]


def questions(items):
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(item.text.split(), 4, replace=False)) for item in items[: QUESTIONS * 7 : 7]]


def timed(peer, asked, scope, k=5):
    seconds = []
    for question in asked:
        start = time.perf_counter()
        peer.search(scope, question, k)
        seconds.append(time.perf_counter() - start)
    return {
        "p50_ms": round(1000 * statistics.median(seconds), 2),
        "p95_ms": round(1000 * float(np.quantile(seconds, 0.95)), 2),
    }


def scale(kind, n, cap):
    """Ingest, open, recall and bytes at n items in one scope."""
    peer = kind()
    try:
        spent, asked, left = 0.0, None, n
        for batch in synthetic(0):
            some = batch[:left]
            asked = asked or questions(some)
            start = time.perf_counter()
            peer.add("x", some)
            spent += time.perf_counter() - start
            left -= len(some)
            if spent > cap:
                raise TooSlow(f"{n - left} items took {spent:.0f} s")
            if not left:
                break
        start = time.perf_counter()
        peer.search("x", asked[0], 5)
        built = time.perf_counter() - start
        if built > cap:
            raise TooSlow(f"the first search took {built:.0f} s")
        row = {"ingest_per_s": round(n / (spent + max(built - 0.05, 0) * (kind.name.startswith("LanceDB"))))}
        row |= timed(peer, asked, "x") | {"bytes_per_item": round(peer.nbytes / n)}
        if hasattr(peer, "reopen"):
            start = time.perf_counter()
            peer.reopen()
            row["open_ms"] = round(1000 * (time.perf_counter() - start), 1)
            peer.search("x", asked[0], 5)
            row["open_and_first_ms"] = round(1000 * (time.perf_counter() - start), 1)
        return row
    finally:
        peer.close()


def beside(counts, cap):
    """loci's recall in one scope of 6,000 items, beside other scopes of 30 items each."""
    rows = {}
    source = synthetic(2)
    mine = next(source)[:6000]
    for count in counts:
        peer = Loci()
        peer.add("mine", mine)
        pool = [item for _ in range(4) for item in next(source)]
        start = time.perf_counter()
        for n in range(count):
            at = 30 * n % (len(pool) - 30)
            peer.add(f"other/{n}", pool[at : at + 30])
            if time.perf_counter() - start > 3 * cap:
                break
        rows[count] = timed(peer, questions(mine), "mine")
        peer.close()
    return rows


def quality(kind):
    """R@5 and R@10 on LoCoMo, each conversation a scope."""
    peer, found = kind(MiniLMEmbedder()) if kind.dense else kind(), []
    try:
        for book in data.books(data.folder("locomo")):
            peer.add(book.name, book.items)
            names = {item.text: item.source for item in book.items}
            for question in book.questions:
                if question.answerable:
                    hits = [names.get(text) for text in peer.search(book.name, question.text, 10)]
                    found.append([len(question.gold & set(hits[:k])) / len(question.gold) for k in (5, 10)])
    finally:
        peer.close()
    five, ten = (round(100 * float(x), 1) for x in np.mean(found, axis=0))
    return {"r@5": five, "r@10": ten, "questions": len(found), "embedder": "minilm" if kind.dense else "none"}


def machine():
    import os
    import sqlite3

    return {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "numpy": np.__version__, "cores": os.cpu_count(),
            "note": "timings on a shared machine: read them as ratios"}  # fmt: skip


def measure(sizes, cap, only):
    held = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"peers": {}}
    held["machine"] = machine()
    for kind in PEERS:
        if only and kind.name not in only:
            continue
        row = held["peers"].setdefault(kind.name, {})
        row.pop("missing", None)
        row.pop("failed", None)
        try:
            if data.folder("locomo").is_dir():
                row["quality"] = quality(kind)
            for size in sizes:
                try:
                    row[size] = scale(kind, SIZES[size], cap)
                except TooSlow as slow:
                    row[size] = {"left_out": str(slow)}
                CONSOLE.print(kind.name, size, row[size])
        except ImportError as missing:
            row["missing"] = str(missing)
            CONSOLE.print(f"{kind.name}: left out ({missing}); pip install it to have it measured")
        except Exception as error:  # a peer that fails is reported, not hidden
            row["failed"] = f"{type(error).__name__}: {error}"[:200]
            CONSOLE.print(f"{kind.name}: {row['failed']}")
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(held, indent=1) + "\n", "utf-8")
    if not only or "scopes" in only:
        held["beside"] = beside((0, 100, 10_000) if "100k" in sizes else (0, 100), cap)
        RESULTS.write_text(json.dumps(held, indent=1) + "\n", "utf-8")


def tables():
    from recall import fill

    held = json.loads(RESULTS.read_text("utf-8"))
    lines = []
    for size in SIZES:
        rows = {name: row[size] for name, row in held["peers"].items() if size in row}
        count = f"{SIZES[size]:,}"
        if not rows:
            continue
        lines += [
            "",
            f"## {count} items",
            "",
            "| store | ingest / s | p50 ms | p95 ms | bytes / item | open ms | open and first recall ms |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            cells = [
                row.get(key, "")
                for key in ("ingest_per_s", "p50_ms", "p95_ms", "bytes_per_item", "open_ms", "open_and_first_ms")
            ]
            lines.append(
                f"| {name} | "
                + (row["left_out"] + " |" * 6 if "left_out" in row else " | ".join(map(str, cells)) + " |")
            )
    lines += ["", "## Quality on LoCoMo", "", "| store | embedder | R@5 | R@10 |", "|---|---|---|---|"]
    good = [(name, row["quality"]) for name, row in held["peers"].items() if "quality" in row]
    lines += [
        f"| {name} | {row.get('embedder', 'none')} | {row['r@5']} | {row['r@10']} |"
        for name, row in sorted(good, key=lambda pair: -pair[1]["r@5"])
    ]
    if held.get("beside"):
        lines += [
            "",
            "## One scope of 6,000 items beside others (loci)",
            "",
            "| other scopes | p50 ms | p95 ms |",
            "|---|---|---|",
        ]
        lines += [f"| {count} | {row['p50_ms']} | {row['p95_ms']} |" for count, row in held["beside"].items()]
    missing = {
        name: row.get("missing") or row.get("failed")
        for name, row in held["peers"].items()
        if row.get("missing") or row.get("failed")
    }
    lines += [f"\nLeft out: {name} ({why})" for name, why in missing.items()]
    note = held["machine"]
    lines += ["", f"Python {note['python']}, SQLite {note['sqlite']}, {note['cores']} cores; {note['note']}."]
    fill(ROOT / "docs" / "benchmarks.md", "records", lines)


def picture():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    held = json.loads(RESULTS.read_text("utf-8"))["peers"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, row in held.items():
        points = [(SIZES[size], row[size]) for size in SIZES if "p50_ms" in row.get(size, {})]
        if points:
            width = 2.5 if name == "loci" else 1.2
            left.plot([n for n, _ in points], [r["p50_ms"] for _, r in points], "o-", label=name, linewidth=width)
            right.plot(
                [n for n, _ in points], [r["ingest_per_s"] for _, r in points], "o-", label=name, linewidth=width
            )
    for axis, title in (
        (left, "recall, p50 in ms (lower is better)"),
        (right, "ingest, items per second (higher is better)"),
    ):
        axis.set(xscale="log", yscale="log", xlabel="items in the scope", title=title)
        axis.grid(alpha=0.3)
    left.legend(fontsize=8)
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    for end in ("svg", "png"):
        figure.savefig(folder / f"records.{end}", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="6k,100k")
    parser.add_argument("--cap", type=float, default=120, help="seconds that a store may take to fill, at each size")
    parser.add_argument("--only", default="", help="names of stores, comma separated; scopes for the scope test")
    parser.add_argument("--tables-only", action="store_true")
    chosen = parser.parse_args()
    if not chosen.tables_only:
        measure(chosen.sizes.split(","), chosen.cap, [part for part in chosen.only.split(",") if part])
    tables()
    picture()

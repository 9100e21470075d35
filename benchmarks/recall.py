"""How well every scheme recalls, on every set at hand: benchmarks/results/recall.json, and the tables of README and docs.

    python benchmarks/recall.py [--quick] [--tables-only]

--quick leaves out MiniLM (minutes of embedding on two cores). LOCI_DATA names the folder of the sets.
"""

import argparse
import json
from pathlib import Path

from page import fill
from rich.progress import track

from loci.lab import data
from loci.lab.recall import run

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "recall.json"
SETS = ("locomo", "hotpotqa", "2wikimultihop", "musique_openie", "popqa")
RUNS = [("loci", "none"), ("bm25", "none"), ("hipporag2", "none"), ("loci", "minilm"), ("dense", "minilm")]
LONG = [("hipporag2", "minilm", "musique_openie")]


def measure(quick):
    todo = [(scheme, embedder, name) for name in SETS for scheme, embedder in RUNS]
    todo = [row for row in todo if not (row[0] == "hipporag2" and row[2] == "locomo")] + LONG
    todo = [row for row in todo if (data.folder(row[2]) / "").is_dir() and not (quick and row[1] == "minilm")]
    held = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else []
    found = {(row["dataset"], row["scheme"], row["embedder"]): row for row in held}
    for scheme, embedder, name in track(todo, description="recall"):
        try:
            row = run(data.folder(name), scheme=scheme, embedder=embedder)
        except ValueError as error:
            print(f"{name}: {error}")
            continue
        found[row["dataset"], row["scheme"], row["embedder"]] = row
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps([found[key] for key in sorted(found)], indent=1) + "\n", "utf-8")


def tables():
    rows = json.loads(RESULTS.read_text("utf-8"))
    talk = sorted((row for row in rows if row["dataset"] == "locomo"), key=lambda row: -row["r@5"])
    lines = [
        "| scheme | embedder | R@5 | R@10 | multi-hop | temporal | open-domain | single-hop | abstention AUROC |",
        "|---|---|" + "---|" * 7,
    ]
    for row in talk:
        groups = " | ".join(
            f"{row['by_category'][name]['r@5']:.1f}" for name in ("multi-hop", "temporal", "open-domain", "single-hop")
        )
        lines.append(
            f"| {row['scheme']} | {row['embedder']} | **{row['r@5']:.1f}** | {row['r@10']:.1f} | {groups} | {row['known_auroc']:.2f} |"
        )
    beside = ROOT / "benchmarks" / "results" / "records.json"
    peers = json.loads(beside.read_text("utf-8"))["peers"] if beside.exists() else {}
    for name, row in sorted(peers.items(), key=lambda pair: -pair[1].get("quality", {}).get("r@5", 0)):
        if "quality" in row and not name.startswith("loci"):
            lines.append(
                f"| *{name}* | {row['quality'].get('embedder', 'none')} | {row['quality']['r@5']} | {row['quality']['r@10']} | | | | | none |"
            )
    questions = talk[0]["questions"] if talk else 0
    command = "LOCI_DATA=... loci bench recall $LOCI_DATA/locomo --scheme loci"
    lines += [
        "",
        f"{questions} questions of the five conversations at hand; by category R@5; `{command}`; other stores: `python benchmarks/records.py`",
    ]
    fill("README.md", "recall", lines)
    names = [name for name in SETS if any(row["dataset"] == name for row in rows) and name != "locomo"]
    lines = ["| scheme | embedder | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for scheme, embedder in [*RUNS, ("hipporag2", "minilm")]:
        cells = []
        for name in names:
            row = next(
                (r for r in rows if (r["dataset"], r["scheme"], r["embedder"]) == (name, scheme, embedder)), None
            )
            cells.append(f"{row['r@5']:.1f} / {row['r@10']:.1f}" if row else "")
        if any(cells):
            lines.append(f"| {scheme} | {embedder} | " + " | ".join(cells) + " |")
    fill("docs/recall.md", "sets", lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without MiniLM")
    parser.add_argument("--tables-only", action="store_true", help="write the tables from the results at hand")
    chosen = parser.parse_args()
    if not chosen.tables_only:
        measure(chosen.quick)
    tables()

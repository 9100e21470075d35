"""Recall against bytes: what loci keeps within a budget, beside dropping the oldest and dropping at random; and what feedback is worth.

    LOCI_DATA=... python benchmarks/budget.py

LoCoMo, all conversations in one file. Half of the questions (seed 0) are asked first and make the query log; the other half scores R@5. Writes
benchmarks/results/budget.json and docs/pictures/budget.svg.
"""

import json
import random
from pathlib import Path

import numpy as np
from rich.progress import track

from loci import Memory
from loci.lab import data
from loci.records.learning import Policy

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "budget.json"
SHARES = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2)
SEEDS = (0, 1, 2)


def halves(book, seed=0):
    questions = [question for question in book.questions if question.answerable]
    random.Random(seed).shuffle(questions)
    return questions[: len(questions) // 2], questions[len(questions) // 2 :]


def score(memory, questions, scope="default"):
    return [
        len({hit.item.source for hit in memory.recall(q.text, 5, scope=scope)} & q.gold) / len(q.gold)
        for q in questions
    ]


def keeping(how, share, seed=0):
    """(R@5, bytes as a share of the whole), all conversations in one file."""
    shelf = [(book, *halves(book)) for book in data.books(data.folder("locomo"))]
    with Memory(":memory:") as memory:
        ids = []
        for book, first, _ in shelf:
            ids += memory.add(book.items, scope=book.name)
            for question in first if how == "loci, questions asked before" else ():
                hits = memory.recall(question.text, 5, scope=book.name)
                useful = [hit.item.id for hit in hits if hit.item.source in question.gold]
                if useful:
                    memory.learn(hits.only(useful), 1.0)
        memory.flush()
        whole = memory.nbytes
        if how.startswith("loci"):
            memory.consolidate(budget=int(whole * share), scope="/")
        else:
            order = ids if how == "oldest first" else random.Random(seed).sample(ids, len(ids))
            while order and memory.nbytes > whole * share:
                memory.forget(order[:60], scope="/", erase=True)
                order = order[60:]
        memory.flush()
        found = [x for book, _, second in shelf for x in score(memory, second, book.name)]
        return round(100 * float(np.mean(found)), 2), round(memory.nbytes / whole, 3)


def feedback(mode, seed):
    """R@5 of the second half after the first half taught: nothing, what was useful, or other hits at random."""
    found, trusted = [], 0
    for book in data.books(data.folder("locomo")):
        first, second = halves(book, seed)
        with Memory(":memory:", log_queries=False) as memory:
            memory.add(book.items)
            for n, question in enumerate(first if mode != "none" else ()):
                hits = memory.recall(question.text, 10)
                useful = [hit.item.id for hit in hits if hit.item.source in question.gold]
                if mode == "shuffled" and useful:
                    useful = random.Random(1000 * seed + n).sample(list(hits.ids), len(useful))
                if useful:
                    memory.learn(hits.only(useful), 1.0)
            found += score(memory, second)
            with memory.reading() as db:
                trusted += Policy.loads(memory.view(db, "default").state("fusion")).trusted
    return round(100 * float(np.mean(found)), 2), trusted


def main():
    ways = ["loci, questions asked before", "loci, no questions", "oldest first", "random"]
    todo = [(how, share) for how in ways for share in SHARES]
    curve = {how: [] for how in ways}
    for how, share in track(todo, description="budget"):
        curve[how].append(keeping(how, share))
    taught = {
        mode: [feedback(mode, seed) for seed in SEEDS]
        for mode in track(("none", "useful", "shuffled"), description="feedback")
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"curve": curve, "feedback": taught, "shares": SHARES}, indent=1) + "\n", "utf-8")
    picture(curve)
    print(json.dumps({"curve": curve, "feedback": taught}))


def picture(curve):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for how, points in curve.items():
        axis.plot([100 * share for _, share in points], [recall for recall, _ in points], "o-", label=how)
    axis.set(xlabel="bytes kept, % of the whole file", ylabel="R@5 on questions not asked before", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    for end in ("svg", "png"):
        figure.savefig(folder / f"budget.{end}", dpi=130)


if __name__ == "__main__":
    main()

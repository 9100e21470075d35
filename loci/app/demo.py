"""The demo: what a newcomer sees in a minute. Real conversations where they are at hand, else a small one of ours."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loci.core import sizes
from loci.core.clock import moment
from loci.lab import data
from loci.lab.data import Book, Question
from loci.records import Hits, Item, Memory

_REAL = (
    "When did Caroline go to the LGBTQ support group?",
    "What does Melanie do to destress?",
    "What is Caroline's relationship status?",
    "What did Melanie realize after the charity race?",
)
_OURS = (
    "Who is Miso?",
    "How long did Jon's half marathon take?",
    "Where does Lena study?",
    "Who will mend the teapot?",
)


def play(to: Path) -> None:
    """Run the demo and leave one file."""
    if to.exists():
        raise ValueError(f"{to} exists; give another file with --out, or remove it")
    console = Console(highlight=False)
    book, questions, missing = _talk()
    with Memory(to) as memory:
        start = time.perf_counter()
        memory.add(book.items, scope=f"demo/{book.name}")
        spent = time.perf_counter() - start
        console.print(
            f"\n[bold]Remembered[/] {len(book.items)} turns of a conversation in {1000 * spent:.0f} ms, without a model.\n"
        )
        for question in questions:
            _ask(console, memory, f"demo/{book.name}", question)
        console.rule("I do not know")
        _ask(console, memory, f"demo/{book.name}", missing)
        _time(console, memory)
        _forget(console, memory)
        memory.flush()
        console.print(f"\n[bold]{memory.path}[/] holds all of it in {sizes.show(memory.nbytes)}. Go on:\n")
        console.print(f'  loci recall {to} "{questions[0]}" --scope demo/{book.name} --why')
        console.print(f"  loci stats {to}\n  loci --help")


def _talk() -> tuple[Book, Sequence[str], str]:
    folder = data.folder("locomo")
    if folder.is_dir():
        book = next((book for book in data.books(folder) if {q.text for q in book.questions} >= set(_REAL[:1])), None)
        if book is not None:
            return book, _REAL, "What is the name of Caroline's motorcycle?"
    items = []
    for line in resources.files("loci.app").joinpath("demo.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        items += [Item(text=text, session=row["session"], at=moment(row["at"])) for text in row["turns"]]
    return (
        Book("mara-and-jon", items, [Question(q, frozenset(), "") for q in _OURS]),
        _OURS,
        "What motorcycle does Mara ride?",
    )


def _ask(console: Console, memory: Memory, scope: str, question: str) -> None:
    hits = memory.recall(question, k=3, scope=scope)
    says = "[yellow]probably not in memory[/]" if hits.abstain else "[green]probably in memory[/]"
    table = Table(
        title=f"{question}   known {hits.known:.2f}, {says}", title_justify="left", show_edge=False, pad_edge=False
    )
    for name in ("score", "recalled", "because of"):
        table.add_column(name, overflow="fold")
    for hit in hits:
        table.add_row(f"{hit.score:.1f}", hit.item.text, _why(hit.why))
    console.print(table, "")


def _why(why: object) -> str:
    parts = sorted(dict(why).items(), key=lambda part: -part[1])  # type: ignore[call-overload]
    return ", ".join(f"{name} {value:.1f}" for name, value in parts if value >= 0.05)


def _texts(hits: Hits) -> str:
    return " | ".join(hit.item.text for hit in hits) or "nothing"


def _time(console: Console, memory: Memory) -> None:
    console.rule("Time: a contradiction closes an interval, it deletes nothing")
    old = memory.add("Bo: I work at the bakery.", at="2023-05-03", known="2023-05-03", scope="demo/bo")
    memory.add("Bo: I work at the museum now.", at="2024-01-10", known="2024-01-10", scope="demo/bo", supersedes=old)
    question = "Where does Bo work?"
    console.print("now:              ", _texts(memory.recall(question, 1, scope="demo/bo")))
    console.print("as of 2023-06-01: ", _texts(memory.recall(question, 1, scope="demo/bo", as_of="2023-06-01")), "\n")


def _forget(console: Console, memory: Memory) -> None:
    console.rule("Forgetting: with everything that was known only through it, and proved")
    source = memory.add("Bo: my locker code is 4711-ZEBRA.", scope="demo/bo")
    memory.add([Item(text="Bo's locker code is 4711-ZEBRA", kind="fact", sources=tuple(source))], scope="demo/bo")
    went = memory.forget(source, erase=True)
    console.print(f"forgot items {', '.join(map(str, went))}; {memory.verify_forgotten(source[0])}")

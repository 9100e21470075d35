"""Real data sets in the two shapes that the benchmarks read: dated conversations and passage collections.

Conversations (LoCoMo): a JSON list of {conversation: {speaker_a, speaker_b, session_N, session_N_date_time}, qa: [{question,
evidence, category}]}. Collections: `corpus*.jsonl` rows {id, title, text[, triples]} and `queries.jsonl` rows {question, gold_ids}.
Plain or gzipped.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loci.core.clock import moment
from loci.records.item import Item

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
_TURN = re.compile(r"D(\d+):(\d+)")
_BROKEN = re.compile(r"D:(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the names of the items that hold its answer; none when it cannot be answered."""

    text: str
    gold: frozenset[str]
    category: str
    answerable: bool = True


@dataclass(frozen=True, slots=True)
class Book:
    """Items of one scope (`item.source` is the name that questions refer to) and the questions about them."""

    name: str
    items: list[Item]
    questions: list[Question]


def folder(name: str = "") -> Path:
    """The folder of the real sets: LOCI_DATA, by default ../shared/data beside the working folder."""
    return Path(os.environ.get("LOCI_DATA", "../shared/data")) / name


def books(path: Path) -> list[Book]:
    """Read a folder of either shape."""
    if not path.is_dir():
        raise ValueError(
            f"{path} is not a folder; give one with conversations (*.json) or corpus*.jsonl and queries.jsonl"
        )
    corpora = sorted([*path.glob("corpus*.jsonl"), *path.glob("corpus*.jsonl.gz")])
    queries = sorted([*path.glob("queries*.jsonl"), *path.glob("queries*.jsonl.gz")])
    if corpora and queries:
        return [_collection(path.name, corpora, queries)]
    found = [book for file in sorted([*path.glob("*.json"), *path.glob("*.json.gz")]) for book in _conversations(file)]
    if not found:
        raise ValueError(
            f"{path} holds neither conversations (*.json) nor corpus*.jsonl with queries.jsonl; give such a folder"
        )
    return found


def _open(path: Path) -> Any:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(
                        f"{path} line {number} is not JSON ({error.msg}); give one object a line"
                    ) from error


def _conversations(path: Path) -> Iterator[Book]:
    with _open(path) as file:
        found = json.load(file)
    for number, one in enumerate(found if isinstance(found, list) else [found]):
        if not (isinstance(one, dict) and "conversation" in one and "qa" in one):
            return
        items = list(_turns(one["conversation"]))
        names = {item.source for item in items}
        questions = [q for row in one["qa"] if (q := _question(row, names)) is not None]
        yield Book(str(one.get("sample_id", f"{path.name.split('.')[0]}-{number}")), items, questions)


def _turns(talk: dict[str, Any]) -> Iterator[Item]:
    numbers = sorted(int(key.split("_")[1]) for key in talk if re.fullmatch(r"session_\d+", key))
    for number in numbers:
        date = talk.get(f"session_{number}_date_time")
        at = moment(date) if date else None
        for turn in talk[f"session_{number}"]:
            caption = f" [shares {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            text = f"{turn['speaker']}: {turn.get('text', '')}{caption}"
            yield Item(text=text, at=at, known=at, session=f"session_{number}", source=turn["dia_id"])


def _question(row: dict[str, Any], names: set[str | None]) -> Question | None:
    """A question with its evidence repaired: `D8:6; D9:17` is two turns, `D:11:26` and `D30:05` are misprints."""
    category = CATEGORIES.get(row.get("category", 4), str(row.get("category")))
    marks = " ".join(map(str, row.get("evidence") or []))
    gold = {f"D{int(a)}:{int(b)}" for a, b in _TURN.findall(_BROKEN.sub(r"D\1:\2", marks))} & names
    if category != "adversarial" and not gold:
        return None
    return Question(row["question"], frozenset(map(str, gold)), category, answerable=category != "adversarial")


def _collection(name: str, corpora: list[Path], queries: list[Path]) -> Book:
    items = []
    for path in corpora:
        for row in _rows(path):
            meta = {key: row[key] for key in ("title", "triples", "entities") if row.get(key)}
            title = row.get("title")
            items.append(
                Item(text=f"{title}\n{row['text']}" if title else row["text"], source=str(row["id"]), meta=meta)
            )
    questions = []
    for path in queries:
        for row in _rows(path):
            gold = [row["subject_gold_id"]] if row.get("subject_gold_id") is not None else row.get("gold_ids", [])
            if gold:
                kind = row.get("type") or (f"{row['hops']}-hop" if "hops" in row else "all")
                questions.append(Question(row["question"], frozenset(map(str, gold)), str(kind)))
    return Book(name, items, questions)

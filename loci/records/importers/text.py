"""Plain text and Markdown: one item for each paragraph, short ones joined, with the headings above it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from loci.records.item import Item

LONGEST = 1200  # characters of an item, unless a single paragraph is longer
_HEADING = re.compile(r"^(#{1,6})\s+(.*\S)\s*#*\s*$")


def read(source: Path, endings: Sequence[str]) -> Iterator[Item]:
    """Items of a file, or of every text file below a folder in the order of their names."""
    files = (
        [source]
        if source.is_file()
        else sorted(p for p in source.rglob("*") if p.suffix.lower() in endings and p.is_file())
    )
    for path in files:
        name = path.name if source.is_file() else path.relative_to(source).as_posix()
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 (byte {error.start}); convert it, then import again") from error
        for number, (headings, body) in enumerate(sections(text), start=1):
            meta = {"title": headings[-1], "headings": list(headings)} if headings else {}
            yield Item(text=body, source=f"{name}#{number}", meta=meta)


def sections(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    r"""Runs of paragraphs under one heading path, cut at LONGEST characters: (headings, text).

    >>> list(sections("# Pets\n\nMiso is a cat.\n\n## Food\nTuna."))
    [(('Pets',), 'Miso is a cat.'), (('Pets', 'Food'), 'Tuna.')]
    """
    headings: tuple[str, ...] = ()
    held: list[str] = []
    for block in _blocks(text):
        found = _HEADING.match(block)
        if found or sum(map(len, held)) + len(block) > LONGEST:
            if held:
                yield headings, "\n\n".join(held)
            held = []
        if found:
            headings = (*headings[: len(found[1]) - 1], found[2])
        else:
            held.append(block)
    if held:
        yield headings, "\n\n".join(held)


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs and headings, each alone."""
    held: list[str] = []
    for line in [*text.splitlines(), ""]:
        heading = _HEADING.match(line)
        if (heading or not line.strip()) and held:
            yield "\n".join(held)
            held = []
        if heading:
            yield line
        elif line.strip():
            held.append(line.rstrip())

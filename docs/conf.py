"""Sphinx: Markdown pages, and a catalogue generated from loci/catalog.jsonl and the verdicts."""

import json
from pathlib import Path

from sphinx.application import Sphinx

import loci

project = "loci"
author = "the loci authors"
copyright = "the loci authors"
release = loci.__version__
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "loci"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]  # cron lines have no lexer


def catalogue(app: Sphinx) -> None:
    """Write docs/catalogue/index.md: one row a method."""
    package = Path(loci.__file__).parent
    cards = [json.loads(line) for line in (package / "catalog.jsonl").read_text("utf-8").splitlines()]
    kept = package / "lab" / "verdicts.jsonl"
    verdicts = (
        {row["of"]: row for row in map(json.loads, kept.read_text("utf-8").splitlines())} if kept.exists() else {}
    )
    folder = Path(app.srcdir) / "catalogue"
    folder.mkdir(exist_ok=True)
    lines = ["# Catalogue", "", "| kind | name | promise | paper | bytes | claim |", "|---|---|---|---|---|---|"]
    for card in cards:
        verdict = verdicts.get(f"{card['kind']}/{card['name']}", {}).get("verdict", "")
        lines.append(
            f"| {card['kind']} | `{card['name']}` | {card['says']} | {card['paper']} | `{card['bytes']}` | {verdict} |"
        )
    (folder / "index.md").write_text("\n".join(lines) + "\n", "utf-8")


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", catalogue)

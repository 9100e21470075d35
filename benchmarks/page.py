"""Puts a benchmark's table into the page of the documentation that shows it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def fill(page, name, lines):
    """Replace what stands between <!-- name:begin --> and <!-- name:end -->."""
    path = ROOT / page
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, rest = path.read_text("utf-8").split(begin)
    path.write_text(head + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1], "utf-8")

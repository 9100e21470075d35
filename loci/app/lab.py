"""Commands of the lab: demo, bench, and the catalogue with its claims."""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from loci.app.common import Json, out, progress

bench = typer.Typer(help="Measure on real sets.", no_args_is_help=True)


@bench.callback()
def _bench() -> None:
    """Measure on real sets."""


@bench.command("recall")
def bench_recall(
    folder: Annotated[
        Path, typer.Argument(help="Conversations (*.json) or corpus*.jsonl with queries.jsonl.", show_default=False)
    ],
    *,
    scheme: Annotated[str, typer.Option(help="loci, bm25, dense, hipporag2.")] = "loci",
    embedder: Annotated[str, typer.Option(help="none, hash, minilm.")] = "none",
    k: Annotated[str, typer.Option(help="Cut-offs.")] = "5,10",
    store: Annotated[str, typer.Option(help="Where: a new file, or postgresql://... with a new tenant.")] = ":memory:",
    as_json: Json = False,
) -> None:
    """The share of what a question needs among the first k hits, with times and bytes."""
    from loci.lab.recall import run

    try:
        cuts = tuple(int(part) for part in k.split(","))
    except ValueError as error:
        raise ValueError(f"k={k!r} is not a list of cut-offs; give numbers such as 5,10") from error
    if min(cuts) < 1:
        raise ValueError(f"k={k!r} has a cut-off below 1; give numbers such as 5,10")
    with progress("recall") as report:
        found = run(folder, scheme=scheme, embedder=embedder, k=cuts, store=store, progress=report)
    lines = [f"{key:14} {value}" for key, value in found.items() if key != "by_category"]
    lines += [f"  {name:12} {row}" for name, row in found["by_category"].items()]
    out(found, "\n".join(lines), as_json=as_json)


def demo(
    *,
    to: Annotated[Path, typer.Option("--out", help="The file it leaves.")] = Path("demo.db"),
) -> None:
    """Real conversations remembered and recalled, with reasons, in a minute."""
    from loci.app.demo import play

    play(to)


def catalogue() -> list[dict[str, Any]]:
    """The rows of loci/catalog.jsonl."""
    lines = resources.files("loci").joinpath("catalog.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def list_(
    pattern: Annotated[str, typer.Argument(help="A kind, or a name with wildcards.")] = "*",
    *,
    as_json: Json = False,
) -> None:
    """The methods: kind, name, promise."""
    found = [row for row in catalogue() if fnmatch(row["kind"], pattern) or fnmatch(row["name"], pattern)]
    kind, name = (max((len(row[key]) for row in found), default=0) for key in ("kind", "name"))
    out(found, "\n".join(f"{row['kind']:{kind}} {row['name']:{name}} {row['says']}" for row in found), as_json=as_json)
    if not found:
        raise typer.Exit(1)


def show(name: str, *, as_json: Json = False) -> None:
    """One method: its paper, promise, bytes, deviations and verdict."""
    from loci.lab.claim import verdicts

    found = [row for row in catalogue() if name in (row["name"], f"{row['kind']}/{row['name']}")]
    if not found:
        raise ValueError(f"name={name!r} is not in the catalogue; see loci list")
    known = verdicts()
    rows = [
        row | {"verdict": known.get(f"{row['kind']}/{row['name']}", {}).get("verdict", "not judged")} for row in found
    ]
    text = "\n\n".join(
        "\n".join(f"{key:9} {value}" for key, value in row.items() if value not in ("", [], {})) for row in rows
    )
    out(rows, text, as_json=as_json)


def claim(
    name: Annotated[str, typer.Argument(help="A method, or kind/method.", show_default=False)] = "",
    *,
    kept: Annotated[bool, typer.Option("--kept", help="Show the kept verdict, run nothing.")] = False,
    room: Annotated[str, typer.Option(help="The kept verdicts of a room, such as weights.")] = "",
    plot: Annotated[Path | None, typer.Option(help="Draw the room against its bytes: .svg, .png.")] = None,
    as_json: Json = False,
) -> None:
    """Test a method's claim now, with its control. Exit code 1 when it does not hold."""
    from loci.lab import claim as court

    if bool(name) == bool(room):
        raise ValueError(f"name={name!r} and room={room!r}: give one of them, a method to test or a room to list")
    if room:
        _room(room, plot, as_json=as_json)
        return
    if plot is not None:
        raise ValueError(f"plot={str(plot)!r} draws a room, not {name!r}; give --room weights or --room state")
    row = court.show(name) if kept else court.run(name)
    if row is None:
        raise ValueError(f"name={name!r} was never judged; leave out --kept to test it now")
    lines = [f"{row['of']}: {row['verdict']}", f"  {row['says']}  ({row['source']})"]
    for run in row.get("runs", []):
        got, control = run["got"], run["control"]
        lines.append(
            f"  seed {run['seed']}: {got['value']} against {control['value']} {got['unit']}; {got['bytes']} and {control['bytes']} bytes"
        )
    out(row, "\n".join([*lines, *([f"  {row['why']}"] if "why" in row else [])]), as_json=as_json)
    if row["verdict"] != "held":
        raise typer.Exit(1)


def _room(room: str, plot: Path | None, *, as_json: bool) -> None:
    """The verdicts of every claim about a kind that lives in a room, and its picture."""
    from loci.lab import claim as court

    homes = {row["kind"]: row["entry"].split(".")[1] for row in catalogue()}
    if room not in homes.values():
        raise ValueError(f"room={room!r} has no methods; choose one of {', '.join(sorted(set(homes.values())))}")
    if plot is not None:
        _draw(room, plot)
    judged = court.verdicts()
    rows = [
        judged.get(of, {"of": of, "says": one.says, "source": one.source, "tier": one.tier, "verdict": "not judged"})
        for of, one in court.claims().items()
        if homes.get(of.split("/")[0]) == room
    ]
    width = max((len(row["of"]) for row in rows), default=0)
    out(rows, "\n".join(f"{row['of']:{width}}  {row['verdict']:17}  {row['says']}" for row in rows), as_json=as_json)
    if not rows:
        raise typer.Exit(1)


def _draw(room: str, path: Path) -> None:
    from loci.lab import capacity_plot, plot

    pictures = {"weights": plot.draw, "state": capacity_plot.draw}
    if room not in pictures:
        raise ValueError(f"room={room!r} has no picture; {' and '.join(pictures)} have one")
    best = pictures[room](path)
    print(f"{path}: on the front are {', '.join(dict.fromkeys(row['of'] for row in best))}", file=sys.stderr)

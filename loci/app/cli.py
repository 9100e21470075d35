"""`loci` on the command line: every verb of `Memory`, the catalogue, the claims, the benches.

Exit codes: 0 done; 1 nothing found, or problems found; 2 what was asked cannot be done, said in one line on stderr.
"""

from __future__ import annotations

import sys

import typer

from loci.app import fit, keep, lab, learn, operate, read, serve, trust, write
from loci.app.mcp import command as mcp
from loci.app.web import command as web
from loci.core.errors import LociError

app = typer.Typer(
    help="Memory for learning systems: long-term memory for agents in one file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
for command in (
    write.add, read.recall, keep.forget, read.history, read.diff, keep.consolidate, write.import_, write.export,
    read.stats, keep.doctor, learn.learn, mcp.mcp, web.view, lab.demo, lab.list_, lab.show, lab.claim, fit.fit, serve.serve,
    operate.backup, operate.restore, operate.move, trust.quarantine, trust.undo,
):  # fmt: skip
    app.command(command.__name__.rstrip("_"))(command)
app.add_typer(lab.bench, name="bench")
app.add_typer(serve.token, name="token")


def main() -> None:
    """Run the command line; errors of ours are one line, never a traceback."""
    try:
        app()
    except (LociError, ValueError, TypeError, FileNotFoundError) as error:
        print(f"loci: {error}", file=sys.stderr)
        sys.exit(2)

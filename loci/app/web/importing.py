"""Import: drop a file, watch it come in. Chats, text, Markdown and exports of loci, through the importers of the house."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nicegui import ui
from nicegui.events import UploadEventArguments

from loci.app.web import words
from loci.app.web.desk import Desk, Work
from loci.app.web.frame import Notice, box, field, page, text, working
from loci.records import exchange, importers
from loci.records.importers import Result
from loci.records.scope import DEFAULT, ROOT

MOST = 1_000_000_000  # bytes of one file


def add(desk: Desk) -> None:
    """Serve the page."""

    @ui.page("/import")
    async def import_(scope: str = "") -> None:
        with page(desk, "Import", "/import", scope) as (notice, path):
            if desk.read_only:
                text("p", "This viewer was started with --read-only.")
                return
            said = "Chats (OpenAI messages, ChatGPT, Claude), text, Markdown, or an export of loci. A file may be dropped again: what is there is skipped."
            text("p", said, "soft")
            Drop(desk, notice, path).draw()


def bring(desk: Desk, source: Path, scope: str, work: Work) -> Result:
    """Import one file: an export of loci keeps its scopes under `scope`, everything else goes into it."""
    desk.may_write()
    work.begin(f"Importing {source.name}")
    if exchange.is_export(source):
        under = None if scope in ("", ROOT) else scope
        added = exchange.load(desk.memory, source, scope=under, progress=work.report)
        return Result(added, 0, added)
    return importers.run(desk.memory, source, scope=scope or DEFAULT, progress=work.report)


class Drop:
    """A place to drop files on, and what came of them."""

    def __init__(self, desk: Desk, notice: Notice, scope: str) -> None:
        self._desk, self._notice = desk, notice
        self._scope = DEFAULT if scope == ROOT else scope

    def draw(self) -> None:
        """The field for the scope and the place to drop on."""
        with box("div", "actions more"):
            self._into = field("Into scope", self._scope, kind="w-mid")
        with box("div", "more"):
            self._upload = ui.upload(
                label="Drop files here, or press + to choose", multiple=True, auto_upload=True, max_file_size=MOST,
                on_upload=self._came, on_rejected=self._refused,
            ).props('flat bordered color=transparent accept=".json,.jsonl,.txt,.md,.markdown,.rst"').classes("drop")  # fmt: skip
        self._place = box("div", "more")

    def _refused(self) -> None:
        self._notice.problem(
            f"The file was refused; give .json, .jsonl, .txt, .md or .rst of at most {words.size(MOST)}"
        )

    async def _came(self, event: UploadEventArguments) -> None:
        name = Path(event.file.name).name or "file.txt"
        work = Work(f"Receiving {name}")
        with tempfile.TemporaryDirectory(prefix="loci-view-") as folder:
            source = Path(folder) / name  # importers name sessions after the file
            with self._place, working(work):
                await event.file.save(source)
                done = await self._notice.attempt(
                    self._desk.run(self._bring, source, str(self._into.value or ""), work)
                )
        if done is not None:
            self._notice.done(
                f"{name}: {words.count(done.added, 'item')} added, {done.skipped:,} skipped of {done.total:,}."
            )

    def _bring(self, source: Path, scope: str, work: Work) -> Result:
        try:
            return bring(self._desk, source, scope, work)
        except ValueError as error:  # the user knows the file by its name, not by where it lay for a moment
            raise ValueError(str(error).replace(str(source), source.name)) from error

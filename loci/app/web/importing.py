"""Import: drop a file, watch it come in. Chats, text, Markdown and exports of loci, through the importers of the house."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from nicegui import ui
from nicegui.events import UploadEventArguments

from loci.app.web import words
from loci.app.web.desk import Desk, Work
from loci.app.web.frame import Notice, box, button, field, page, text, working
from loci.records.importers import Result
from loci.records.scope import ROOT

MOST = 1_000_000_000  # bytes of one file
_ENDINGS = ".json,.jsonl,.txt,.md,.markdown,.rst"


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
    under = None if scope in ("", ROOT) else scope
    return desk.reading.bring(source, under, work.report)


class Drop:
    """A place to drop files on, and what came of them."""

    def __init__(self, desk: Desk, notice: Notice, scope: str) -> None:
        self._desk, self._notice = desk, notice
        self._scope = "" if scope == ROOT else scope
        self._turn = asyncio.Lock()  # files of one drop come in one after the other
        self._said: list[str] = []

    def draw(self) -> None:
        """The field for the scope and the place to drop on."""
        with box("div", "actions more"):
            self._into = field("Into scope", self._scope, kind="w-mid", hint="default; exports keep theirs")
        with box("div", "more"):
            upload = ui.upload(
                multiple=True, auto_upload=True, max_file_size=MOST, on_upload=self._came, on_rejected=self._refused
            )
            upload.props(f'flat color=transparent accept="{_ENDINGS}"').classes("drop")
            upload.on("finish", lambda: upload.run_method("removeUploadedFiles"))  # the same file may come again
            with upload.add_slot("header"), box("div", "drop-head"):
                box("q-uploader-add-trigger", aria_label="Files to import")
                text("p", "Drop files here, or")
                button("Choose files", lambda: upload.run_method("pickFiles"))
        self._place = box("div", "more")

    def _refused(self) -> None:
        self._notice.problem(
            f"The file was refused; give .json, .jsonl, .txt, .md or .rst of at most {words.size(MOST)}"
        )

    async def _came(self, event: UploadEventArguments) -> None:
        name = Path(event.file.name).name or "file.txt"
        work = Work(f"Receiving {name}")
        async with self._turn:
            with tempfile.TemporaryDirectory(prefix="loci-view-") as folder:
                source = Path(folder) / name  # importers name sessions after the file
                with self._place, working(work):
                    await event.file.save(source)
                    done = await self._notice.attempt(
                        self._desk.run(self._bring, source, str(self._into.value or ""), work)
                    )
            if done is not None:
                added = words.count(done.added, "item")
                self._said.append(f"{name}: {added} added, {done.skipped:,} skipped of {done.total:,}.")
                self._notice.done("Imported", *self._said)

    def _bring(self, source: Path, scope: str, work: Work) -> Result:
        try:
            return bring(self._desk, source, scope, work)
        except ValueError as error:  # the user knows the file by its name, not by where it lay for a moment
            raise ValueError(str(error).replace(str(source), source.name)) from error

"""Search: a question, what it recalls, why, and how likely it is that the answer is there at all."""

from __future__ import annotations

from collections.abc import Mapping

from nicegui import ui
from nicegui.element import Element

from loci.app.web import importing, words
from loci.app.web.desk import Desk, Work
from loci.app.web.frame import Notice, box, button, distrust, field, link, page, text, working
from loci.records import Hit, Hits

_SEGMENTS = 9  # colours of the bar
_SHOWN = 50  # hits at most


def add(desk: Desk) -> None:
    """Serve the page."""

    @ui.page("/")
    async def search(q: str = "", scope: str = "", k: str = "5", as_of: str = "") -> None:
        with page(desk, "Search", "/", scope) as (notice, path):
            form = Form(desk, notice, path)
            form.draw(q, k, as_of)
        if q:
            ui.timer(0.01, form.ask, once=True)
        else:
            ui.timer(0.01, form.welcome, once=True)


class Form:
    """The question's form and its results."""

    def __init__(self, desk: Desk, notice: Notice, scope: str) -> None:
        self._desk, self._notice, self._scope = desk, notice, scope

    def draw(self, q: str, k: str, as_of: str) -> None:
        """The fields, and an empty place for results."""
        with box("div", "form", role="search", aria_label="Memory"):
            self._q = field("Question", q, kind="grow", hint="What pet does Ana have?")
            if not q:
                self._q.props("autofocus")
            self._k = field("Hits", k, kind="w-k").props(f"type=number min=1 max={_SHOWN}")
            self._as_of = field("As of (empty: now)", as_of, kind="w-date").props("type=date")
            self._send = button("Search", self.ask, kind="primary")
        for one in (self._q, self._k, self._as_of):
            one.on("keydown.enter", self.ask)
        self._place = box("div", "results")

    async def ask(self) -> None:
        """Recall, and show what came."""
        question = (self._q.value or "").strip()
        self._notice.clear()
        self._place.clear()
        if not question:
            self._notice.problem("The question is empty; type what you want to know, then press Enter")
            return
        asked = self._k.value or "5"
        k = min(int(asked), _SHOWN) if str(asked).isdigit() else 5
        as_of = self._as_of.value or None
        ui.navigate.history.replace(words.url("/", q=question, scope=self._scope, k=k, as_of=as_of))
        recall = self._desk.memory.recall
        with self._place, working(Work("Recalling"), self._send):
            hits = await self._notice.attempt(self._desk.run(recall, question, k, scope=self._scope, as_of=as_of))
        if hits is not None:
            with self._place:
                self._show(hits, as_of)

    async def welcome(self) -> None:
        """What stands there before a question: how much is remembered, or how to begin."""
        stock = await self._notice.attempt(self._desk.run(self._desk.reading.stock, self._scope))
        if stock is None:
            return
        with self._place:
            if stock.items:
                where = "" if self._scope == "/" else f" in {self._scope}"
                said = f"{words.count(stock.items, 'memory', 'memories')}{where}. Ask a question, or look at the "
                with box("p", "soft more"):
                    text("span", said)
                    link("timeline", words.url("/timeline", scope=self._scope))
            else:
                nothing(self._desk, self._notice, self._scope)

    def _show(self, hits: Hits, as_of: str | None) -> None:
        belief(hits)
        if not hits:
            with box("div", "empty"):
                text("strong", "Nothing is recalled for this question")
                text("p", "Other words may help, or a wider scope: / is everything.")
            return
        scale = max(sum(part for part in hit.why.values() if part > 0) for hit in hits)
        with box("ol", "hits", aria_label="Hits, best first"):
            for hit in hits:
                with box("li"):
                    self._hit(hits, hit, scale, past=as_of is not None)

    def _hit(self, hits: Hits, hit: Hit, scale: float, *, past: bool) -> None:
        item = hit.item
        with box("div", "hit-top"):
            text("span", f"{hit.score:.2f}", "hit-score num").props["aria-hidden"] = "true"
            text("p", words.short(item.text), "memory")
        with box("div", "hit-body"):
            with box("div", "meta"):
                link(f"#{item.id}", words.url(f"/item/{item.id}", scope=item.scope), aria_label=f"Item {item.id}")
                text("span", words.moment_of(words.when_of(item)))
                text("span", item.scope)
                distrust(item)
                if item.kind != "episode":
                    text("span", item.kind, "chip")
                if item.source:
                    text("span", item.source)
            bar(hit.why, scale)
            with box("div", "hit-foot"):
                legend(hit.why)
                if not self._desk.read_only and not past:
                    self._feedback(hits, item.id)

    def _feedback(self, hits: Hits, id_: int) -> None:
        with box("div", "actions") as place:

            async def say(reward: float, said: str) -> None:
                for one in (useful, useless):
                    one.props["disable"] = True
                done = await self._notice.attempt(self._told(hits, id_, reward))
                if done is None:
                    for one in (useful, useless):
                        one.props["disable"] = False
                    return
                with place:
                    text("span", f"Noted: {said}", "small soft").props["role"] = "status"

            useful = button("Useful", lambda: say(1.0, "useful"), kind="quiet", label=f"Item {id_} was useful")
            useless = button(
                "Not useful", lambda: say(-1.0, "not useful"), kind="quiet", label=f"Item {id_} was not useful"
            )

    async def _told(self, hits: Hits, id_: int, reward: float) -> bool:
        await self._desk.run(self._desk.learn, hits, id_, reward)
        return True


def belief(hits: Hits) -> None:
    """Whether the answer is in memory, in words, with a gauge."""
    said = words.belief(hits)
    with box("div", "belief"):
        text("span", said, "belief-said")
        with meter(hits.known, f"{said}, {hits.known:.2f} of 1"):
            box("b", aria_hidden="true").style(f"left:{100 * hits.threshold:.0f}%")
        text("span", f"{hits.known:.2f}, wrong {100 * hits.error:.0f} times in 100", "soft small num")


def meter(share: float, said: str) -> Element:
    """A gauge from 0 to 1 that says its value."""
    gauge = box(
        "div", "gauge", role="meter", aria_valuemin="0", aria_valuemax="1", aria_valuenow=f"{share:.2f}",
        aria_valuetext=said, aria_label="Known",
    )  # fmt: skip
    gauge.classes("abstain" if said.startswith("Probably not") else "")
    with gauge:
        box("i").style(f"width:{100 * share:.0f}%")
    return gauge


def bar(why: Mapping[str, float], scale: float) -> None:
    """The parts of a score as a bar that says them."""
    with box("div", "bar-of", role="img", aria_label=words.score_of(why)):
        for name, value in words.parts(why):
            box("i", f"part-{colour(name)} {'minus' if value < 0 else ''}").style(
                f"width:{100 * abs(value) / scale if scale else 0:.2f}%"
            )


def legend(why: Mapping[str, float]) -> None:
    """The parts of a score as words with figures that sum to it."""
    with box("div", "legend num", aria_hidden="true"):
        for name, value in words.parts(why):
            with box("span"):
                box("i", f"part-{colour(name)}")
                text("span", f"{name} {value:.2f}")
        text("span", f"= {sum(why.values()):.2f}", "sum")


def colour(name: str) -> int:
    """The colour of a part: the same on every page, for parts of other schemes too."""
    return words.PARTS.index(name) if name in words.PARTS else sum(name.encode()) % _SEGMENTS


def nothing(desk: Desk, notice: Notice, scope: str) -> None:
    """What an empty scope shows."""
    with box("div", "empty"):
        text("strong", "Nothing remembered yet" if scope == "/" else f"Nothing remembered in {scope}")
        text("p", f'Drop a file here, or run: loci add {desk.name} "Ana: I adopted a kitten"')
    if not desk.read_only:
        importing.Drop(desk, notice, scope).draw()

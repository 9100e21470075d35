"""Forgetting: a tombstone with a restore window, the cascade to what was known only through it, and a real erase."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from loci.core.errors import UnknownItem
from loci.records import analysis, postings, rows
from loci.records.database import Database

PIECE = 32  # bytes of one fragment that the scan looks for
_KEPT = 16_000_000  # bytes of erased texts that a handle remembers, to prove that they are gone
NOBODY: Mapping[int, int] = {}
_LIVES = """EXISTS (SELECT 1 FROM provenance AS q JOIN item AS s ON s.id = q.source
            WHERE q.item = item.id AND s.gone IS NULL AND s.trust >= item.trust)"""  # a source that keeps `item` alive


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a byte scan found: `clean` when the item is in no table and none of its text in any file."""

    id: int
    clean: bool
    tables: tuple[str, ...] = ()  # tables that still name the item
    files: tuple[str, ...] = ()  # files that still hold bytes of its text
    scanned: int = 0  # bytes read
    text_known: bool = True  # False: the text was not at hand, so only the tables were searched

    def __str__(self) -> str:
        where = [*self.tables, *self.files]
        state = "nowhere in the store" if self.clean else f"still in {', '.join(where)}"
        how = f"{self.scanned} bytes scanned" if self.text_known else "tables searched; give text= to scan the bytes"
        return f"item {self.id}: {state} ({how})"


@dataclass(slots=True)
class Erased:
    """Texts of items erased through this handle, so that it can prove their absence; never written anywhere."""

    texts: dict[int, bytes] = field(default_factory=dict)

    def note(self, texts: dict[int, bytes]) -> None:
        """Take more texts; the oldest go when there are too many: their absence can be proved with `text=`."""
        self.texts |= texts
        held = sum(map(len, self.texts.values()))
        while held > _KEPT:
            held -= len(self.texts.pop(next(iter(self.texts))))


def tombstone(
    db: Database,
    scopes: Iterable[int],
    ids: Sequence[int],
    now: float,
    *,
    op: str,
    held: bool = False,
    into: Mapping[int, int] | None = None,
) -> list[int]:
    """Forget live items of the scopes, then everything that has no other living source; all ids that went.

    held: only until they are released, and time does not erase them. into: which item stands for one that went.
    A source that is trusted less than what was derived does not keep it alive.
    """
    inside = set(scopes)
    live: dict[int, int] = {}
    for some in rows.batches(ids):
        sql = f"SELECT id, scope FROM item WHERE id IN ({rows.marks(some)}) AND gone IS NULL"
        live |= {id_: of for id_, of in db.execute(sql, some) if of in inside}
    if missing := [id_ for id_ in ids if id_ not in live]:
        raise UnknownItem(
            f"items {missing[:5]} are not live in this scope, nothing was forgotten; give ids that recall or add returned, "
            "with the scope they were added under"
        )
    went = dict(live)
    frontier = list(live)
    _mark(db, live, now, op, held=held, into=into or {})
    while frontier:
        orphans = dict(_orphans(db, frontier))
        _mark(db, orphans, now, op, held=held)
        went |= orphans
        frontier = list(orphans)
    _unlink(db, list(went), now)
    return list(went)


def _mark(
    db: Database, live: dict[int, int], now: float, op: str, *, held: bool, into: Mapping[int, int] = NOBODY
) -> None:
    for id_, of in live.items():
        db.execute(
            "INSERT INTO past SELECT id, since, until, gone, changed, ? FROM item WHERE id = ? AND changed < ?",
            (now, id_, now),
        )
        version = rows.event(db, op, now, scope=of, first=id_, detail={"into": into[id_]} if id_ in into else None)
        db.execute(
            "UPDATE item SET gone = ?, changed = ?, version = ?, held = ? WHERE id = ?",
            (now, now, version, int(held), id_),
        )


def _orphans(db: Database, gone: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Live items that were derived from `gone` and have no living source left that is trusted as much as they are."""
    sql = (
        "SELECT DISTINCT item.id, item.scope FROM provenance AS p JOIN item ON item.id = p.item "
        f"WHERE p.source IN ({{}}) AND item.gone IS NULL AND NOT {_LIVES} ORDER BY 1"
    )
    for some in rows.batches(gone):
        yield from db.execute(sql.format(rows.marks(some)), some).fetchall()


def _unlink(db: Database, gone: Sequence[int], now: float) -> None:
    """Forget links that touch forgotten items, or that only forgotten items vouch for."""
    for some in rows.batches(gone, 400):
        few = rows.marks(some)
        db.execute(
            f"UPDATE link SET gone = ? WHERE gone IS NULL AND (src IN ({few}) OR dst IN ({few}))", (now, *some, *some)
        )
        db.execute(
            f"""UPDATE link SET gone = ? WHERE gone IS NULL AND id IN (SELECT link FROM link_source WHERE source IN ({few}))
                AND NOT EXISTS (SELECT 1 FROM link_source AS q JOIN item AS s ON s.id = q.source
                                WHERE q.link = link.id AND s.gone IS NULL)""",
            (now, *some),
        )


def restore(db: Database, scopes: Iterable[int], ids: Sequence[int], now: float, *, held: bool = False) -> list[int]:
    """Undo a forgetting inside its window: the items, what went with them, and the links between what lives.

    held: release them from quarantine instead; only what is held can be released, and what is held only be released.
    """
    inside = set(scopes)
    back: dict[int, tuple[int, float]] = {}
    for some in rows.batches(ids):
        sql = f"SELECT id, scope, gone FROM item WHERE id IN ({rows.marks(some)}) AND gone IS NOT NULL AND held = ?"
        back |= {id_: (of, gone) for id_, of, gone in db.execute(sql, (*some, int(held))) if of in inside}
    if missing := [id_ for id_ in ids if id_ not in back]:
        if held:
            raise UnknownItem(
                f"items {missing[:5]} are not in quarantine in this scope, nothing was released; "
                "give ids that quarantined() lists"
            )
        raise UnknownItem(
            f"items {missing[:5]} are not forgotten items of this scope, nothing was restored; "
            "an item can be restored until it is erased"
        )
    came = list(back)
    frontier = dict(back)
    while frontier:
        for id_, (of, _) in frontier.items():
            db.execute(
                "INSERT INTO past SELECT id, since, until, gone, changed, ? FROM item WHERE id = ? AND changed < ?",
                (now, id_, now),
            )
            version = rows.event(db, "release" if held else "restore", now, scope=of, first=id_)
            db.execute(
                "UPDATE item SET gone = NULL, changed = ?, version = ?, held = 0 WHERE id = ?", (now, version, id_)
            )
        frontier = {
            id_: (of, gone)
            for source, (_, when) in frontier.items()
            for id_, of, gone in db.execute(
                """SELECT item.id, item.scope, item.gone FROM provenance JOIN item ON item.id = provenance.item
                   WHERE provenance.source = ? AND item.gone = ? AND item.held = ?""",
                (source, when, int(held)),
            )
        }
        came += frontier
    _vouched(db, came)
    _relink(db, came, now)
    return came


def _vouched(db: Database, came: Sequence[int]) -> None:
    """Refuse to bring back what was derived from items that all stay forgotten."""
    sql = f"""SELECT p.item, p.source FROM provenance AS p JOIN item ON item.id = p.item JOIN item AS t ON t.id = p.source
              WHERE p.item IN ({{}}) AND t.trust >= item.trust AND NOT {_LIVES}"""
    for some in rows.batches(came):
        if row := db.execute(sql.format(rows.marks(some)), some).fetchone():
            raise UnknownItem(
                f"item {row[0]} was derived only from forgotten items, nothing was restored; restore item {row[1]} instead, "
                "which brings it back"
            )


def _relink(db: Database, came: Sequence[int], now: float) -> None:
    """Bring back links that touch restored items or that they vouch for, where both ends live and someone vouches."""
    for some in rows.batches(came, 300):
        few = rows.marks(some)
        back = f"""gone IS NOT NULL
            AND (src IN ({few}) OR dst IN ({few}) OR id IN (SELECT link FROM link_source WHERE source IN ({few})))
            AND (SELECT gone FROM item WHERE id = src) IS NULL AND (SELECT gone FROM item WHERE id = dst) IS NULL
            AND (NOT EXISTS (SELECT 1 FROM link_source WHERE link = link.id) OR EXISTS (
              SELECT 1 FROM link_source AS q JOIN item AS s ON s.id = q.source WHERE q.link = link.id AND s.gone IS NULL))"""
        db.execute(
            f"INSERT INTO link_past SELECT id, gone, ? FROM link WHERE gone < ? AND {back}",
            (now, now, *some, *some, *some),
        )
        db.execute(f"UPDATE link SET gone = NULL WHERE {back}", (*some, *some, *some))


def erase(db: Database, ids: Iterable[int], now: float) -> dict[int, bytes]:
    """Delete forgotten items for good: text, index, vectors, links, log details and logged queries that found them."""
    texts: dict[int, bytes] = {}
    erased: dict[int, list[int]] = {}  # scope -> ids
    for id_ in _with_orphans(db, ids):
        row = db.execute("SELECT scope, text, at, gone FROM item WHERE id = ?", (id_,)).fetchone()
        if row is None or row[3] is None:
            continue
        texts[id_] = row[1].encode("utf-8", "surrogatepass")
        postings.remove(db, row[0], id_, analysis.tokens(row[1], row[2]))
        db.execute("DELETE FROM item WHERE id = ?", (id_,))
        db.execute("DELETE FROM event WHERE first = ? AND last = ?", (id_, id_))
        db.execute("DELETE FROM state WHERE name = ?", (f"item:{id_}",))
        erased.setdefault(row[0], []).append(id_)
    for scope, gone in erased.items():  # one line for all: the log must not grow by what a budget takes away
        rows.event(db, "erase", now, scope=scope, first=min(gone), last=max(gone), detail={"items": len(gone)})
    for some in rows.batches(texts):  # whichever scope asked
        sql = (
            f"DELETE FROM asked WHERE EXISTS (SELECT 1 FROM json_each(asked.hits) WHERE value IN ({rows.marks(some)}))"
        )
        db.execute(sql, some)
    return texts


_KEEPERS = """SELECT p.item, p.source FROM provenance AS p JOIN item AS d ON d.id = p.item JOIN item AS s ON s.id = p.source
              WHERE p.item IN ({}) AND s.trust >= d.trust"""


def _with_orphans(db: Database, ids: Iterable[int]) -> list[int]:
    """Forgotten ids with the forgotten items that no other item vouches for; links that only they vouch for are deleted."""
    erasing: dict[int, None] = {}
    frontier = _gone(db, ids)
    while frontier:
        erasing |= dict.fromkeys(frontier)
        derived = _pairs(db, "SELECT item, source FROM provenance WHERE source IN ({})", frontier)
        sources: dict[int, set[int]] = {}
        for item, source in _pairs(db, _KEEPERS, {i for i, _ in derived}):
            sources.setdefault(item, set()).add(source)
        frontier = _gone(db, [item for item, of in sources.items() if item not in erasing and erasing.keys() >= of])
    vouched = {link for link, _ in _pairs(db, "SELECT link, source FROM link_source WHERE source IN ({})", erasing)}
    vouchers: dict[int, set[int]] = {}
    for link, source in _pairs(db, "SELECT link, source FROM link_source WHERE link IN ({})", vouched):
        vouchers.setdefault(link, set()).add(source)
    for some in rows.batches([link for link, of in vouchers.items() if erasing.keys() >= of]):
        db.execute(f"DELETE FROM link WHERE id IN ({rows.marks(some)})", some)
    return list(erasing)


def _gone(db: Database, ids: Iterable[int]) -> list[int]:
    """Those of the ids that are forgotten, in order."""
    wanted = list(dict.fromkeys(ids))
    gone = {id_ for some in rows.batches(wanted) for (id_,) in db.execute(
        f"SELECT id FROM item WHERE id IN ({rows.marks(some)}) AND gone IS NOT NULL", some)}  # fmt: skip
    return [id_ for id_ in wanted if id_ in gone]


def _pairs(db: Database, sql: str, ids: Iterable[int]) -> list[tuple[int, int]]:
    return [pair for some in rows.batches(ids) for pair in db.execute(sql.format(rows.marks(some)), some)]


def due(db: Database, before: float) -> list[int]:
    """Forgotten items whose restore window has passed; those in quarantine stay."""
    sql = "SELECT id FROM item WHERE gone IS NOT NULL AND gone <= ? AND held = 0"
    return [id_ for (id_,) in db.execute(sql, (before,))]


def verify(db: Database, raw: Iterable[tuple[str, bytes]], id_: int, text: bytes | None) -> Receipt:
    """Search every table for the id, and the files (name and chunk, again and again) for the text's bytes."""
    tables = tuple(_tables(db, id_))
    if text is None:
        return Receipt(id_, clean=not tables, tables=tables, text_known=False)
    pieces, found, scanned = list(_pieces(text)), dict[str, None](), 0
    for name, chunk in raw:
        scanned += len(chunk)
        if name not in found and any(piece in chunk and not db.says(piece) for piece in pieces):
            found[name] = None
    return Receipt(id_, clean=not tables and not found, tables=tables, files=tuple(found), scanned=scanned)


def _tables(db: Database, id_: int) -> Iterator[str]:
    for table, columns in (
        ("item", ("id",)), ("past", ("item",)), ("provenance", ("item", "source")), ("link", ("src", "dst")),
        ("link_source", ("source",)), ("vector", ("item",)),
    ):  # fmt: skip
        where = " OR ".join(f"{column} = {id_:d}" for column in columns)
        if db.execute(f"SELECT 1 FROM {table} WHERE {where} LIMIT 1").fetchone():
            yield table


def _pieces(text: bytes) -> Iterator[bytes]:
    """Fragments short enough to lie on one page most of the time; all of a short text."""
    if len(text) <= PIECE:
        if len(text) >= 4:
            yield text
        return
    for start in range(0, min(len(text), 1 << 16) - PIECE + 1, PIECE // 2):
        yield text[start : start + PIECE]

"""What becomes of items: the verbs of `Memory` that forget, bring back, and read the past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loci.core.clock import When, moment
from loci.records import forget, history, rows, undo
from loci.records.forget import Receipt
from loci.records.handle import Handle
from loci.records.history import Diff, Event
from loci.records.item import Ids, Item
from loci.records.undo import Undone


class Lifetime(Handle):
    """An open store whose items can be forgotten, restored, erased, and looked at as they were."""

    # --- forget ---------------------------------------------------------------------------------------------------

    def forget(self, ids: int | Sequence[int], *, scope: str | None = None, erase: bool = False) -> Ids:
        """Forget items and everything that was known only through them; returns all ids that went.

        They can be restored inside the window; `erase=True` leaves no window and no bytes. Ids must be live in the
        scope (ids and hits know theirs), else UnknownItem and nothing is forgotten.
        """
        ids, path = self._ids(ids, scope)
        with self._store.write() as db:
            self._flush(db)
            went = forget.tombstone(db, rows.scopes_under(db, path), ids, self._clock(), op="forget")
            if erase:
                self._erased.note(forget.erase(db, went, self._clock()))
        if erase and went:
            self._store.vacuum()
        return Ids(went, scope=path)

    def restore(self, ids: int | Sequence[int], *, scope: str | None = None) -> Ids:
        """Bring forgotten items back, with what went with them; UnknownItem once they are erased."""
        ids, path = self._ids(ids, scope)
        with self._store.write() as db:
            came = forget.restore(db, rows.scopes_under(db, path), ids, self._clock())
        return Ids(came, scope=path)

    # --- whose it is ----------------------------------------------------------------------------------------------

    def quarantine(self, *, principal: str | None = None, source: str | None = None, scope: str | None = None) -> Ids:
        """Hold everything from a principal, or a source, or both (each exactly as it was added), until it is released.

        Held items, and what was known only through them, are gone from every recall, but time does not erase them.
        Returns all ids that went; [] when nothing live came from there. What comes later is not held.
        """
        undo.checked(principal, source)
        path = self._scope(scope)
        with self._store.write() as db:
            self._flush(db)
            scopes = rows.scopes_under(db, path)
            live = [id_ for id_, (_, gone, _) in undo.of(db, scopes, principal, source).items() if gone is None]
            went = forget.tombstone(db, scopes, live, self._clock(), op="quarantine", held=True)
        return Ids(went, scope=path)

    def quarantined(self, *, scope: str | None = None) -> list[Item]:
        """The items of a scope that are held, by id."""
        path = self._scope(scope)
        with self._store.read(path) as db:
            scopes, found = rows.scopes_under(db, path), dict[int, Item]()
            for some in rows.batches(scopes):
                sql = f"SELECT id FROM item WHERE held = 1 AND gone IS NOT NULL AND scope IN ({rows.marks(some)})"
                found |= rows.items(db, [id_ for (id_,) in db.execute(sql, some)], scopes)
        return [found[id_] for id_ in sorted(found)]

    def release(self, ids: int | Sequence[int], *, scope: str | None = None) -> Ids:
        """Bring items back from quarantine, with what was held with them; UnknownItem for those that are not held."""
        ids, path = self._ids(ids, scope)
        with self._store.write() as db:
            came = forget.restore(db, rows.scopes_under(db, path), ids, self._clock(), held=True)
        return Ids(came, scope=path)

    def undo(
        self,
        *,
        principal: str | None = None,
        source: str | None = None,
        since: When | None = None,
        scope: str | None = None,
        erase: bool = False,
    ) -> Undone:
        """Forget everything from a principal or source, held or not, and undo what it did to other items.

        What was known only through it goes too; items that it had superseded hold again, as far as nobody else ended
        them; near duplicates merged into its items come back; words and worth that feedback gave its items go. since: only
        what was written then or later. erase: at once and for good. The items can be restored inside the window, the rest
        not. `as_of` reads the past as it was believed then.
        """
        undo.checked(principal, source)
        path, when = self._scope(scope), None if since is None else moment(since, name="since")
        with self._store.write() as db:
            self._flush(db)
            done = undo.undo(db, rows.scopes_under(db, path), principal, source, when, self._clock())
            texts = forget.erase(db, done.forgotten, self._clock()) if erase else {}
        self._erased.note(texts)
        if texts:
            self._store.vacuum()
        return replace(done, erased=len(texts))

    # --- the end --------------------------------------------------------------------------------------------------

    def verify_forgotten(self, id: int, *, text: str | None = None) -> Receipt:  # noqa: A002 - the field's word
        """Search the tables for an item and the files for its text; the text is known to the handle that erased it."""
        data = self._erased.texts.get(id) if text is None else text.encode("utf-8", "surrogatepass")
        self._store.checkpoint()
        with self._store.read() as db:
            return forget.verify(db, self._store.raw(overlap=forget.PIECE), id, data)

    def wipe(self, store: str) -> None:
        """Erase everything of every scope. `store` must be the store's own name (`memory.name`)."""
        if store != self.name:
            raise ValueError(f"store={store!r} is not the name of this store; read it from memory.name to wipe it")
        with self._store.write() as db:
            self._asked.clear()
            for table in ("posting", "vector", "link_source", "link_past", "link", "provenance", "past", "asked", "request", "state", "job", "item",
                          "event", "scope", "model"):  # fmt: skip
                db.execute(f"DELETE FROM {table}")
            rows.event(db, "wipe", self._clock())
        self._shelves.clear()
        self._store.vacuum()

    # --- time -----------------------------------------------------------------------------------------------------

    def history(self, id: int, *, scope: str | None = None) -> list[Event]:  # noqa: A002 - the field's word
        """What became of an item, oldest first."""
        ids, path = self._ids(id, scope)
        with self._store.read(path) as db:
            found = rows.items(db, ids, rows.scopes_under(db, path))
            self._all_there(ids, found)
            return history.history(db, rows.scope_id(db, found[id].scope), id)

    def diff(self, before: When, after: When, *, scope: str | None = None) -> Diff:
        """What became recallable and what ceased to be, between two times."""
        path = self._scope(scope)
        with self._store.read(path) as db:
            return history.diff(db, path, moment(before, name="before"), moment(after, name="after"))

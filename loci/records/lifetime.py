"""What becomes of items: the verbs of `Memory` that forget, bring back, and read the past."""

from __future__ import annotations

from collections.abc import Sequence

from loci.core.clock import When, moment
from loci.records import forget, history, rows
from loci.records.forget import Receipt
from loci.records.handle import Handle
from loci.records.history import Diff, Event
from loci.records.item import Ids


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
                self._erased.texts |= forget.erase(db, went, self._clock())
        if erase and went:
            self._store.vacuum()
        return Ids(went, scope=path)

    def restore(self, ids: int | Sequence[int], *, scope: str | None = None) -> Ids:
        """Bring forgotten items back, with what went with them; UnknownItem once they are erased."""
        ids, path = self._ids(ids, scope)
        with self._store.write() as db:
            came = forget.restore(db, rows.scopes_under(db, path), ids, self._clock())
        return Ids(came, scope=path)

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

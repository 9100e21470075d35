"""`Memory`: long-term memory in one file. Write, recall, learn, consolidate, forget."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from loci.core import clock as clocks
from loci.core import sizes
from loci.core.card import load
from loci.core.clock import Clock, When, moment
from loci.core.errors import ConflictError, LociError
from loci.core.ports import Embedder
from loci.records import analysis, calibrate, jobs, repeat, rows, trusts, vectors, write
from loci.records.consolidate import Report, consolidate
from loci.records.contradict import Proposal, propose
from loci.records.handle import DAY, TRIES, by_scope, item_of
from loci.records.item import KINDS, ORDINARY, Hit, Hits, Ids, Item, Link
from loci.records.jobs import Job
from loci.records.lifetime import Lifetime
from loci.records.pick import owner_first, pick, wider
from loci.records.scheme import Query, Scheme
from loci.records.scope import DEFAULT

_EMBED = 64
_NEAR = 50  # items in which contradictions are looked for


class Memory(Lifetime):
    """Long-term memory for agents in one file; many processes may hold it open.

    path: a file (made when new), ":memory:" for one that goes when closed, or the URL of a server; token: for a server.
    scope: the scope of calls that name none; a scope sees what is at or under it.
    scheme: how to write and recall, by catalogue name (`loci list scheme`) or as an object.
    embedder: None (lexical and graph only), "hash", "minilm" or an Embedder; `previous` serves while a new one embeds.
    background: after a change of model (`previous` is given) embed what is there in a thread of its own.
    restore_window: seconds for which a forgotten item can be restored. budget: bytes that `add` may not pass.
    Raises NotAStore, ReadOnly, StorageFull, Busy as drawn in `loci.core.errors`.

    >>> with Memory(":memory:") as memory:
    ...     ids = memory.add("Ana adopted a kitten", at="2023-05-03", scope="acme/ana", source="chat#12")
    ...     [hit.item.text for hit in memory.recall("what pet does Ana have?", scope="acme")]
    ['Ana adopted a kitten']
    """

    def __new__(cls, path: str | os.PathLike[str], *args: Any, **given: Any) -> Self:
        """A memory here; for an http:// or https:// URL one on a server, with the same face."""
        if cls is Memory and isinstance(path, str) and path.startswith(("http://", "https://")):
            return load("loci.records.remote:connect")(path, *args, **given)  # type: ignore[no-any-return]
        return super().__new__(cls)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        token: str | None = None,
        scope: str = DEFAULT,
        scheme: str | Scheme = "loci",
        embedder: str | Embedder | None = None,
        previous: str | Embedder | None = None,
        clock: Clock = clocks.system,
        restore_window: float = 30 * DAY,
        budget: int | str | None = None,
        log_queries: bool = True,
        background: bool = True,
    ) -> None:
        if token is not None:
            raise ValueError(f"token= was given for {str(path)!r}; only a server (http:// or https://) takes a token")
        super().__init__(
            path, scope=scope, scheme=scheme, embedder=embedder, previous=previous, clock=clock,
            restore_window=restore_window, budget=budget, log_queries=log_queries,
        )  # fmt: skip

        if background and self.embedder is not None and previous is not None:
            self._start(self._embed_rest)

    # --- write ---------------------------------------------------------------------------------------------------

    def add(
        self,
        what: str | Item | Iterable[str | Item],
        *,
        scope: str | None = None,
        at: When | None = None,
        since: When | None = None,
        until: When | None = None,
        known: When | None = None,
        session: str | None = None,
        source: str | None = None,
        principal: str | None = None,
        trust: int | str = ORDINARY,
        kind: str = "episode",
        pinned: bool = False,
        meta: Mapping[str, Any] | None = None,
        supersedes: Sequence[int] = (),
        once: str | None = None,
    ) -> Ids:
        """Remember texts or items, verbatim; on the disk and searchable when it returns. All of a call or nothing.

        at: when it happened; since/until: when it holds; known: when it became known (default now: an import of old
        talk may say so, and only then does `as_of` see it in the past). session: items of one session are
        neighbours. principal: who said it; trust: "untrusted" (web pages, documents, tools), "ordinary" or "owner".
        supersedes: live items at or under the scope, whose validity ends where
        this begins (`since`, else `at`, else now). once: a key; the same call again within a week adds
        nothing and returns the first ids, so that a caller who lost the answer may repeat it.
        Returns the new ids with their scope. Raises ValueError and TypeError for what cannot be kept.
        """
        path = self._scope(scope)
        if once is not None:
            repeat.check(once)
        common = {
            "kind": kind, "session": session, "source": source, "pinned": pinned, "meta": dict(meta or {}),
            "principal": principal, "trust": trusts.level(trust),
            **{name: None if t is None else moment(t, name=name)
               for name, t in (("at", at), ("since", since), ("until", until), ("known", known))},
        }  # fmt: skip
        new = [item_of(one, path, common) for one in ([what] if isinstance(what, str | Item) else what)]
        ids = self._put(path, new, supersedes, once) if new else None
        if ids and len(ids) == len(new):  # a repeated key may come with another call
            self._derive(new, ids)
        return Ids(ids or (), scope=path)

    def _put(self, path: str, new: Sequence[Item], supersedes: Sequence[int], once: str | None) -> list[int]:
        """Keep checked items in one transaction; the ids of the first call when it was made before under the key."""
        tokens = [analysis.tokens_of(item) for item in new]
        now = self._clock()
        if early := next((item.known for item in new if item.known is not None and item.known > now), None):
            raise ValueError(
                f"known={early} lies in the future; give the time at which it became known, or leave it out"
            )
        with self._store.write(path) as db:
            if once is not None and (told := repeat.told(db, rows.scope_id(db, path), once)) is not None:
                return told
            ids: list[int] = []
            for of, places in by_scope(new):
                row = rows.scope_id(db, of)
                some = [new[place] for place in places]
                self._check_sources(db, path, some)
                ids += write.insert(db, row, some, [tokens[place] for place in places], now, op="add")
                if not self.scheme.local:
                    jobs.put(db, "write", row, {"first": ids[-len(some)], "last": ids[-1]}, len(some), now)
            if supersedes:
                ends = new[0].since if new[0].since is not None else new[0].at if new[0].at is not None else now
                ended = dict.fromkeys(supersedes, ends)
                trusts.may_end(db, ended, ids)
                write.close(db, rows.scopes_under(db, path), ended, now, by=ids)
            if once is not None:
                repeat.keep(db, rows.scope_id(db, path), once, ids, now)
            self._check_budget(db)
        return ids

    def contradictions(self, id: int, *, scope: str | None = None) -> list[Proposal]:  # noqa: A002 - the field's word
        """Live items that an item may supersede, by rule: the same functional relation of the same subject. Only proposed."""
        ids, path = self._ids(id, scope)
        (new,) = self.get(ids, scope=path)
        with self._store.read(path) as db:
            view = self._view(db, path)
            near = view.items(view.top(view.lexical(new.text), _NEAR).tolist())
        return propose(new, near)

    def link(self, src: int, rel: str, dst: int, *, weight: float = 1.0, scope: str | None = None) -> int:
        """Relate two live items of a scope; returns the link's id."""
        path = self._scope(scope)
        now = self._clock()
        with self._store.write(path) as db:
            live = {
                id_: item
                for id_, item in rows.items(db, {src, dst}, rows.scopes_under(db, path)).items()
                if item.gone is None
            }
            self._all_there([src, dst], live)
            return write.link(db, rows.scope_id(db, path), [Link(src=src, rel=rel, dst=dst, weight=weight)], now)[0]

    def _derive(self, new: Sequence[Item], ids: Sequence[int]) -> None:
        """What follows from new items and is fast: the scheme's own write, then vectors."""
        if self.scheme.local and self._derives():
            for of, places in by_scope(new):
                self._write_scheme(of, [ids[place] for place in places])
        if self.embedder is not None:
            self.embed(after=ids[0] - 1)

    def embed(self, *, limit: int | None = None, after: int = 0) -> int:
        """Give live items (with ids above `after`) a vector of the present embedder; how many it made.

        Each batch is kept at once. `add` embeds what it adds; after a change of model this does the rest, while the vectors
        of `previous` go on serving.
        """
        made = 0
        while self.embedder is not None and (limit is None or made < limit):
            with self._store.read() as db:
                some = vectors.pending(db, vectors.model_id(db, self.embedder), _EMBED, after)
            if not some:
                break
            rows_ = self.embedder.embed([text for _, text in some])
            with self._store.write() as db:
                vectors.put(db, vectors.register(db, self.embedder), [id_ for id_, _ in some], rows_)
            made, after = made + len(some), some[-1][0]
        if made and after > vectors.EXACT and self.embedder is not None:
            self._store.index_vectors(self.embedder.dim)
        return made

    def _embed_rest(self) -> None:
        with contextlib.suppress(LociError):  # an embedder that is away: `embed` tells why, and goes on from there
            while not self._stop.is_set() and self.embed(limit=_EMBED):
                pass

    def work(self) -> list[Job]:
        """Run the waiting jobs of every scope (a scheme that calls a model, vectors); returns those still waiting."""
        for job in self.jobs(scope="/", waiting=True):
            try:
                self._write_scheme(job.scope, range(job.detail["first"], job.detail["last"] + 1))
            except Exception as error:  # noqa: BLE001 - a job that fails is kept with its reason
                with self._store.write() as db:
                    jobs.fail(db, job.id, f"{type(error).__name__}: {error}")
                continue
            with self._store.write() as db:
                jobs.advance(db, job.id, job.total, self._clock())
        if self.embedder is not None:
            self.embed()
        return self.jobs(scope="/", waiting=True)

    def jobs(self, *, scope: str | None = None, waiting: bool = False) -> list[Job]:
        """Slow work of a scope: what is waiting, how far it is, why it stands still."""
        path = self._scope(scope)
        with self._store.read(path) as db:
            return jobs.find(db, list(rows.scopes_under(db, path)), waiting=waiting)

    # --- recall --------------------------------------------------------------------------------------------------

    def recall(
        self,
        query: str,
        k: int = 5,
        *,
        scope: str | None = None,
        as_of: When | None = None,
        max_tokens: int | None = None,
        kinds: Sequence[str] | None = None,
    ) -> Hits:
        """The k live items that answer a query best, best first, each with the parts of its score.

        as_of reads the past: items and links that were known, live and held then. max_tokens keeps the best hits
        whose texts fit a prompt (4 characters a token). kinds: only these. Near duplicates come once.
        Untrusted items stand behind trusted ones (docs/trust.md).
        `hits.known` is the probability that the answer is in memory at all, told by its trusted items where it has any.
        """
        if not isinstance(query, str):
            raise TypeError(f"query is a {type(query).__name__}; give the question as text")
        if isinstance(k, bool) or not isinstance(k, int) or k < 0:
            raise ValueError(f"k={k!r} is not a number of hits; give an int of at least 0")
        if kinds is not None and (unknown := set(kinds) - set(KINDS)):
            raise ValueError(f"kinds has {sorted(unknown)}; choose from {', '.join(KINDS)}")
        path = self._scope(scope)
        query = query.encode("utf-8", "replace").decode()  # a lone surrogate could not be logged
        now = self._clock() if as_of is None else moment(as_of, name="as_of")
        with self._turns, self._store.read(path) as db:
            view = self._view(db, path, as_of=None if as_of is None else now, kinds=kinds)
            wanted = Query(text=query, k=wider(k), now=now, kinds=None if kinds is None else tuple(kinds))
            found = self.scheme.recall(wanted, view) if k and len(view) else []
            trusted = view.trusted()
            untrusted: list[Hit] = []
            if trusted is not None and k:
                untrusted = [hit for hit in found if hit.item.trust < ORDINARY]
                found = self.scheme.recall(wanted, trusted) or untrusted
            belief = calibrate.known(query, view if trusted is None else trusted)
        chosen = pick(owner_first(query, found), k, max_tokens, untrusted=untrusted)
        hits = Hits(chosen, query=query, scope=path, known=belief.known, threshold=belief.threshold, error=belief.error)
        if self._log_queries and as_of is None and chosen:
            self._log(path, now, hits)
        return hits

    def get(self, ids: int | Sequence[int], *, scope: str | None = None) -> list[Item]:
        """Live items by id, in the order asked. Raises UnknownItem when one is not live in the scope."""
        ids, path = self._ids(ids, scope)
        with self._store.read(path) as db:
            found = {i: x for i, x in rows.items(db, ids, rows.scopes_under(db, path)).items() if x.gone is None}
        self._all_there(ids, found)
        return [found[id_] for id_ in ids]

    def items(self, *, scope: str | None = None, as_of: When | None = None) -> list[Item]:
        """Every live item of a scope, by id; with as_of, as it was."""
        path = self._scope(scope)
        with self._store.read(path) as db:
            return self._view(db, path, as_of=None if as_of is None else moment(as_of, name="as_of")).every()

    def links(self, ids: int | Sequence[int], *, scope: str | None = None, as_of: When | None = None) -> list[Link]:
        """Live links around items; with as_of, as they were."""
        ids, path = self._ids(ids, scope)
        with self._store.read(path) as db:
            return self._view(db, path, as_of=None if as_of is None else moment(as_of, name="as_of")).links(ids)

    def count(self, *, scope: str | None = None) -> int:
        """How many live items a scope holds now."""
        path = self._scope(scope)
        with self._store.read(path) as db:
            return len(self._view(db, path))

    # --- learn, sleep ---------------------------------------------------------------------------------------------

    def learn(self, hits: Hits, reward: float) -> None:
        """Tell how useful hits were, reward in [-1, 1]: give the useful ones alone (`hits.only(ids)`) with reward 1.

        The scheme's policy changes and is kept in the file. Hits whose items went meanwhile are left out.
        """
        if not isinstance(hits, Hits):
            raise TypeError(f"hits is a {type(hits).__name__}; give the Hits that recall returned, or hits.only(ids)")
        if isinstance(reward, bool) or not isinstance(reward, int | float) or not -1 <= reward <= 1:
            raise ValueError(f"reward={reward!r} is outside [-1, 1]; give -1 for harmful, 0 for useless, 1 for useful")
        with self._learning:  # praise moves the same numbers: threads of one memory would only refuse each other's
            for turn in range(TRIES):
                try:
                    self._praise(hits, float(reward))
                    return
                except ConflictError:
                    if turn == TRIES - 1:
                        raise

    def _praise(self, hits: Hits, reward: float) -> None:
        """One try to learn; ConflictError when another process moved the items meanwhile."""
        with self._store.read(hits.scope) as db:
            view = self._view(db, hits.scope)
            live = view.get(hit.item.id for hit in hits)
            kept = Hits((replace(hit, item=live[hit.item.id]) for hit in hits
                         if hit.item.id in live and live[hit.item.id].gone is None),
                        query=hits.query, scope=hits.scope, known=hits.known)  # fmt: skip
            changes = self.scheme.learn(kept, reward, view)
        with self._store.write() as db:
            self._flush(db)
            self._apply(db, hits.scope, changes, view.version, op="learn")
            db.execute(
                """UPDATE asked SET reward = ?, hits = ?
                   WHERE id = (SELECT max(id) FROM asked WHERE query = ? AND scope = ?)""",
                (reward, json.dumps(list(kept.ids)), hits.query, rows.scope_id(db, hits.scope)),
            )

    def consolidate(self, *, budget: int | str | None = None, scope: str | None = None) -> Report:
        """Sleep: merge, link, forget within bytes; what would hurt recall of past questions is not committed."""
        limit = self._budget if budget is None else sizes.parse(budget)
        return consolidate(self, self._scope(scope), limit)

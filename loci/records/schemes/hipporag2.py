"""HippoRAG 2: passages and the phrases of their facts in one graph, walked from what the question calls up.

    s_f = minmax(F e_q), the 5 best facts pass a recognition filter                          (query to triple)
    seed_v = mean over kept facts of v of s_f / |passages with v|, the 5 best phrases
    seed_p = 0.05 minmax(P e_q) over all passages
    r = (1 - d) seed + d A^T r, d = 0.5; passages are ranked by r

Paper: Gutierrez et al., "From RAG to Memory", arXiv:2502.14802, sec. 3.
Differs: facts are embedded as "subject relation object"; without an embedder BM25 stands for the encoder and there are no
synonym edges; the recognition filter is a callable, by default lexical (a fact that shares a word with the question),
where the paper asks a language model. Relation and synonym edges count twice against context edges, as in the official
code (`both`). Triples come from the item (`meta["triples"]`), from a language model, or from rules.
Keeps: the facts and phrases as items with their provenance, so that forgetting a passage forgets what only it said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from loci.core.card import method
from loci.core.ports import F32, I64, LLM
from loci.records import analysis, extract
from loci.records.graph import visits
from loci.records.item import Hit, Item
from loci.records.ledger import F64
from loci.records.openie import openie
from loci.records.scheme import Changes, New, Plain, Query
from loci.records.view import View

SYNONYM = 0.8  # cosine from which two phrases are synonyms
NEIGHBOURS = 100  # synonyms of one phrase at most
FACTS = 5
PHRASES = 5
PASSAGE = 0.05
DAMPING = 0.5

Keep = Callable[[str, Sequence[str]], Sequence[int]]  # question, facts -> places of the facts that matter


def shares_a_word(question: str, facts: Sequence[str]) -> list[int]:
    """The lexical recognition filter: facts that share a content word with the question."""
    asked = set(analysis.query_tokens(question))
    return [at for at, fact in enumerate(facts) if asked & set(analysis.tokens(fact))]


@dataclass(slots=True)
class Graph:
    """Nodes are entities, then passages; arcs both ways. `of` tells which passages hold an entity."""

    entities: I64  # places (N_e,)
    passages: I64  # places (N_p,)
    facts: I64  # places (N_f,)
    texts: list[str]  # of the facts
    ends: I64  # (N_f, 2) nodes of subject and object
    spread: I64  # (N_e,) how many passages hold a phrase
    src: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    dst: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    weight: F64 = field(default_factory=lambda: np.empty(0))

    @property
    def nbytes(self) -> int:
        """Bytes of the arcs: two int64 and one float64 each."""
        return self.src.nbytes + self.dst.nbytes + self.weight.nbytes


@method(
    name="hipporag2",
    kind="scheme",
    title="From RAG to Memory: Non-Parametric Continual Learning for Large Language Models",
    paper="arXiv:2502.14802",
    says="finds passages two or three facts away without losing the plain look-ups",
    bytes="2*d*(P + E + F) + 24*A",
)
class HippoRAG2(Plain):
    """Passages through a graph of facts.

    >>> from loci import Memory
    >>> with Memory(":memory:", scheme="hipporag2") as memory:
    ...     ids = memory.add(["Ana Ruiz works for Acme.", "Acme is located in Lyon.", "Bo likes tea."])
    ...     [hit.item.text for hit in memory.recall("Where is the employer of Ana Ruiz located?", k=2)]
    ['Ana Ruiz works for Acme.', 'Acme is located in Lyon.']
    """

    name = "hipporag2"

    def __init__(self, llm: LLM | None = None, *, keep: Keep = shares_a_word, both: float = 2.0) -> None:
        self.llm = llm
        self.local = llm is None
        self.keep = keep
        self.both = both

    # --- write: facts and phrases, each with the passages that say so -----------------------------------------------

    def write(self, new: Sequence[Item], view: View) -> Changes:
        """Extract triples; a fact or phrase that is there gets one more source."""
        said: dict[tuple[str, str], list[int]] = {}  # (kind, text) -> passages
        ends: dict[str, tuple[str, str, str]] = {}
        for item in new:
            if item.kind in ("fact", "entity"):
                continue
            for triple in self._triples(item):
                fact = " ".join(triple)
                ends[fact] = triple
                for key in (("fact", fact), ("entity", triple[0]), ("entity", triple[2])):
                    passages = said.setdefault(key, [])
                    if item.id not in passages:
                        passages.append(item.id)
        there = {kind: view.named(kind, (text for of, text in said if of == kind)) for kind in ("fact", "entity")}
        put: list[New] = []
        vouch: dict[int, list[int]] = {}
        for (kind, text), passages in said.items():
            if text in there[kind]:
                vouch[there[kind][text]] = passages
                continue
            meta = {"triple": list(ends[text])} if kind == "fact" else {}
            derived = Item(text=text, kind=kind, scope=view.scope, sources=tuple(passages), meta=meta)
            put.append(New(-1 - len(put), derived))
        return Changes(put=put, vouch=vouch)

    def _triples(self, item: Item) -> list[extract.Triple]:
        given = item.meta.get("triples")
        if given is None and self.llm is not None:
            given = openie(self.llm, item.text)
        if given is None:
            return extract.triples(item.text, item.meta.get("title"))
        cleaned = [tuple(analysis.clean(str(part)) for part in triple) for triple in given if len(triple) == 3]
        return [(s, p, o) for s, p, o in cleaned if s and o and s != o]

    # --- recall -----------------------------------------------------------------------------------------------------

    def recall(self, query: Query, view: View) -> list[Hit]:
        """The k passages that a walk from facts and passages visits most; dense order when no fact is recognised."""
        graph: Graph = view.built(f"hipporag2 {self.both}", lambda: self.graph(view))
        near = _similarity(view, query.text)
        kept = self._recognised(query.text, graph, near)
        passages = near[graph.passages]
        if not len(kept):
            best = graph.passages[np.lexsort((graph.passages, -passages))[: query.k]]
            whys = [{"similarity": float(near[place])} for place in best]
        else:
            by_fact, by_passage = self.walk(graph, kept, _minmax(near[graph.facts])[kept], _minmax(passages))
            r = (by_fact + by_passage)[len(graph.entities) :]
            order = np.lexsort((graph.passages, -r))[: query.k]
            best = graph.passages[order]
            at = order + len(graph.entities)
            whys = [{"facts": float(by_fact[i]), "passages": float(by_passage[i])} for i in at]
        return [Hit(item, sum(why.values()), why) for item, why in zip(view.items(best.tolist()), whys, strict=True)]

    def _recognised(self, question: str, graph: Graph, near: F64) -> I64:
        scores = near[graph.facts]
        order = np.lexsort((graph.facts, -scores))[:FACTS]
        order = order[scores[order] > 0]
        chosen = self.keep(question, [graph.texts[at] for at in order])
        return order[np.array(sorted(set(chosen)), np.int64)] if len(chosen) else np.empty(0, np.int64)

    def walk(self, graph: Graph, kept: I64, scores: F64, passages: F64) -> tuple[F64, F64]:
        """PageRank (N_e + N_p,) in two parts that sum to it: what came from facts, what from passages."""
        n = len(graph.entities)
        phrase = np.zeros(n + len(graph.passages))
        phrase[:n] = seeds(graph, kept, scores)
        passage = np.zeros_like(phrase)
        passage[n:] = PASSAGE * passages
        by_fact, by_passage = (
            visits(graph.src, graph.dst, graph.weight, reset, damping=DAMPING) for reset in (phrase, passage)
        )
        total = by_fact.sum() + by_passage.sum()
        return by_fact / total, by_passage / total

    def graph(self, view: View) -> Graph:
        """Build nodes and arcs from the live facts, phrases and passages of a view."""
        facts, entities = view.places("fact"), view.places("entity")
        derived, sources = view.provenance()
        kinds = view.ledger.kind
        others = view.live & ~np.isin(np.arange(len(kinds)), np.concatenate([facts, entities]))
        passages = np.flatnonzero(others)
        node = np.full(len(kinds), -1, np.int64)
        node[entities] = np.arange(len(entities))
        node[passages] = len(entities) + np.arange(len(passages))
        of_fact = np.isin(derived, facts)
        of_entity = np.isin(derived, entities)
        items = view.items(facts.tolist())
        named = dict(zip(view.texts(entities.tolist()), range(len(entities)), strict=True))
        ends = np.array(
            [[named.get(item.meta["triple"][0], -1), named.get(item.meta["triple"][2], -1)] for item in items], np.int64
        )
        ends = ends.reshape(-1, 2)
        spread = np.bincount(node[derived[of_entity]], minlength=len(entities)).astype(np.int64)
        graph = Graph(entities, passages, facts, [item.text for item in items], ends, spread)
        said = np.bincount(np.searchsorted(facts, derived[of_fact]), minlength=len(facts))
        pairs: dict[tuple[int, int], float] = {}
        for (s, o), times in zip(ends.tolist(), said.tolist(), strict=True):
            if s >= 0 and o >= 0 and s != o:
                key = (min(s, o), max(s, o))
                pairs[key] = pairs.get(key, 0.0) + self.both * times
        for a, b, cosine in _synonyms(view, entities):  # a synonym overwrites what relations said, as in the code
            pairs[a, b] = self.both * cosine
        context = np.stack([node[derived[of_entity]], node[sources[of_entity]]], 1)
        edges = np.concatenate([np.array(list(pairs), np.int64).reshape(-1, 2), context])
        weight = np.concatenate([np.array(list(pairs.values())), np.ones(len(context))])
        graph.src = np.concatenate([edges[:, 0], edges[:, 1]])
        graph.dst = np.concatenate([edges[:, 1], edges[:, 0]])
        graph.weight = np.concatenate([weight, weight])
        return graph


def seeds(graph: Graph, kept: I64, scores: F64) -> F64:
    """Weights of phrases (N_e,): the mean over kept facts of s_f / |passages with v|; the 5 best stay."""
    total, times = np.zeros(len(graph.entities)), np.zeros(len(graph.entities))
    for fact, score in zip(kept.tolist(), scores.tolist(), strict=True):
        for v in set(graph.ends[fact].tolist()) - {-1}:
            total[v] += score / max(int(graph.spread[v]), 1)
            times[v] += 1
    mean = np.divide(total, times, out=np.zeros_like(total), where=times > 0)
    best = np.lexsort((np.arange(len(mean)), -mean))[:PHRASES]
    kept_only = np.zeros_like(mean)
    kept_only[best] = mean[best]
    return kept_only


def _similarity(view: View, text: str) -> F64:
    """Cosine of every item with a text; BM25 where there is no embedder."""
    cosine = view.dense(text)
    return view.lexical(text) if cosine is None else cosine.astype(np.float64)


def _minmax(values: F64) -> F64:
    """Scaled to [0, 1]; all ones when they do not differ, as in the official code."""
    if not len(values):
        return values
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.ones_like(values)


def _synonyms(view: View, entities: I64) -> list[tuple[int, int, float]]:
    """Pairs of phrases with cosine of at least SYNONYM, each phrase with at most NEIGHBOURS; short phrases have none."""
    matrix = view.matrix()
    if matrix is None or not len(entities):
        return []
    long = np.array([sum(c.isalnum() for c in text) > 2 for text in view.texts(entities.tolist())])
    rows: F32 = matrix.rows[entities] * long[:, None]
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(rows), 1024):
        near = rows[start : start + 1024] @ rows.T
        for a, cosines in enumerate(near, start=start):
            at = np.flatnonzero(cosines >= SYNONYM)
            at = at[at != a]
            for b in at[np.argsort(-cosines[at], kind="stable")[:NEIGHBOURS]].tolist():
                found[min(a, b), max(a, b)] = float(cosines[b])
    return [(a, b, cosine) for (a, b), cosine in found.items()]

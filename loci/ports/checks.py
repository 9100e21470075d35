"""The laws of the ports: what every embedder, index and language model keeps, whoever wrote it.

A law is a function `law(make)`; `make()` builds a fresh instance, and AssertionError says what is broken. The index
laws bring their own seeded vectors, the model laws ask one question several times and read whatever comes.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from loci.core.checking import Law, Make, refused
from loci.core.errors import LLMError
from loci.core.ports import F32, I64, Completion, Embedder, Index
from loci.core.rng import generator
from loci.ports.answers import mismatch

BATCH = 1e-5  # a text alone and in a batch: padding changes the order of float32 sums
SCORE = 1e-2  # a score and the inner product of unit vectors: leaves room for vectors kept in half precision
RECALL = 0.95  # share of the true ten nearest that an index must find
TEXTS = ["Ana adopted a kitten", "the price of shares fell", "naïve café, 猫と犬 🐈", "a", "so it goes " * 40]
SCHEMA = {
    "type": "object",
    "properties": {"pet": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["pet", "age"],
    "additionalProperties": False,
}
ASK = [{"role": "user", "content": "Ana adopted a kitten two years ago. Which pet, and how old? Answer in JSON."}]
TURNS = 8


def gives_one_float32_row_per_text(make: Make) -> None:
    """Rows are (N, dim) float32, also for no text at all."""
    embedder: Embedder = make()
    for texts in (TEXTS, TEXTS[:1], []):
        rows = embedder.embed(texts)
        asked = (len(texts), embedder.dim)
        assert rows.shape == asked, f"{len(texts)} texts gave rows of shape {rows.shape}, not {asked}"
        assert rows.dtype == np.float32, f"rows are {rows.dtype}, not float32"


def rows_have_length_one(make: Make) -> None:
    """A row has length 1, or is zero for a blank text; nothing else is zero, nan or inf."""
    rows = make().embed([*TEXTS, "", " \n"])
    length = np.linalg.norm(rows, axis=1)
    assert np.allclose(length[: len(TEXTS)], 1.0, atol=1e-4), f"texts gave rows of length {length.tolist()}"
    blank = length[len(TEXTS) :]
    assert (np.isclose(blank, 1.0, atol=1e-4) | (blank == 0)).all(), f"blank texts gave lengths {blank.tolist()}"


def batch_equals_singles(make: Make) -> None:
    """A text gets the same row alone, in a batch and in another order, blank ones between, within 1e-5."""
    embedder: Embedder = make()
    texts = [*TEXTS[:2], "", *TEXTS[2:]]
    singles = np.concatenate([embedder.embed([text]) for text in texts])
    for name, rows in (("batch", embedder.embed(texts)), ("order", embedder.embed(texts[::-1])[::-1])):
        apart = float(np.abs(rows - singles).max())
        assert apart <= BATCH, f"a row changes by {apart:.2g} with its {name}"


def same_text_same_row(make: Make) -> None:
    """Two instances and two calls agree, within 1e-5: vectors of yesterday can be compared with those of today."""
    embedder, other = make(), make()
    first = embedder.embed(TEXTS)
    for rows in (embedder.embed(TEXTS), other.embed(TEXTS)):
        assert np.abs(rows - first).max() <= BATCH, "the same texts gave other rows"


def other_text_other_row(make: Make) -> None:
    """Different texts are told apart, and a text is nearest to itself."""
    rows = make().embed(TEXTS)
    near = rows @ rows.T - 2 * np.eye(len(rows), dtype=np.float32)
    assert near.max() < 1 - 1e-3, f"two different texts have cosine {near.max():.4f}"


def embeds_any_text(make: Make) -> None:
    """Control characters, right-to-left, joined emoji and halves of a surrogate pair give finite rows."""
    odd = ["\x00\x07", "שלום עולם", "👩‍👩‍👧‍👦", "\ud83d", "﷽" * 50, "z͑̾ͅa̷l̴g̵o̶", "\n\t", "!!!"]
    rows = make().embed(odd)
    assert rows.shape[0] == len(odd), f"{len(odd)} texts gave {rows.shape[0]} rows"
    assert np.isfinite(rows).all(), "an odd text gave nan or inf"


def key_is_stable(make: Make) -> None:
    """Name, dim and version are the same before and after use and in every instance: a store keys vectors by them."""
    keys = []
    for embedder in (make(), make()):
        keys.append((embedder.name, embedder.dim, embedder.version))
        embedder.embed(TEXTS[:2])
        keys.append((embedder.name, embedder.dim, embedder.version))
    assert len(set(keys)) == 1, f"the key changes: {keys}"
    name, dim, version = keys[0]
    assert isinstance(name, str), f"name {name!r} is not text"
    assert isinstance(version, str), f"version {version!r} is not text"
    assert isinstance(dim, int), f"dim {dim!r} is not a whole number"
    assert name, "name is empty"


def one_string_is_refused(make: Make) -> None:
    """A bare string is a TypeError, not one row per letter."""
    refused(lambda: make().embed("a kitten"), kind=TypeError)


def finds_the_true_nearest(make: Make) -> None:
    """Of the true ten nearest at least 95 % are found, over clustered vectors."""
    index: Index = make()
    ids, vectors = _clusters(index.dim)
    index.add(ids, vectors)
    _assert_recall(index, ids, vectors)


def churn_keeps_the_nearest(make: Make) -> None:
    """The same after 30 % were removed, before and after they come back, three times over."""
    index: Index = make()
    ids, vectors = _clusters(index.dim)
    index.add(ids, vectors)
    for turn in range(3):
        gone = generator(turn, "churn").permutation(len(ids)) < 0.3 * len(ids)
        index.remove(ids[gone])
        _assert_recall(index, ids[~gone], vectors[~gone])
        index.add(ids[gone], vectors[gone])
        _assert_recall(index, ids, vectors)


def own_vector_is_first(make: Make) -> None:
    """An item asked for by its own vector comes first."""
    index: Index = make()
    ids, vectors = _clusters(index.dim)
    index.add(ids, vectors)
    missed = [int(id_) for id_, row in zip(ids, vectors, strict=True) if _first(index, row) != id_]
    assert len(missed) <= (1 - RECALL) * len(ids), f"{len(missed)} of {len(ids)} items are not first for themselves"


def scores_are_inner_products(make: Make) -> None:
    """Scores are inner products within 1e-2, best first; ids are int64, unique, and scores float32."""
    index: Index = make()
    ids, vectors = _clusters(index.dim)
    index.add(ids, vectors)
    at = {int(id_): place for place, id_ in enumerate(ids)}
    for query in vectors[:40]:
        found, scores = index.search(query, 20)
        assert found.dtype == np.int64, f"ids are {found.dtype}"
        assert scores.dtype == np.float32, f"scores are {scores.dtype}"
        assert len(found) == len(scores) == len(set(found.tolist())) == 20, f"asked 20, found {found.tolist()}"
        assert (np.diff(scores) <= 0).all(), f"scores rise: {scores.tolist()}"
        true = vectors[[at[id_] for id_ in found.tolist()]] @ query
        assert np.abs(true - scores).max() <= SCORE, f"scores are {np.abs(true - scores).max():.3f} off"


def removed_is_never_returned(make: Make) -> None:
    """What was removed does not come back, asked by its own vector, with k of everything, after more was added."""
    index: Index = make()
    ids, vectors = _clusters(index.dim, 120)
    index.add(ids[:80], vectors[:80])
    index.remove(ids[:40])
    index.add(ids[80:], vectors[80:])
    for query in vectors[:40]:
        back = np.intersect1d(index.search(query, 120)[0], ids[:40])
        assert not len(back), f"removed ids came back: {back.tolist()}"


def same_id_replaces(make: Make) -> None:
    """Adding an id again moves it, and of an id twice in one call the last vector holds."""
    index: Index = make()
    ids, vectors = _clusters(index.dim, 20)
    index.add(ids, vectors)
    index.add(ids[:1], -vectors[1:2])
    index.add(ids[[2, 2]], np.stack([vectors[3], -vectors[4]]))
    assert len(index) == len(ids), f"replacing changed the number of items to {len(index)}, not {len(ids)}"
    for place, query in ((0, -vectors[1]), (2, -vectors[4])):
        found, scores = index.search(query, len(ids))
        assert found[0] == ids[place], f"a replaced id is found at its old vector: {found[0]} is first"
        assert abs(scores[0] - 1) <= SCORE, f"a replaced id scores {scores[0]:.3f} at its new vector"
        assert (found == ids[place]).sum() == 1, "a replaced id is found twice"


def k_may_exceed_len(make: Make) -> None:
    """More than there is gives all there is."""
    index: Index = make()
    ids, vectors = _clusters(index.dim, 20)
    index.add(ids, vectors)
    found = index.search(vectors[0], 1000)[0]
    assert sorted(found.tolist()) == sorted(ids.tolist()), f"20 items, k=1000 gave {len(found)}"


def nothing_gives_nothing(make: Make) -> None:
    """An empty index, k of 0, and empty arrays are no special case; nor is an index that was emptied."""
    index: Index = make()
    ids, vectors = _clusters(index.dim, 5)
    none = (np.empty(0, np.int64), np.empty((0, index.dim), np.float32))
    index.add(*none)
    assert index.remove(none[0]) == 0, "removing nothing counted something"
    assert len(index.search(vectors[0], 3)[0]) == 0, "an empty index found something"
    index.add(ids, vectors)
    assert len(index.search(vectors[0], 0)[1]) == 0, "k=0 found something"
    index.remove(ids)
    found, scores = index.search(vectors[0], 3)
    assert len(found) == len(scores) == len(index) == 0, "an emptied index found something"
    index.add(ids, vectors)
    assert _first(index, vectors[3]) == ids[3], "an emptied index does not fill again"


def len_counts(make: Make) -> None:
    """`len` counts what is there and `remove` what it dropped, unknown and repeated ids not."""
    index: Index = make()
    ids, vectors = _clusters(index.dim, 10)
    index.add(ids, vectors)
    dropped = index.remove(np.array([ids[0], ids[1], ids[1], 10**12]))
    assert dropped == 2, f"removed {dropped} where 2 were there"
    assert len(index) == 8, f"len is {len(index)} where 8 are left"


def what_was_given_is_copied(make: Make) -> None:
    """Writing into the arrays after `add` changes nothing, and `add` does not write into them."""
    index: Index = make()
    ids, vectors = _clusters(index.dim, 20)
    given, rows = ids.copy(), vectors.copy()
    index.add(given, rows)
    assert (given == ids).all(), "add wrote into its ids"
    assert (rows == vectors).all(), "add wrote into its vectors"
    given[:], rows[:] = 0, 0
    assert _first(index, vectors[7]) == ids[7], "writing into the given arrays changed the index"


def wrong_shapes_are_refused(make: Make) -> None:
    """Another dim, more ids than vectors, and nan are ValueErrors that name both numbers; nothing is added."""
    index: Index = make()
    ids, vectors = _clusters(index.dim, 3)
    wide = np.zeros((3, index.dim + 1), np.float32)
    both = (str(index.dim), str(index.dim + 1))
    refused(lambda: index.add(ids, wide), *both)
    refused(lambda: index.search(wide[0], 1), *both)
    refused(lambda: index.add(ids[:2], vectors), "2", "3")
    refused(lambda: index.add(ids, np.full_like(vectors, np.nan)), "finite")
    assert len(index) == 0, f"a refused call left {len(index)} items"


def answers_fit_the_schema(make: Make) -> None:
    """Under a schema `data` fits it, or LLMError is raised; an answer that fits is never refused for ever."""
    fit = [answer for answer in _answers(make(), SCHEMA) if isinstance(answer, Completion)]
    for answer in fit:
        wrong = mismatch(answer.data, SCHEMA)
        assert wrong is None, f"{answer.text!r} was let through: {wrong}"
    assert fit, f"not one of {TURNS} answers passed the schema"


def plain_answers_are_text(make: Make) -> None:
    """Without a schema the answer is text as it came, and `data` is None."""
    answer = make().complete(ASK)
    assert isinstance(answer.text, str), f"text is a {type(answer.text).__name__}"
    assert answer.data is None, f"no schema was given and data is {answer.data!r}"


def same_calls_same_answers(make: Make) -> None:
    """Two fresh instances give the same answers to the same calls, errors at the same places."""
    one, two = ([getattr(answer, "text", None) for answer in _answers(make(), SCHEMA)] for _ in range(2))
    assert one == two, "two fresh instances answered the same calls differently"


def usage_counts_tokens(make: Make) -> None:
    """Usage maps "input" and "output", where known, to whole numbers of at least 0."""
    usage = make().complete(ASK).usage
    assert usage.keys() <= {"input", "output"}, f"usage names {sorted(usage)}"
    assert all(type(count) is int and count >= 0 for count in usage.values()), f"usage counts {dict(usage)}"


def bad_messages_are_refused(make: Make) -> None:
    """A bare string or a message without content is a TypeError, no message at all a ValueError."""
    refused(lambda: make().complete("hello"), kind=TypeError)
    refused(lambda: make().complete([{"role": "user"}]), kind=TypeError)
    refused(lambda: make().complete([]))


def asking_changes_nothing(make: Make) -> None:
    """Messages and schema are left as they were given."""
    messages, schema = copy.deepcopy(ASK), copy.deepcopy(SCHEMA)
    make().complete(messages, schema)
    assert messages == ASK, f"complete changed its messages to {messages}"
    assert schema == SCHEMA, f"complete changed its schema to {schema}"


def _clusters(dim: int, size: int = 500) -> tuple[I64, F32]:
    """Ids with gaps, in no order, and unit vectors (size, dim) around one centre per ten of them."""
    random = generator(0, "ports", "clusters")
    centres = random.normal(size=(size // 10 + 1, dim))
    rows = centres[random.integers(len(centres), size=size)] + 0.35 * random.normal(size=(size, dim))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return random.permutation(7 * size)[:size].astype(np.int64) + 1, unit.astype(np.float32)


def _assert_recall(index: Index, ids: I64, vectors: F32) -> None:
    found = 0
    queries = vectors[:: max(1, len(vectors) // 50)]
    for query in queries:
        true = ids[np.argsort(-(vectors @ query))[:10]]
        found += len(np.intersect1d(true, index.search(query, 10)[0]))
    recall = found / (10 * len(queries))
    assert recall >= RECALL, f"recall@10 is {recall:.3f}, asked is {RECALL}"


def _first(index: Index, query: F32) -> int:
    found = index.search(query, 1)[0]
    return int(found[0]) if len(found) else -1


def _answers(llm: Any, schema: dict[str, Any]) -> list[Completion | LLMError]:
    answers: list[Completion | LLMError] = []
    for _ in range(TURNS):
        try:
            answers.append(llm.complete(ASK, schema))
        except LLMError as error:
            answers.append(error)
    return answers


EMBEDDER_LAWS: tuple[Law, ...] = (
    gives_one_float32_row_per_text,
    rows_have_length_one,
    batch_equals_singles,
    same_text_same_row,
    other_text_other_row,
    embeds_any_text,
    key_is_stable,
    one_string_is_refused,
)
INDEX_LAWS: tuple[Law, ...] = (
    finds_the_true_nearest,
    churn_keeps_the_nearest,
    own_vector_is_first,
    scores_are_inner_products,
    removed_is_never_returned,
    same_id_replaces,
    k_may_exceed_len,
    nothing_gives_nothing,
    len_counts,
    what_was_given_is_copied,
    wrong_shapes_are_refused,
)
LLM_LAWS: tuple[Law, ...] = (
    answers_fit_the_schema,
    plain_answers_are_text,
    same_calls_same_answers,
    usage_counts_tokens,
    bad_messages_are_refused,
    asking_changes_nothing,
)

"""Broken twins: each law of the ports must catch, by name, the embedder, index or language model that breaks it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from loci.core.checking import broken_by
from loci.core.errors import LLMError
from loci.core.ports import F32, I64, Completion, Message
from loci.ports import checks
from loci.ports.answers import Schema, chat
from loci.ports.embed_hash import HashEmbedder
from loci.ports.index_exact import ExactIndex
from loci.ports.llm_scripted import ScriptedLLM

count = itertools.count()


# --- embedders --------------------------------------------------------------------------------------------------------


class Sound(HashEmbedder):
    def __init__(self) -> None:
        super().__init__(64)


class Wide(Sound):
    """Computes in float64 and forgets to come back."""

    def embed(self, texts: Sequence[str]) -> F32:
        return super().embed(texts).astype(np.float64)  # type: ignore[return-value]


class Loud(Sound):
    """Rows grow with their text."""

    def embed(self, texts: Sequence[str]) -> F32:
        lengths = np.array([1.0 + len(text) for text in texts], np.float32)
        return super().embed(texts) * lengths[:, None]


class Centred(Sound):
    """Subtracts the batch's mean."""

    def embed(self, texts: Sequence[str]) -> F32:
        rows = super().embed(texts)
        return rows - rows.mean(axis=0) if len(rows) > 1 else rows


class Salted(Sound):
    """Hashes with the process's salt, so to say: each instance has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = next(count) % 63 + 1

    def embed(self, texts: Sequence[str]) -> F32:
        return np.roll(super().embed(texts), self.shift, axis=1)


class Blind(Sound):
    """One row for all."""

    def embed(self, texts: Sequence[str]) -> F32:
        return super().embed(["same"] * len(texts) if not isinstance(texts, str) else texts)


class Ascii(Sound):
    """Divides by the length of what is left without accents."""

    def embed(self, texts: Sequence[str]) -> F32:
        rows = super().embed(texts)
        for row, text in zip(rows, texts, strict=True):
            if not text.encode("ascii", "ignore"):
                row[:] = np.nan
        return rows


class Renamed(Sound):
    """Raises its version at each use."""

    def embed(self, texts: Sequence[str]) -> F32:
        self.version = str(int(self.version) + 1)
        return super().embed(texts)


class Letters(Sound):
    """Takes a string for a list of letters."""

    def embed(self, texts: Sequence[str]) -> F32:
        return super().embed(list(texts))


# --- indexes ----------------------------------------------------------------------------------------------------------


class Compares(ExactIndex):
    def __init__(self) -> None:
        super().__init__(32)


class Half(Compares):
    """Looks at every other vector."""

    def search(self, query: F32, k: int) -> tuple[I64, F32]:
        ids, scores = super().search(query, len(self))
        return ids[ids % 2 == 0][:k], scores[ids % 2 == 0][:k]


class Holes(Compares):
    """What was removed once cannot come back."""

    def __init__(self) -> None:
        super().__init__()
        self.dead: set[int] = set()

    def remove(self, ids: I64) -> int:
        self.dead |= set(ids.tolist())
        return super().remove(ids)

    def add(self, ids: I64, vectors: F32) -> None:
        fresh = np.array([id_ not in self.dead for id_ in ids.tolist()], bool)
        super().add(ids[fresh], vectors[fresh])


class Others(Compares):
    """Never answers with the very vector of the question."""

    def search(self, query: F32, k: int) -> tuple[I64, F32]:
        ids, scores = super().search(query, k + 1)
        other = scores < 0.9999
        return ids[other][:k], scores[other][:k]


class Distances(Compares):
    """Scores are distances."""

    def search(self, query: F32, k: int) -> tuple[I64, F32]:
        ids, scores = super().search(query, k)
        return ids, 1 - scores


class Ghosts(Compares):
    """Counts what it removed as gone and finds it still."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: dict[int, F32] = {}

    def remove(self, ids: I64) -> int:
        self.gone |= {id_: self._rows[self._at[id_]].copy() for id_ in ids.tolist() if id_ in self._at}
        return super().remove(ids)

    def search(self, query: F32, k: int) -> tuple[I64, F32]:
        ids, scores = super().search(query, k)
        back = [id_ for id_, row in self.gone.items() if float(row @ query) > 0.999]
        return np.array([*back, *ids], np.int64)[:k], np.array([1.0] * len(back) + [*scores], np.float32)[:k]


class Keeps(Compares):
    """The first vector of an id holds."""

    def add(self, ids: I64, vectors: F32) -> None:
        fresh = np.array([id_ not in self._at for id_ in ids.tolist()], bool)
        super().add(ids[fresh], vectors[fresh])


class Strict(Compares):
    """Finds nothing when asked for more than there is."""

    def search(self, query: F32, k: int) -> tuple[I64, F32]:
        return super().search(query, k if k <= len(self) else 0)


class NeverEmpty(Compares):
    """Answers id 0 when it has nothing to say."""

    def search(self, query: F32, k: int) -> tuple[I64, F32]:
        ids, scores = super().search(query, k)
        return (ids, scores) if len(ids) else (np.zeros(1, np.int64), np.zeros(1, np.float32))


class Miscounts(Compares):
    """Counts what it was asked to remove."""

    def remove(self, ids: I64) -> int:
        super().remove(ids)
        return len(ids)


class Views(Compares):
    """Keeps the caller's array."""

    def add(self, ids: I64, vectors: F32) -> None:
        super().add(ids, vectors)
        if len(ids) and vectors.shape == (len(self), self.dim):
            self._rows = vectors


class Lax(Compares):
    """Cuts what does not fit."""

    def add(self, ids: I64, vectors: F32) -> None:
        size = min(len(ids), len(vectors))
        super().add(ids[:size], np.nan_to_num(vectors[:size, : self.dim]))


# --- language models --------------------------------------------------------------------------------------------------

SCRIPT = ['{"pet": "kitten", "age": 2}', "It is a kitten.", '{"pet": "kitten", "age": "two"}'] * 4


class Replays(ScriptedLLM):
    def __init__(self) -> None:
        super().__init__(SCRIPT)


class Trusting(Replays):
    """Lets every answer through."""

    def complete(self, messages: Sequence[Message], schema: Schema | None = None) -> Completion:
        text = super().complete(messages).text
        return Completion(text, None if schema is None else {"said": text})


class Refuses(Replays):
    """Fails under any schema."""

    def complete(self, messages: Sequence[Message], schema: Schema | None = None) -> Completion:
        if schema is not None:
            raise LLMError("no")
        return super().complete(messages)


class Guesses(Replays):
    """Decodes what nobody asked it to."""

    def complete(self, messages: Sequence[Message], schema: Schema | None = None) -> Completion:
        answer = super().complete(messages, schema)
        return Completion(answer.text, answer.data or {})


class Drifts(ScriptedLLM):
    """The script goes on where the last instance stopped."""

    def __init__(self) -> None:
        shift = next(count) % 2 + 1
        super().__init__(SCRIPT[shift:] + SCRIPT[:shift])


class Tokens(Replays):
    """Passes the server's own names on."""

    def complete(self, messages: Sequence[Message], schema: Schema | None = None) -> Completion:
        answer = super().complete(messages, schema)
        return Completion(answer.text, answer.data, {"prompt_tokens": 3})


class Anything(ScriptedLLM):
    """Sends whatever it is given."""

    def __init__(self) -> None:
        super().__init__([])

    def complete(self, messages: Sequence[Message], schema: Schema | None = None) -> Completion:
        return Completion("fine")


class Prompts(Replays):
    """Adds its own instruction to the caller's list."""

    def complete(self, messages: Sequence[Message], schema: Schema | None = None) -> Completion:
        messages.append({"role": "user", "content": "Be brief."})  # type: ignore[attr-defined]
        return super().complete(chat(messages), schema)


SOUND: list[tuple[Any, Any]] = [
    *((Sound, law) for law in checks.EMBEDDER_LAWS),
    *((Compares, law) for law in checks.INDEX_LAWS),
    *((Replays, law) for law in checks.LLM_LAWS),
]
TWINS: list[tuple[Any, Any]] = [
    (Wide, checks.gives_one_float32_row_per_text), (Loud, checks.rows_have_length_one),
    (Centred, checks.batch_equals_singles), (Salted, checks.same_text_same_row), (Blind, checks.other_text_other_row),
    (Ascii, checks.embeds_any_text), (Renamed, checks.key_is_stable), (Letters, checks.one_string_is_refused),
    (Half, checks.finds_the_true_nearest), (Holes, checks.churn_keeps_the_nearest), (Others, checks.own_vector_is_first),
    (Distances, checks.scores_are_inner_products), (Ghosts, checks.removed_is_never_returned),
    (Keeps, checks.same_id_replaces), (Strict, checks.k_may_exceed_len), (NeverEmpty, checks.nothing_gives_nothing),
    (Miscounts, checks.len_counts), (Views, checks.what_was_given_is_copied), (Lax, checks.wrong_shapes_are_refused),
    (Trusting, checks.answers_fit_the_schema), (Refuses, checks.answers_fit_the_schema),
    (Guesses, checks.plain_answers_are_text), (Drifts, checks.same_calls_same_answers),
    (Tokens, checks.usage_counts_tokens), (Anything, checks.bad_messages_are_refused), (Prompts, checks.asking_changes_nothing),
]  # fmt: skip


@pytest.mark.parametrize(("twin", "law"), TWINS, ids=lambda part: part.__name__)
def test_the_law_catches_the_broken_twin(twin: Any, law: Any) -> None:
    assert broken_by(law, twin), f"{law.__name__} lets {twin.__name__} pass"


@pytest.mark.parametrize(("sound", "law"), SOUND, ids=lambda part: part.__name__)
def test_the_sound_member_passes_and_each_law_has_a_twin(sound: Any, law: Any) -> None:
    assert not broken_by(law, sound)
    assert law in [caught for _, caught in TWINS], f"{law.__name__} has no broken twin"

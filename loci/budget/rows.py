"""Batches for a training that can be cut and resumed: batch number i is the same whenever it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Batches: TypeAlias = Callable[[int], Any]


def batches(data: Any, *, rows: int, window: int | None, tokens: int | None, seed: int) -> Batches:
    """Batch by number from what users have.

    A function of the number is taken as it is; a list of batches is gone round; a path to text or to a .npy of tokens,
    or a 1-D tensor of tokens, gives random windows (rows, window) drawn by seed and number.
    """
    if isinstance(data, str | Path):
        data = read(Path(data))
    if isinstance(data, Tensor) and data.dim() == 1 and not data.is_floating_point():
        if window is None:
            raise ValueError("tokens were given, but the target takes no rows of text; give a list of batches")
        return windows(data, rows=rows, window=window, tokens=tokens, seed=seed)
    if callable(data):
        return data  # type: ignore[no-any-return]
    if isinstance(data, Sequence) and data:
        return lambda number: data[number % len(data)]
    raise ValueError(
        f"data is {type(data).__name__}; give a list of batches, a function batch(number), tokens, or the path of a text: "
        "an iterator cannot be resumed"
    )


def windows(codes: Tensor, *, rows: int, window: int, tokens: int | None, seed: int) -> Batches:
    """Random rows (rows, window) of a text (N,), the same for the same seed and number."""
    if len(codes) < window:
        raise ValueError(f"the text has {len(codes)} tokens, a row takes {window}; give more text or shorter rows")
    least, most = int(codes.min()), int(codes.max())
    if least < 0:
        raise ValueError(f"the text has token {least}; give tokens of at least 0")
    if tokens is not None and most >= tokens:
        raise ValueError(f"the text has token {most}, the model knows {tokens}; encode it for this model")

    def batch(number: int) -> Tensor:
        random = torch.Generator().manual_seed(seed * 1_000_003 + number)
        starts = torch.randint(len(codes) - window + 1, (rows, 1), generator=random)
        return codes[starts + torch.arange(window)]

    return batch


def read(path: Path) -> Tensor:
    """Tokens (N,) of a file: a .npy of integers as it is, anything else as bytes."""
    if not path.is_file():
        raise ValueError(f"data={str(path)!r} is no file; give a text or a .npy of tokens")
    if path.suffix == ".npy":
        codes = np.load(path)
        if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(f"{path} holds {codes.dtype} {codes.shape}; give one row of integers")
        return torch.from_numpy(codes.astype(np.int64))
    return torch.from_numpy(np.frombuffer(path.read_bytes(), np.uint8).astype(np.int64))

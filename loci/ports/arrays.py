"""What goes through a port, checked once: texts, ids, vectors; each error says what to do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from loci.core.ports import F32, I64


def positive(value: int, *, name: str) -> int:
    """A whole number of at least 1, or ValueError (TypeError when it is no int).

    >>> positive(384, name="dim")
    384
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a {type(value).__name__}; give a whole number of at least 1")
    if value < 1:
        raise ValueError(f"{name}={value} is too small; give a whole number of at least 1")
    return value


def listed(texts: Sequence[str]) -> list[str]:
    r"""The texts as a list that encodes as UTF-8: a lone surrogate becomes '?'. TypeError for anything else.

    >>> listed(["a kitten", "half an emoji: \ud83d"])
    ['a kitten', 'half an emoji: ?']
    """
    if isinstance(texts, str | bytes):
        raise TypeError(f"texts is one {type(texts).__name__}; give a list of texts, such as [text]")
    found = list(texts)
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"texts[{place}] is a {type(text).__name__}; give a list of str")
    return [text.encode("utf-8", "replace").decode() for text in found]


def unit(rows: F32) -> F32:
    """Rows (N, dim) brought to length 1, as float32; a row of zeros stays zero."""
    wide = rows.astype(np.float64)
    largest = np.abs(wide).max(axis=1, keepdims=True, initial=0.0)
    wide /= np.where(largest > 0, largest, 1.0)  # so that squares neither overflow nor vanish
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(length > 0, length, 1.0), np.float32)


def keys(ids: ArrayLike) -> I64:
    """Ids (N,) as int64; TypeError unless they are whole numbers, ValueError when one is negative."""
    given = np.asarray(ids)
    if given.size and given.dtype.kind not in "iu":
        raise TypeError(f"ids are {given.dtype}; give whole numbers (int64)")
    if given.ndim != 1:
        raise ValueError(f"ids have shape {given.shape}; give one row of ids, shape (N,)")
    found: I64 = given.astype(np.int64)
    if found.size and found.min() < 0:
        raise ValueError(f"ids hold {found.min()}; give ids from 0 to 2**63 - 1")
    return found


def pairs(ids: ArrayLike, vectors: ArrayLike, dim: int) -> tuple[I64, F32]:
    """Ids (N,) and their vectors (N, dim), finite float32; of an id given twice the last vector is kept."""
    names, rows = keys(ids), np.asarray(vectors, np.float32)
    if not len(names) and not rows.size:
        return names, np.empty((0, dim), np.float32)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise ValueError(
            f"vectors have shape {rows.shape}, this index holds (N, {dim});"
            f" embed them with the model of dim={dim} or make an index of their dim"
        )
    if len(names) != len(rows):
        raise ValueError(f"{len(names)} ids came with {len(rows)} vectors; give one id per vector")
    if not np.isfinite(rows).all():
        place = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(f"the vector of id {names[place]} is not finite; give numbers without nan and inf")
    _, last = np.unique(names[::-1], return_index=True)
    if len(last) == len(names):
        return names, rows
    kept = np.sort(len(names) - 1 - last)
    return names[kept], rows[kept]


def point(query: ArrayLike, k: int, dim: int) -> F32:
    """One query vector (dim,), finite float32; ValueError when it does not fit or k is negative."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k is a {type(k).__name__}; give a whole number of at least 0")
    if k < 0:
        raise ValueError(f"k={k} is negative; give a whole number of at least 0")
    found = np.asarray(query, np.float32)
    if found.shape != (dim,):
        raise ValueError(
            f"query has shape {found.shape}, this index holds ({dim},); give one vector of the model with dim={dim}"
        )
    if not np.isfinite(found).all():
        raise ValueError("query is not finite; give numbers without nan and inf")
    return found


def nothing() -> tuple[I64, F32]:
    """No hits: empty ids and scores."""
    return np.empty(0, np.int64), np.empty(0, np.float32)

"""Bytes: the currency of the house. Parse and print them, and count what an object holds."""

from __future__ import annotations

import re
import sys
from typing import Any

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$")


def parse(size: int | str, *, name: str = "budget") -> int:
    """Read a size in bytes: decimal units (MB) are powers of 1000, binary ones (MiB) of 1024.

    >>> parse("64MB"), parse("1.5 KiB"), parse(4096)
    (64000000, 1536, 4096)
    """
    if isinstance(size, bool) or not isinstance(size, int | str):
        raise TypeError(f"{name} is a {type(size).__name__}; give bytes as an int or text such as '64MB'")
    if isinstance(size, int):
        if size < 0:
            raise ValueError(f"{name}={size} is negative; give a number of bytes of at least 0")
        return size
    found = _SIZE.match(size)
    if not found or found[2].upper() not in _UNITS:
        raise ValueError(f"{name}={size!r} is not a size; give bytes as an int or text such as '64MB' or '1.5GiB'")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def show(size: float) -> str:
    """Print bytes in decimal units with three figures.

    >>> show(64_000_000), show(1536), show(12)
    ('64 MB', '1.54 kB', '12 B')
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= factor:
            return f"{float(f'{size / factor:.3g}'):g} {unit}"
    return f"{size:.0f} B"


def nbytes(thing: Any) -> int:
    """Bytes that an object holds: exact for arrays, tensors, text and bytes; containers are summed once.

    >>> import numpy as np
    >>> nbytes(np.zeros((3, 4), np.float32))
    48
    """
    return _nbytes(thing, set())


def _nbytes(thing: Any, seen: set[int]) -> int:
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(held := getattr(thing, "nbytes", None), int):
        return held
    if isinstance(thing, str):
        return len(thing.encode())
    if isinstance(thing, bytes | bytearray):
        return len(thing)
    if isinstance(thing, dict):
        return sum(_nbytes(key, seen) + _nbytes(value, seen) for key, value in thing.items())
    if isinstance(thing, list | tuple | set | frozenset):
        return sum(_nbytes(part, seen) for part in thing)
    return sys.getsizeof(thing)

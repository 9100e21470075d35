"""A store's file read as bytes, without costing SQLite its locks.

POSIX lets go of every lock that a process holds on a file as soon as the process closes any descriptor of that file
(https://sqlite.org/howtocorrupt.html, section 2.2). So all stores of a process that read one file share one descriptor,
and the last of them closes it, after its connections.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 22
_guard = threading.Lock()
_held: dict[tuple[int, int], tuple[BinaryIO, list[RawFile]]] = {}


class RawFile:
    """The bytes of one file. Close it only after every connection to the file that was made beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _guard:
            stat = path.stat()
            self._key = (stat.st_dev, stat.st_ino)
            if self._key not in _held:
                _held[self._key] = (path.open("rb", buffering=0), [])
            self._file, holders = _held[self._key]
            holders.append(self)

    def head(self, size: int) -> bytes:
        """The first bytes, fewer if the file is shorter."""
        with _guard:
            self._file.seek(0)
            return self._file.read(size)

    def chunks(self, overlap: int) -> Iterator[bytes]:
        """All bytes in order; each chunk begins with the last `overlap` bytes of the one before."""
        place, tail = 0, b""
        while True:
            with _guard:
                self._file.seek(place)
                data = self._file.read(_CHUNK)
            if not data:
                return
            place += len(data)
            yield tail + data
            tail = (tail + data)[-overlap:] if overlap else b""

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Let go; the last holder closes the descriptor. Closing twice is fine."""
        with _guard:
            file, holders = _held.get(self._key, (None, []))
            if self not in holders:
                return
            holders.remove(self)
            if not holders and file is not None:
                del _held[self._key]
                file.close()

"""From words to parts: which store, scheme and embedder a memory was asked to open with."""

from __future__ import annotations

import importlib
import os
import pkgutil

from loci.core.card import load, members
from loci.core.ports import Embedder
from loci.records.database import Store
from loci.records.scheme import Scheme
from loci.records.sqlite import SQLiteStore

_EMBEDDERS = {
    "hash": "loci.ports.embed_hash:HashEmbedder",
    "minilm": "loci.ports.embed_minilm:MiniLMEmbedder",
}


def store(path: str | os.PathLike[str]) -> Store:
    """The store at a path or a postgresql:// URL, made when it is new."""
    if isinstance(path, str) and path.startswith(("postgresql://", "postgres://")):
        return load("loci.records.postgres:PostgresStore")(path)  # type: ignore[no-any-return]  # needs an extra
    if isinstance(path, str) and "://" in path:
        raise ValueError(f"path={path!r} has an unknown scheme; give a file, postgresql://... or http://...")
    return SQLiteStore(path)


def schemes() -> list[str]:
    """The names of the schemes that can be opened."""
    package = importlib.import_module("loci.records.schemes")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"loci.records.schemes.{module.name}")
    return [card.name for card, _ in members("scheme")]


def scheme(given: str | Scheme) -> Scheme:
    """A scheme by its catalogue name, or as given."""
    if not isinstance(given, str):
        if isinstance(given, Scheme):
            return given
        raise TypeError(
            f"scheme is a {type(given).__name__}; give a name such as 'loci' or an object with the Scheme verbs"
        )
    names = schemes()
    for card, member in members("scheme"):
        if card.name == given:
            return member()  # type: ignore[no-any-return]
    raise ValueError(f"scheme={given!r} is unknown; choose one of {', '.join(names)}")


def embedder(given: str | Embedder | None) -> Embedder | None:
    """An embedder by name, as given, or none."""
    if given is None or given == "none":
        return None
    if isinstance(given, str):
        if given not in _EMBEDDERS:
            raise ValueError(
                f"embedder={given!r} is unknown; choose none, {', '.join(_EMBEDDERS)}, or give an Embedder"
            )
        return load(_EMBEDDERS[given])()  # type: ignore[no-any-return]
    if isinstance(given, Embedder):
        return given
    raise TypeError(f"embedder is a {type(given).__name__}; give a name such as 'minilm', an Embedder, or None")

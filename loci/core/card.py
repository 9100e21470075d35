"""Cards: what a method says of itself. `@method` is the only registry of the house."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from loci.core import formula

KINDS = (
    "scheme", "embedder", "index", "llm", "mixer", "encoder", "decoder", "stream-classifier", "context", "sparse-memory",
    "optimizer", "tuner", "learner", "edit", "local-trainer", "number-format", "meter", "policy", "buffer", "agent",
    "aggregator", "recipe",
)  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One method: its names, its promise, its bytes, and the instance that all checks run on."""

    name: str  # kebab-case, unique within its kind
    kind: str  # one of KINDS
    title: str  # the paper's title, or what it is
    says: str  # one sentence: what it promises
    paper: str = ""  # "arXiv:2502.14802", "doi:...", "" for a plain baseline
    bytes: str = "0"  # what it keeps, as a formula over its shapes
    example: Mapping[str, Any] = field(default_factory=dict)  # constructor arguments of the checked instance
    needs: tuple[str, ...] = ()  # extras
    deviates: Mapping[str, str] = field(default_factory=dict)  # check name -> why it cannot hold; must then fail
    system: str = ""  # slug of the system, where a paper has several methods
    entry: str = ""  # "package.module:Class", filled in by @method

    def line(self) -> dict[str, Any]:
        """The card as one row of the catalogue."""
        row = asdict(self)
        row["system"] = self.system or self.name
        return {key: (list(value) if isinstance(value, tuple) else value) for key, value in row.items()}


_cards: dict[tuple[str, str], tuple[Card, Any]] = {}


def method(
    *,
    name: str,
    kind: str,
    title: str,
    says: str,
    paper: str = "",
    bytes: str = "0",  # noqa: A002 - the field's name on the card
    example: Mapping[str, Any] | None = None,
    needs: tuple[str, ...] = (),
    deviates: Mapping[str, str] | None = None,
    system: str = "",
) -> Callable[[T], T]:
    """Register the class below it. A name taken twice within a kind is an error that names both places."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(KINDS)}")
    formula.names(bytes)  # a formula that does not parse fails here, not in the catalogue

    def register(member: T) -> T:
        entry = f"{member.__module__}:{member.__name__}"  # type: ignore[attr-defined]
        card = Card(
            name=name, kind=kind, title=title, says=says, paper=paper, bytes=bytes, example=dict(example or {}),
            needs=needs, deviates=dict(deviates or {}), system=system, entry=entry,
        )  # fmt: skip
        held = _cards.get((kind, name))
        if held is not None and held[0].entry != entry:
            raise ValueError(f"{kind} {name!r} is both {held[0].entry} and {entry}; rename one of them")
        _cards[kind, name] = (card, member)
        member.card = card  # type: ignore[attr-defined]
        return member

    return register


def members(kind: str) -> list[tuple[Card, Any]]:
    """The registered members of a kind, by name. Only what was imported is known: see `load_all`."""
    return [pair for (of, _), pair in sorted(_cards.items(), key=lambda row: row[0]) if of == kind]


def cards() -> list[Card]:
    """Every registered card, by kind and name."""
    return [card for _, (card, _) in sorted(_cards.items(), key=lambda row: row[0])]


def load_all(package: str = "loci") -> list[str]:
    """Import every module of the package so that every card is known; returns the modules that lack an extra."""
    missing = []
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, prefix=f"{package}."):
        try:
            importlib.import_module(module.name)
        except ImportError:
            missing.append(module.name)
    return missing


def methods(package: str, kind: str) -> dict[str, Any]:
    """The classes of a kind by their names on the card, once every module of the package is imported.

    >>> "bm25" in methods("loci.records.schemes", "scheme")
    True
    """
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return {card.name: member for card, member in members(kind)}


def attribute(package: str, kind: str, name: str) -> Any:
    """The class of that name, imported on first use: what a package's `__getattr__` (PEP 562) returns."""
    if name.startswith("_"):
        raise AttributeError(f"module {package!r} has no {name!r}")
    known = {member.__name__: member for member in methods(package, kind).values()}
    if name not in known:
        raise AttributeError(f"module {package!r} has no {name!r}; it offers {', '.join(sorted(known))}")
    return known[name]


def load(entry: str) -> Any:
    """Import what an entry string names.

    >>> load("loci.core.card:Card").__name__
    'Card'
    """
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)

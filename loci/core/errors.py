"""The tree of errors.

LociError
  |- MissingExtra      an optional package is not installed              install the extra it names
  |- StoreError        the file or server cannot be used as it is        the message says which of the five
  |    |- NotAStore        the file is not a loci store, or is damaged   nothing was written to it
  |    |- ReadOnly         the store or its folder cannot be written     nothing was written
  |    |- StorageFull      the disk or quota is full                     nothing of the call was kept
  |    |- Busy             another process held the write lock too long  call again
  |    '- Unreachable      the server is away or went away                call again; with once= for add
  |- ClosedError       the memory was closed                             open it again
  |- UnknownItem       an id that is not live in the asked scope         look it up with recall or history
  |- ConflictError     rows moved under a change                         read again, then write
  |- BudgetExceeded    what must be kept does not fit the bytes          raise the budget to `needed`
  |- OverBudget       a step held more bytes than it may              take the next plan, or raise the budget
  |- Denied            a token is missing, spent or not enough        give a token with the right and the scope
  '- LLMError          a language model failed or broke its schema       call again or change the model

Bad arguments stay ValueError and TypeError. Grammar of a message: what was given, what was expected, what to do.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class LociError(Exception):
    """Anything that loci raises on purpose, other than ValueError and TypeError."""


class MissingExtra(LociError, ImportError):
    """An optional package is not installed."""


class StoreError(LociError):
    """The store cannot be used as it is."""


class NotAStore(StoreError):
    """The file is not a loci store, or is damaged; it was left as it is."""


class ReadOnly(StoreError):
    """The store or its folder cannot be written."""


class StorageFull(StoreError):
    """The disk or quota is full; nothing of the call was kept."""


class Busy(StoreError):
    """Another process held the write lock for longer than the timeout."""


class Unreachable(StoreError):
    """The server cannot be reached, or went away; whether the call in hand was kept is not known."""


class ClosedError(LociError):
    """The memory was closed."""


class UnknownItem(LociError, LookupError):
    """An id that is not live in the asked scope."""


class ConflictError(LociError):
    """Rows moved between reading and writing; nothing was written."""


class BudgetExceeded(LociError):
    """What must be kept does not fit; `needed` and `limit` are bytes."""

    def __init__(self, message: str, *, needed: int, limit: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.limit = limit


class OverBudget(LociError):
    """A running step holds more bytes than its budget."""


class Denied(LociError):
    """A token is missing, unknown, expired, revoked, or does not allow what was asked."""


class LLMError(LociError):
    """A language model failed, or answered outside the asked schema."""


def need(package: str, *, extra: str, who: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    >>> need("json", extra="none", who="This example").__name__
    'json'
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtra(f'{who} needs {package}; pip install "loci[{extra}]"') from error

"""PostgreSQL's errors as ours: what happened, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
from psycopg import errors as pg

from loci.core.errors import Busy, LociError, NotAStore, ReadOnly, StorageFull, StoreError, Unreachable

_BUSY = (pg.LockNotAvailable, pg.QueryCanceled, pg.SerializationFailure, pg.DeadlockDetected, pg.TooManyConnections)
_DENIED = (pg.InsufficientPrivilege, pg.ReadOnlySqlTransaction)
_FULL = (pg.DiskFull, pg.OutOfMemory, pg.ConfigurationLimitExceeded)
_AWAY = (pg.AdminShutdown, pg.CrashShutdown, pg.CannotConnectNow)
_BROKEN = (psycopg.OperationalError, psycopg.InterfaceError)
_PASSING = ("starting up", "shutting down", "recovery", "terminating connection", "too many", "reserved for")


@contextlib.contextmanager
def errors(shown: str) -> Iterator[None]:
    """Turn the server's errors into ours; `shown` is the URL without its password."""
    try:
        yield
    except LociError:
        raise
    except psycopg.Error as error:
        raise _translated(error, shown) from error


def _translated(error: psycopg.Error, shown: str) -> StoreError:
    text = " ".join(str(error).split())
    if isinstance(error, _BUSY):
        return Busy(f"{shown} was locked or overloaded ({text}); nothing was written, call again")
    if isinstance(error, _FULL):
        return StorageFull(f"{shown} has no room left ({text}); nothing of this call was kept, free some space")
    if isinstance(error, _DENIED):
        return ReadOnly(f"{shown} may not be written by this role ({text}); nothing was written, check its grants")
    if isinstance(error, pg.UndefinedFile | pg.FeatureNotSupported):
        return NotAStore(f"{shown} cannot hold a memory ({text}); give a database with the extension vector")
    if "FATAL:" in text and not any(word in text for word in _PASSING):
        return NotAStore(f"{shown} cannot be opened ({text}); give a database and role that are there")
    if isinstance(error, _AWAY) or (isinstance(error, _BROKEN) and error.sqlstate is None):
        return Unreachable(
            f"{shown} cannot be reached ({text}); what was acknowledged is kept, call again, and give add a key (once=) "
            "so that repeating it adds nothing twice"
        )
    return StoreError(f"{shown}: {text}")

"""How a COMMIT ended, and how a task that commits is brought to its end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

_UNKNOWN_CLASSES = ("08", "57")  # connection exceptions, operator intervention
_COMPLETION_UNKNOWN = "40003"
# MariaDB rolls back before it says so: a deadlock (of a Galera cluster, too), a lock that was waited for too long, a
# row that changed after the snapshot, a server that became read-only. Whatever else a COMMIT may say is not certain:
# 1180 is the storage engine's, or the binary log's.
_MARIADB_REFUSALS = frozenset({1020, 1205, 1213, 1290})
_SQLITE_REFUSALS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CONSTRAINT")


def did_not_commit(error: BaseException | None) -> bool:
    """Tell whether a failed COMMIT certainly did not happen. Anything that is not certain is False.

    Source: the server's own SQLSTATE (PostgreSQL, appendix A); SQLite leaves the transaction open on the named codes;
    MariaDB's ``ha_commit_trans`` (sql/handler.cc), whose SQLSTATEs say nothing of this.
    """
    driver_error: object = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return False
    arguments = getattr(driver_error, "args", ())
    if arguments and isinstance(arguments[0], int):  # as drivers of MariaDB number their errors, and no others do
        return arguments[0] in _MARIADB_REFUSALS
    state = driver_attribute(driver_error, "sqlstate")
    if isinstance(state, str) and len(state) == 5:
        return not state.startswith(_UNKNOWN_CLASSES) and state != _COMPLETION_UNKNOWN
    name = driver_attribute(driver_error, "sqlite_errorname")
    return isinstance(name, str) and name.startswith(_SQLITE_REFUSALS)


def driver_attribute(error: object, name: str) -> object:
    """Give an attribute of a driver's error, or of the one that it was translated from; ``None`` for none."""
    seen = 0
    while isinstance(error, BaseException) and seen < 5:
        if (found := getattr(error, name, None)) is not None:
            return found
        error, seen = error.__cause__, seen + 1
    return None


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* to its end in a task of its own; a caller that is cancelled meanwhile is cancelled after it.

    A plain ``shield`` would let the caller go on, and close the session under the running COMMIT.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with _anyio_shield():
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = cancelled if task.cancelled() else error
            except BaseException:
                break  # the work's own: it is raised below
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()


def _anyio_shield() -> AbstractContextManager[object]:
    # anyio cancels again and again until its scope is left; swallowing that would spin.
    anyio = sys.modules.get("anyio")
    scope: AbstractContextManager[object] = anyio.CancelScope(shield=True) if anyio is not None else nullcontext()
    return scope

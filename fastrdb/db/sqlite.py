"""What makes SQLite fit for a service: a log that readers do not wait for, foreign keys, patience, and savepoints."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from typing import Any

from sqlalchemy import URL, Engine, event

from .transactions import begin_before_savepoint

BUSY_TIMEOUT_S = 5.0  # how long a writer waits for another one


def in_memory(url: URL) -> bool:
    """Tell whether the URL names a database in memory in the plain way, not by a URI of SQLite's own."""
    return (url.database or ":memory:") == ":memory:" and not url.query


def prepare(engine: Engine, *, private: bool) -> None:
    """Set up each connection that the engine opens from now on.

    Args:
        engine: A SQLite engine that has no connection yet.
        private: Its database is the engine's own; see ``_Scratch``.
    """
    if private:
        scratch = _Scratch()
        event.listen(engine, "do_connect", scratch.redirect)
        event.listen(engine, "engine_disposed", scratch.remove)
    durable = "OFF" if private else "NORMAL"  # with WAL, NORMAL loses no consistency in a power failure

    def on_connect(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT_S * 1000)}")
        cursor.execute("PRAGMA journal_mode = WAL")  # where it cannot, as in memory, it stays as it is
        cursor.execute(f"PRAGMA synchronous = {durable}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "savepoint", begin_before_savepoint)


class _Scratch:
    """The file behind ``:memory:``, in a folder that goes with the engine's connections, or with the process.

    SQLite gives each connection a memory of its own. Its ways to share one either let a session's rollback undo the
    work of another that uses the same connection, or lock readers out while somebody writes. A file does neither.
    """

    def __init__(self) -> None:
        self._remove: weakref.finalize[..., _Scratch] | None = None
        self._folder = ""

    def redirect(self, dialect: object, record: object, arguments: list[Any], options: dict[str, Any]) -> None:
        """Connect to the file instead."""
        if self._remove is None:
            self._folder = tempfile.mkdtemp(prefix="fastrdb-")
            self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        arguments[0] = os.path.join(self._folder, "memory.db")

    def remove(self, engine: Engine) -> None:
        """Forget it; the next connection begins with an empty one."""
        if self._remove is not None:
            self._remove()
            self._remove = None

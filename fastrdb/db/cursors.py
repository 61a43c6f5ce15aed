"""Cursors of SQLite's that were not read to their end: each keeps its connection's snapshot as it was.

In a database with a write-ahead log, whatever else is read on the connection meanwhile shows what was committed when
the cursor was opened, and nothing says so: to the driver that is no transaction.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import ExecutionContext

_OPENED = "fastrdb_cursors"


def note_cursor(connection: Connection, context: ExecutionContext | None) -> None:
    """Remember a statement whose rows are not fetched at once; called before it is sent."""
    if connection.dialect.name == "sqlite" and getattr(context, "_is_server_side", False):
        # By the driver's connection: a cursor may outlive its session, and be met by the next one from the pool.
        connection.info[_OPENED] = [*_still_open(connection), ref(context)]


def has_open_cursor(connection: Connection) -> bool:
    """Tell whether what is read on the connection now may show an old snapshot."""
    return _OPENED in connection.info and bool(_still_open(connection))


def _still_open(connection: Connection) -> list[Any]:
    return [each for each in connection.info.get(_OPENED, ()) if _is_open(each())]


def _is_open(context: Any) -> bool:
    # The adapter lets go of the driver's cursor when that is closed, which SQLAlchemy does after the last row.
    return context is not None and getattr(context.cursor, "_cursor", None) is not None

"""Several statements of one write, all or none, in a transaction that the caller may go on with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from ..db.sessions import Place


@contextmanager
def all_or_none(connection: Connection, place: Place) -> Iterator[None]:
    """Undo all statements of the block if one fails.

    PostgreSQL does that by itself: after an error it lets nobody go on. SQLite and MariaDB undo the failed row alone,
    and keep those that came before. Where each statement commits by itself, there is nothing to undo.
    """
    if place.dialect == "postgresql" or place.autocommit:
        yield
        return
    with connection.begin_nested():
        yield

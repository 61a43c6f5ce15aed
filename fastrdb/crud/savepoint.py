"""Several statements of one write, all or none, in a transaction that the caller may go on with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, NestedTransaction
from sqlalchemy.exc import DBAPIError


@contextmanager
def savepoint(connection: Connection) -> Iterator[None]:
    """Undo the statements of the block if one fails, and nothing that came before."""
    nested = connection.begin_nested()
    try:
        yield
    except BaseException:
        undo(nested)
        raise
    nested.commit()


def undo(nested: NestedTransaction) -> None:
    """Go back to a savepoint after an error, which is about to be raised again.

    MariaDB undoes the whole transaction before it speaks of a deadlock: then there is no savepoint any more, and that
    says nothing about what was wrong.
    """
    with suppress(DBAPIError):
        nested.rollback()

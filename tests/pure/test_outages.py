"""Which errors of a SELECT say that the database is away."""

import sqlite3
from typing import Any

import pytest
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InvalidRequestError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fastrdb.crud.outages import is_outage
from fastrdb.errors import MultipleFound, NotFound


def told(state: str) -> DBAPIError:
    """A server's error with an SQLSTATE."""
    original: Any = Exception("told")
    original.sqlstate = state
    return DBAPIError("SELECT 1", {}, original)


def raw(state: str) -> Exception:
    """The same as the driver raises it, where SQLAlchemy translates nothing."""
    original: Any = Exception("told")
    original.sqlstate = state
    return original


def of_sqlite(name: str) -> OperationalError:
    """An error of SQLite."""
    original = sqlite3.OperationalError("told")
    original.sqlite_errorname = name
    return OperationalError("SELECT 1", {}, original)


def numbered(number: int) -> OperationalError:
    """An error of MariaDB."""
    return OperationalError("SELECT 1", {}, Exception(number, "told"))


@pytest.mark.parametrize(
    "error",
    [
        told("57P01"),
        told("57014"),
        told("53300"),
        raw("57P03"),
        raw("08001"),
        of_sqlite("SQLITE_BUSY"),
        of_sqlite("SQLITE_CANTOPEN"),
        numbered(2003),
        numbered(2013),
        OperationalError("SELECT 1", {}, Exception("no code")),
        DBAPIError("SELECT 1", {}, Exception("closed"), connection_invalidated=True),
        PendingRollbackError("lost", code="8s2b"),
        PoolTimeout("full"),
        ConnectionRefusedError(),
        TimeoutError(),
    ],
    ids=str,
)
def test_an_outage_is_known(error: Exception) -> None:
    """What cannot be reached, breaks, or takes too long is an outage."""
    assert is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        told("42P01"),
        told("22P02"),
        told("40001"),
        raw("28P01"),
        of_sqlite("SQLITE_ERROR"),
        numbered(1146),
        ProgrammingError("SELECT 1", {}, Exception("no such table")),
        InterfaceError("SELECT 1", {}, Exception("another operation is in progress")),
        InvalidRequestError("wrong"),
        PendingRollbackError("flush", code="7s2a"),
        NotFound("User", {}),
        MultipleFound("User", {}),
        ValueError(),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_read_is_no_outage(error: Exception) -> None:
    """Errors of the statement, its values, the session or the password are raised, and so is what ``get`` finds."""
    assert not is_outage(error)

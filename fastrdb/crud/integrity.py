"""Names the constraint that refused a write, from the driver's error."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy.exc import DBAPIError, IntegrityError

from ..errors import (
    CheckViolation,
    ForeignKeyViolation,
    IntegrityViolation,
    NotNullViolation,
    ReplicaRefused,
    UniqueViolation,
)

_READ_ONLY = "25006"  # PostgreSQL's read_only_sql_transaction: what a replica says, too
_BY_SQLSTATE = {
    "23505": UniqueViolation,
    "23503": ForeignKeyViolation,
    "23001": ForeignKeyViolation,
    "23502": NotNullViolation,
    "23514": CheckViolation,
}
_BY_SQLITE = {
    "UNIQUE": UniqueViolation,
    "FOREIGN KEY": ForeignKeyViolation,
    "NOT NULL": NotNullViolation,
    "CHECK": CheckViolation,
}
_SQLITE = re.compile(r"^(UNIQUE|FOREIGN KEY|NOT NULL|CHECK) constraint failed(?:: (.+))?$")
# MariaDB's numbers, and MySQL's; drivers take some of them for errors of another class.
_BY_NUMBER: dict[int, tuple[type[IntegrityViolation], re.Pattern[str]]] = {
    **dict.fromkeys((1062, 1586), (UniqueViolation, re.compile(r" for key '((?:[^']|'')+)'$"))),
    **dict.fromkeys((1216, 1217, 1451, 1452), (ForeignKeyViolation, re.compile(r" CONSTRAINT `((?:[^`]|``)+)`"))),
    **dict.fromkeys((1048, 1263, 1364), (NotNullViolation, re.compile(r"^\w+ '((?:[^']|'')+)'"))),
    **dict.fromkeys((3819, 4025), (CheckViolation, re.compile(r"[Cc](?:ONSTRAINT|heck constraint) [`']([^`']+)[`']"))),
}


def translated(error: DBAPIError) -> IntegrityViolation | None:
    """Give fastrdb's error for SQLAlchemy's, which the caller raises from the driver's; ``None``: no constraint's."""
    if isinstance(error, IntegrityViolation):
        return error
    driver = error.orig
    arguments: tuple[Any, ...] = getattr(driver, "args", ())
    if len(arguments) > 1 and arguments[0] in _BY_NUMBER:
        kind, pattern = _BY_NUMBER[arguments[0]]
        found = pattern.search(str(arguments[1]))
        return kind(found[1] if found else None, error)
    return _by_name(error) if isinstance(error, IntegrityError) else None


def _by_name(error: IntegrityError) -> IntegrityViolation:
    driver = error.orig
    if found := _SQLITE.match(str(driver)):
        # For a value that is missing others name the column alone.
        return _BY_SQLITE[found[1]](found[2].rpartition(".")[2] if found[1] == "NOT NULL" else found[2], error)
    source, state = getattr(driver, "__cause__", None) or driver, _sqlstate(error)
    name = getattr(source, "constraint_name", None) or getattr(source, "column_name", None)
    return _BY_SQLSTATE.get(state, IntegrityViolation)(name, error)


def read_only(error: DBAPIError) -> ReplicaRefused | None:
    """Give fastrdb's error where PostgreSQL refused to write, or to lock; ``None``: it refused something else."""
    if _sqlstate(error) != _READ_ONLY:
        return None
    return ReplicaRefused(
        "db: the session may only read: it leads to a replica, or is read-only; pass a session or a factory of the "
        "primary, or ReadWrite(write=…, read=…)"
    )


def _sqlstate(error: DBAPIError) -> str:
    driver = error.orig
    return str(getattr(driver, "sqlstate", None) or getattr(getattr(driver, "__cause__", None), "sqlstate", None))

"""Names the constraint that refused a write, from the driver's error."""

from __future__ import annotations

import re

from sqlalchemy.exc import IntegrityError

from ..errors import (
    CheckViolation,
    ForeignKeyViolation,
    IntegrityViolation,
    NotNullViolation,
    UniqueViolation,
)

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


def translated(error: IntegrityError) -> IntegrityViolation:
    """Give fastrdb's error for SQLAlchemy's; the caller raises it from the driver's."""
    if isinstance(error, IntegrityViolation):
        return error
    driver = error.orig
    if found := _SQLITE.match(str(driver)):
        return _BY_SQLITE[found[1]](found[2], error)
    source = getattr(driver, "__cause__", None) or driver
    state = getattr(driver, "sqlstate", None) or getattr(source, "sqlstate", None)
    name = getattr(source, "constraint_name", None) or getattr(source, "column_name", None)
    return _BY_SQLSTATE.get(str(state), IntegrityViolation)(name, error)

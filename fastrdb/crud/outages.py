"""Which errors of a SELECT say that the database cannot be read now, not that something is wrong with the SELECT."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..writes.outcome import driver_attribute

# PostgreSQL, appendix A: connection, insufficient resources, operator intervention (shutdown, statement_timeout),
# the system below.
_CLASSES: Final = ("08", "53", "57", "58")
# MariaDB: too many connections, shutdown, lock that was waited for too long, interrupted, killed, no connection, gone,
# lost, statement that took too long.
_NUMBERS: Final = frozenset({1040, 1053, 1205, 1317, 1927, 1969, 2002, 2003, 2005, 2006, 2013, 2055, 3024})
_SQLITE: Final = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_INTERRUPT")
_LOST_BEFORE: Final = "8s2b"  # SQLAlchemy: the connection broke earlier in this transaction


def is_outage(error: Exception) -> bool:
    """Tell whether the database could not be reached, or did not answer in time; what is not certain is False.

    The server's or the driver's own code decides where there is one. Nothing that ``get`` itself raises, such as
    NotFound, is an outage.
    """
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, PendingRollbackError):
        return error.code == _LOST_BEFORE
    driver_error: object = error.orig if isinstance(error, DBAPIError) else error
    state = driver_attribute(driver_error, "sqlstate")
    if isinstance(state, str) and len(state) == 5:
        return state.startswith(_CLASSES)
    name = driver_attribute(driver_error, "sqlite_errorname")
    if isinstance(name, str):
        return name.startswith(_SQLITE)
    arguments = getattr(driver_error, "args", ())
    if isinstance(error, DBAPIError) and arguments and isinstance(arguments[0], int):
        return arguments[0] in _NUMBERS
    return isinstance(error, (OperationalError, PoolTimeout, OSError, TimeoutError))

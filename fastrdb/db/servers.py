"""What databases differ in, and what a server says of itself: whether its SELECTs may be cached at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Executable, TableClause, column, func, select
from sqlalchemy.engine import Dialect

from ..errors import SessionRefused

_CACHEABLE = "fastrdb_cacheable"
_ISOLATION = re.compile(r"\bisolation\b", re.IGNORECASE)
# Source: MariaDB's manual, "SQL statements that cause an implicit commit".
_COMMITS = re.compile(
    r"""\s*(?:/\*.*?\*/\s*)*(?:
        (?:ALTER|RENAME|TRUNCATE|GRANT|REVOKE|FLUSH|COMMIT)\b
        |(?:CREATE|DROP)\b(?!\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b)
        |BEGIN\b(?!\s+NOT\b)|START\s+TRANSACTION\b|(?:UN)?LOCK\s+TABLES?\b
        |(?:ANALYZE|OPTIMIZE|REPAIR|CHECK)\s+TABLE\b
        |SET\s+(?:SESSION\s+|LOCAL\s+|@@(?:SESSION\.|LOCAL\.)?)?AUTOCOMMIT\b
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_HEAD = 300  # characters of a statement that are looked at: one that sets something is short


def family(dialect: Dialect) -> str:
    """Give the name under which a dialect is known here: ``"mysql"`` for MariaDB's own, too."""
    return "mysql" if dialect.name in ("mysql", "mariadb") else dialect.name


def check(dialect: Dialect) -> None:
    """Refuse a server that cannot give back what it writes.

    Raises:
        SessionRefused: It is MySQL, or a MariaDB before 10.5.
    """
    if family(dialect) == "mysql" and not (dialect.insert_returning and dialect.delete_returning):
        raise SessionRefused(
            "db: the server has no INSERT ... RETURNING, so it is MySQL or too old; use MariaDB 10.11 or later"
        )


def cacheable(connection: Connection, isolation: str | None) -> bool:
    """Tell whether SELECTs on the connection see what is committed, and all of it. Asked once for each connection.

    A replica, or a node of a Galera cluster that does not wait for the others, may lag behind a write; and MariaDB may
    have been told elsewhere than in the engine to read what nobody has committed.

    Args:
        connection: A connection that is going to send a SELECT.
        isolation: The level that SQLAlchemy was told to set: another one may hold without it.
    """
    ask = _ASKED.get(family(connection.dialect))
    if ask is None:
        return True
    known: dict[str | None, bool] = connection.info.setdefault(_CACHEABLE, {})
    if isolation not in known:
        known[isolation] = ask(connection)
    return known[isolation]


def forget(connection: Connection, statement: str) -> None:
    """Ask again where a statement sets the isolation level behind SQLAlchemy's back."""
    if _CACHEABLE in connection.info and _ISOLATION.search(statement[:_HEAD]):
        del connection.info[_CACHEABLE]


def commits_by_itself(connection: Connection, statement: str) -> bool:
    """Tell whether a statement ends a transaction on MariaDB without a COMMIT of SQLAlchemy's."""
    return family(connection.dialect) == "mysql" and _COMMITS.match(statement) is not None


def commits_each(connection: Connection) -> bool:
    """Tell whether a MariaDB connection commits each statement although SQLAlchemy does not know of it.

    So it is with ``connect_args={"autocommit": True}`` and ``SET autocommit = 1``: there SQLAlchemy sends no BEGIN.
    """
    driver: Any = connection.connection.driver_connection
    begun = getattr(driver, "get_transaction_status", None)
    return bool(driver.get_autocommit()) and not (begun is not None and begun())


def _is_primary(connection: Connection) -> bool:
    return not connection.execute(_RECOVERING).scalar()


def _sees_commits(connection: Connection) -> bool:
    return sees_commits({str(name).upper(): str(value).upper() for name, value in connection.execute(_VARIABLES)})


def sees_commits(said: Mapping[str, str]) -> bool:
    """Judge MariaDB's variables, by upper-case names."""
    level = said.get("TX_ISOLATION") or said.get("TRANSACTION_ISOLATION", "")
    replicates = said.get("READ_ONLY", "OFF") not in ("OFF", "0") or int(said.get("SLAVES_RUNNING") or 0) > 0
    waits = said.get("WSREP_ON", "OFF") == "OFF" or int(said.get("WSREP_SYNC_WAIT") or 0) & 1
    return level != "READ-UNCOMMITTED" and not replicates and bool(waits)


def _said_in(name: str, *names: str) -> Any:
    variable: ColumnElement[str] = column("variable_name")
    source = TableClause(name, schema="information_schema")
    return select(variable, column("variable_value")).select_from(source).where(variable.in_(names))


_RECOVERING: Executable = select(func.pg_is_in_recovery())
_VARIABLES: Executable = _said_in(
    "session_variables", "TX_ISOLATION", "TRANSACTION_ISOLATION", "READ_ONLY", "WSREP_ON", "WSREP_SYNC_WAIT"
).union_all(_said_in("global_status", "SLAVES_RUNNING"))
_ASKED = {"postgresql": _is_primary, "mysql": _sees_commits}

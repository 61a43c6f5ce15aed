"""COPY: the fastest way into PostgreSQL, by asyncpg's own connection, in the transaction that SQLAlchemy has begun."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Column, Connection, Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from ..db.transactions import sent_by_driver
from .arrays import Batch, takes_arrays

# asyncpg encodes by the types that the server's columns have, SQLAlchemy by those that the model says: where the two
# are these, both do the same. Source: pg_type.dat.
_INTEGERS: Final = frozenset({20, 21, 23})
_TEXTS: Final = frozenset({25, 1043})
_OIDS: Final[tuple[tuple[type[TypeEngine[Any]], frozenset[int]], ...]] = (
    (sa.Enum, _TEXTS),
    (sa.JSON, frozenset({114, 3802})),
    (sa.Boolean, frozenset({16})),
    (sa.Integer, _INTEGERS),
    (sa.Float, frozenset({700, 701})),
    (sa.Numeric, frozenset({1700})),
    (postgresql.BYTEA, frozenset({17})),
    (sa.LargeBinary, frozenset({17})),
    (sa.Uuid, frozenset({2950})),
    (sa.Date, frozenset({1082})),
    (sa.CHAR, frozenset()),
    (sa.String, _TEXTS),
)
_BOOLS: Final = (sa.Boolean, sa.BOOLEAN)
# Textual, so that the engine's events count it as a write; it also makes SQLAlchemy begin the driver's transaction.
# COPY takes no table under row-level security, passes rules by, and writes identities that are generated always.
_LOOK: Final = text(
    "SELECT a.attname, a.atttypid, a.attidentity = 'a' OR a.attgenerated <> '', "
    "row_security_active(c.oid) OR c.relhasrules OR c.relkind NOT IN ('r', 'p') "
    "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
    "WHERE c.oid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped"
)


class Copy(NamedTuple):
    """A table that rows can be copied into.

    Attributes:
        table: The table.
        binds: Key of each column that is copied -> what brings its values to what the driver takes, or ``None``.
        defaults: Key of each column that Python fills -> what makes its value.
    """

    table: Table
    binds: dict[str, Callable[[Any], Any] | None]
    defaults: dict[str, Callable[[], Any]]

    def send(self, connection: Connection, batch: Batch) -> int:
        """Copy rows, and give the number of those that are there now: a trigger may let some vanish.

        Raises:
            DBAPIError: As any statement of SQLAlchemy's.
        """
        columns = {**batch.columns}
        for key, make in self.defaults.items():
            columns[key] = [make() for _ in batch.indexes]
        bound = [_bound(columns[key], bind) for key, bind in self.binds.items()]
        names = [self.table.c[key].name for key in self.binds]
        status = _copy(connection, self.table, names, zip(*bound, strict=True))
        return int(status.rpartition(" ")[2])


def copy_into(connection: Connection, table: Table, keys: Sequence[str]) -> Copy | None:
    """Find out whether COPY does what INSERT would; ``None`` where it does not.

    Args:
        connection: On it a statement is sent, which counts as a write.
        table: The table.
        keys: Keys of the columns that are given.
    """
    if not keys or not takes_arrays(connection.dialect) or connection.get_execution_options().get(_TRANSLATED):
        return None
    defaults = _defaults(table, keys)
    if defaults is None:
        return None
    name = connection.dialect.identifier_preparer.format_table(table)
    served = {row[0]: row for row in connection.execute(_LOOK, {"name": name})}
    binds: dict[str, Callable[[Any], Any] | None] = {}
    for key in (*keys, *defaults):
        column, dialect = table.c[key], connection.dialect
        found = served.get(column.name)
        if found is None or found[2] or found[3] or found[1] not in _served_by(column, dialect):
            return None
        # What is given was brought to the column's Python type: a bool is one already.
        as_it_is = key not in defaults and type(column.type) in _BOOLS
        binds[key] = None if as_it_is else column.type.dialect_impl(dialect).bind_processor(dialect)
    return Copy(table, binds, defaults)


_TRANSLATED: Final = "schema_translate_map"


def _served_by(column: Column[Any], dialect: Dialect) -> frozenset[int]:
    """Give the server's types that take a column's bound values just as they are."""
    if column.type.dialect_impl(dialect)._has_bind_expression:  # SQLAlchemy has no public way to ask
        return frozenset()
    kind = column.type.dialect_impl(dialect)
    while isinstance(kind, TypeDecorator):
        kind = kind.impl_instance.dialect_impl(dialect)
    if isinstance(kind, sa.DateTime):
        return frozenset({1184 if kind.timezone else 1114})
    if isinstance(kind, sa.Time):
        return frozenset({1266 if kind.timezone else 1083})
    return next((oids for class_, oids in _OIDS if isinstance(kind, class_)), frozenset())


def _defaults(table: Table, keys: Iterable[str]) -> dict[str, Callable[[], Any]] | None:
    """Give what fills the columns that are not given, as far as Python does; ``None``: only SQLAlchemy knows how."""
    found: dict[str, Callable[[], Any]] = {}
    for column in table.columns:
        default: Any = column.default
        if column.key in keys or default is None:
            continue
        if default.is_scalar:
            found[column.key] = partial(_same, default.arg)
        elif default.is_callable and _takes_nothing(default.arg):
            found[column.key] = partial(default.arg, None)  # SQLAlchemy has wrapped it to take a context
        else:
            return None
    return found


def _takes_nothing(call: Any) -> bool:
    """Tell whether a default wants to know nothing of the statement."""
    try:
        parameters = inspect.signature(call).parameters.values()  # of what was wrapped
    except ValueError:
        return False
    return not any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _same(value: Any) -> Any:
    return value


def _bound(values: Sequence[Any], bind: Callable[[Any], Any] | None) -> Sequence[Any]:
    return values if bind is None else [bind(value) for value in values]


def _copy(connection: Connection, table: Table, columns: Sequence[str], records: Iterable[Any]) -> str:
    adapted: Any = connection.connection.dbapi_connection
    into = {"schema_name": table.schema, "columns": columns, "records": records}
    sent_by_driver(connection, table)
    try:
        try:
            status: str = adapted.run_async(lambda driver: driver.copy_records_to_table(table.name, **into))
        except Exception as error:
            adapted._handle_exception(error)  # SQLAlchemy's own way to its errors, as for its statements
            raise
    except BaseException as error:
        connection._handle_dbapi_exception(error, f"COPY {table.name}", None, None, None)
    return status

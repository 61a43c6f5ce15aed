"""The statements of an upsert, for each database: one that inserts or updates, and says which, and what was there.

Where a row was, PostgreSQL and MariaDB say it out of the statement's own update clause, which leaves a note that
RETURNING reads for the same row: ``xmax = 0`` is refused for partitioned tables, and rows affected are counted for a
whole statement. SQLite has one writer at a time: what is read under its lock is what the statement meets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Executable,
    Insert,
    String,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    false,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql.elements import Grouping

from .arrays import insert_of_arrays
from .conflicts import Upsertion
from .model import Model
from .statements import Change

_NOTE = "fastrdb.upsert"
_VARIABLE = "@fastrdb_upsert"
DEFINE: Executable = select(literal_column(f"{_VARIABLE} := ''"))
"""Makes the variable a text: MariaDB takes one that it does not know for NULL, whatever is assigned meanwhile."""
FOUND, OTHER = "=", "!"


class PostgresUpsert(NamedTuple):
    """PostgreSQL's statements. Each gives ``Change.returned``, whether a row was there, and that row's old image.

    Attributes:
        one: With a row of VALUES; its parameters are the keys of the columns.
        arrays: With ``Batch.arrays``; ``None`` where arrays cannot stand for VALUES.
        olds: The columns of the old image; none where an update does not change them.
    """

    one: Executable
    arrays: Executable | None
    olds: tuple[str, ...]


class SQLiteUpsert(NamedTuple):
    """SQLite's statements: take the lock, see what is there, write; rows that come back end with their keys."""

    lock: Executable
    existing: Callable[[Sequence[tuple[Any, ...]]], Executable]
    write: Executable


class MariaDBUpsert(NamedTuple):
    """MariaDB's statements.

    Attributes:
        claim: Inserts a row, or locks the one that it meets, and says which; the note comes last but one.
        write: Writes a row whose primary key is known, and which is locked.
    """

    claim: Executable
    write: Executable | None


def for_postgresql(
    model: Model, wanted: Upsertion, change: Change, conditions: Sequence[ColumnElement[bool]]
) -> PostgresUpsert:
    """Build PostgreSQL's upsert: *conditions* are what a row that is there must satisfy to be written."""
    table, keys = model.table, [model.columns[name].key for name in wanted.given]
    olds = change.images if change.assigned & set(change.images) else ()
    nonce = _nonce()
    noted: Any = postgresql.array([nonce, *(cast(_named(table, name), Text) for name in olds)])
    note = func.set_config(_NOTE, cast(noted, Text), true()) != ""
    # In parentheses, which PostgreSQL wants before an index.
    read: Any = Grouping(cast(func.nullif(func.current_setting(_NOTE, true()), ""), postgresql.ARRAY(Text)))
    returned = [
        *change.returned.columns,
        func.coalesce(read[1] == nonce, false()).label("fastrdb_found"),
        *(cast(read[at], _named(table, name).type).label(f"fastrdb_old_{name}") for at, name in enumerate(olds, 2)),
        func.set_config(_NOTE, "", true()).label("fastrdb_reset"),  # for the next row; evaluated last
    ]

    def completed(statement: postgresql.Insert) -> Executable:
        sets = _sets(model, wanted, lambda column: statement.excluded[column.key])
        by = [model.columns[name] for name in wanted.conflict]
        where = and_(*conditions, note)
        return statement.on_conflict_do_update(index_elements=by, set_=sets, where=where).returning(*returned)

    arrays = insert_of_arrays(table, keys, list(table.primary_key.columns))
    if not isinstance(arrays, Insert) or arrays.select is None:
        return PostgresUpsert(completed(postgresql.insert(table)), None, olds)
    source = postgresql.insert(table).from_select([table.c[key] for key in keys], arrays.select)
    return PostgresUpsert(completed(postgresql.insert(table)), completed(source), olds)


def for_sqlite(
    model: Model, wanted: Upsertion, change: Change, conditions: Sequence[ColumnElement[bool]]
) -> SQLiteUpsert:
    """Build SQLite's upsert."""
    table, by = model.table, [model.columns[name] for name in wanted.conflict]
    statement = sqlite.insert(table)
    sets = _sets(model, wanted, lambda column: statement.excluded[column.key])
    where = and_(*conditions) if conditions else None
    images = [_named(table, name) for name in change.images]

    def existing(keys: Sequence[tuple[Any, ...]]) -> Executable:
        among = by[0].in_([key[0] for key in keys]) if len(by) == 1 else tuple_(*by).in_(keys)
        return select(*images).where(among)

    write = statement.on_conflict_do_update(index_elements=by, set_=sets, where=where)
    keys = [column.label(f"fastrdb_by_{at}") for at, column in enumerate(by)]
    return SQLiteUpsert(sqlite_lock(table), existing, write.returning(*change.returned.columns, *keys))


def sqlite_lock(table: Table) -> Executable:
    """Give what makes a SQLite connection the only writer, and changes nothing."""
    same = {column.key: column for column in table.primary_key.columns}
    return update(table).where(false()).values(same)


def for_mariadb(
    model: Model, wanted: Upsertion, change: Change, conditions: Sequence[ColumnElement[bool]]
) -> MariaDBUpsert:
    """Build MariaDB's upsert.

    ``ON DUPLICATE KEY UPDATE`` fires on any unique key, so the claim compares the one that was meant, and changes
    nothing. The row is then written by its primary key, which is the first that the server looks at.
    """
    table, key = model.table, next(iter(model.table.primary_key.columns))
    claim, nonce = mysql.insert(table), _nonce()
    variable: ColumnElement[str] = literal_column(_VARIABLE, String)
    columns = [model.columns[name] for name in wanted.conflict]
    meant = and_(*(column.op("<=>")(claim.inserted[column.key]) for column in columns), *conditions)
    note = variable.op(":=")(func.concat(nonce, func.if_(meant, FOUND, OTHER)))
    claimed = claim.on_duplicate_key_update({key.key: func.if_(note == "", key, key)}).returning(
        *change.returned.columns,
        func.if_(func.left(variable, func.length(nonce)) == nonce, func.right(variable, 1), None).label("fastrdb_note"),
        variable.op(":=")(literal("")).label("fastrdb_reset"),
    )
    if not wanted.updated:
        return MariaDBUpsert(claimed, None)
    write = mysql.insert(table)
    sets = _sets(model, wanted, lambda column: write.inserted[column.key])
    return MariaDBUpsert(claimed, write.on_duplicate_key_update(sets).returning(*change.returned.columns))


def inserting(model: Model, wanted: Upsertion, change: Change, dialect: str) -> Executable:
    """Build what inserts a row, or gives nothing where one has its key, for PostgreSQL and SQLite."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    columns = [model.columns[name] for name in wanted.conflict]
    statement: Any = insert(model.table).on_conflict_do_nothing(index_elements=columns)
    found: Executable = statement.returning(*change.returned.columns)
    return found


def _nonce() -> BindParameter[str]:
    """Give a text that no note of an earlier statement can hold."""
    return bindparam("fastrdb_nonce", callable_=lambda: token_hex(8), type_=Text())


def _sets(model: Model, wanted: Upsertion, given: Callable[[Column[Any]], Any]) -> dict[str, Any]:
    """Give what an upsert sets in a row that is there: Core leaves ``onupdate`` to the caller."""
    columns = [model.columns[name] for name in wanted.updated]
    found = {column.key: given(column) for column in columns}
    for column in model.table.columns:
        if column.key not in found and (by_itself := _on_update(column)) is not None:
            found[column.key] = by_itself
    if model.version is not None:
        counted = model.columns[model.version]
        found[counted.key] = counted + 1
    return found


def _on_update(column: Column[Any]) -> Any:
    default: Any = column.onupdate
    if default is None or default.is_sequence:
        return None
    if default.is_callable:
        return bindparam(None, callable_=lambda: default.arg(None), type_=column.type)
    return default.arg if default.is_clause_element else literal(default.arg, column.type)


def _named(table: Table, name: str) -> Column[Any]:
    return next(column for column in table.columns if column.name == name)

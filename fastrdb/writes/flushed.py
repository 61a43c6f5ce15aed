"""The rows of a flush, by table, as far as the session can be trusted with them; and how the rest is read.

What a session remembers of a row may be older than the row that its UPDATE met: only the primary key is certain. The
columns that a flush did not set are the same before and after it, so they are read after it, in its transaction. Where
it set one that a template needs, or deleted a row whose templates need more than the key, nobody knows the old row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import CHAR, Column, Connection, Table, TypeDecorator, select, tuple_
from sqlalchemy.orm import InstanceState, Mapper, PassiveFlag, UOWTransaction
from sqlalchemy.orm.attributes import History, get_history
from sqlalchemy.orm.exc import UnmappedColumnError
from sqlalchemy.sql.compiler import SQLCompiler

from .templates import templates_of
from .touched import MAX_CELLS


@dataclass(slots=True)
class Rows:
    """The rows of one table that a flush wrote.

    Attributes:
        keys: Primary keys of rows that are there, whose images have to be read.
        images: Images of the others.
        unknown: Some cannot be named.
        deleted: Some were deleted.
        changed: Names of the columns that were set in rows that were there before.
    """

    keys: list[tuple[Any, ...]] = field(default_factory=list)
    images: list[Mapping[str, Any]] = field(default_factory=list)
    unknown: bool = False
    deleted: bool = False
    changed: set[str] = field(default_factory=set)

    def change(self, table: Table, columns: Iterable[str]) -> None:
        """Note columns that were set in rows that were there before, with values that nobody knows."""
        columns = set(columns)
        self.changed |= columns
        self.unknown |= any(column.name in columns for column in _needed(table))


def set_in_sql(compiled: Any) -> set[str]:
    """Name the columns that an UPDATE sets to SQL expressions: once it is sent, the session forgets that it has."""
    if not isinstance(compiled, SQLCompiler) or not compiled.isupdate:
        return set()
    return {column.name for column in [*(compiled.postfetch or ()), *(compiled.implicit_returning or ())]}


def rows_of(context: UOWTransaction) -> dict[Table, Rows]:
    """Give the rows that a flush writes; called before the session counts them as clean."""
    found: dict[Table, Rows] = {}
    for state, (deleted, only_listed) in context.states.items():
        mapper: Mapper[Any] = state.manager.mapper
        for table in mapper.tables:
            if not isinstance(table, Table) or (only_listed and not deleted):
                continue
            rows = found.setdefault(table, Rows())
            if only_listed:  # a new object with its key took its row over: instead of DELETE and INSERT, an UPDATE
                rows.change(table, [column.name for column in table.columns if not column.primary_key])
            else:
                _add(rows, _Written(state, mapper, table), deleted=deleted)
    return found


def images_of(connection: Connection, table: Table, rows: Rows) -> list[Mapping[str, Any]] | None:
    """Give all images of the rows, reading those that are not known yet; ``None`` where some cannot be named."""
    if rows.unknown or len(rows.keys) + len(rows.images) > MAX_CELLS:
        return None
    if not rows.keys:
        return rows.images
    columns, key = _needed(table), list(table.primary_key.columns)
    statement = select(*columns).where(tuple_(*key).in_(rows.keys))
    if connection.dialect.name in ("mysql", "mariadb"):  # an UPDATE that changed nothing made no version of its own
        statement = statement.with_for_update()
    found = connection.execute(statement).fetchall()
    if len(found) != len(set(rows.keys)):
        return None  # the database takes other values for these keys than this process
    return [*rows.images, *(dict(zip([c.name for c in columns], row, strict=True)) for row in found)]


class _Written:
    """One instance, as far as it lies in one table."""

    def __init__(self, state: InstanceState[Any], mapper: Mapper[Any], table: Table) -> None:
        self._state, self._mapper, self.table = state, mapper, table
        self.is_new = state.key is None

    def key(self) -> tuple[Any, ...] | None:
        """Give the primary key; ``None`` where the session does not know it."""
        key: list[Any] = []
        for column in self.table.primary_key.columns:
            history = self._history(column)
            found: Sequence[Any] = (history.added or history.unchanged or ()) if history is not None else ()
            key += found[:1]
        return tuple(key) if len(key) == len(self.table.primary_key.columns) else None

    def changed(self) -> Iterator[str]:
        """Name the columns that the flush may have set."""
        for column in self.table.columns:
            history = self._history(column)
            by_itself = column.onupdate is not None or column.server_onupdate is not None or bool(column.computed)
            by_itself = by_itself or column is self._mapper.version_id_col
            if history is None or history.added or history.deleted or by_itself:
                yield column.name

    def _history(self, column: Column[Any]) -> History | None:
        try:
            name = self._mapper.get_property_by_column(column).key
        except UnmappedColumnError:
            return None
        return get_history(self._state.obj(), name, PassiveFlag.PASSIVE_NO_INITIALIZE)


def _add(rows: Rows, written: _Written, *, deleted: bool) -> None:
    needed = {column.name for column in _needed(written.table)}
    own_key = [column.name for column in written.table.primary_key.columns]
    key = written.key()
    if key is None:
        rows.unknown = True
        return
    if deleted:
        rows.deleted = True
        rows.unknown |= not needed.issubset(own_key)
        rows.images.append(dict(zip(own_key, key, strict=True)))
        return
    if not written.is_new:
        rows.change(written.table, written.changed())
    if needed.issubset(own_key) and _is_stored_as_given(written.table, key):
        rows.images.append(dict(zip(own_key, key, strict=True)))
    else:
        rows.keys.append(key)


def _needed(table: Table) -> Sequence[Column[Any]]:
    in_templates = templates_of(table).columns()
    return [column for column in table.columns if column.primary_key or column.name in in_templates]


def _is_stored_as_given(table: Table, key: tuple[Any, ...]) -> bool:
    types = [column.type for column in table.primary_key.columns]
    plain = not any(isinstance(type_, (CHAR, TypeDecorator)) for type_ in types)
    return plain and all(isinstance(value, (int, str, UUID)) for value in key)

"""The statements that change one row, built for one shape of filter, and what they give back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Executable, Row, Select, Table, bindparam, delete, insert, select, update

from ..writes.reach import reached_by_delete, reached_by_update
from .arguments import Asked
from .model import Model


class Returned:
    """The columns that a write gives back: those that the response shows, then what row images need besides."""

    def __init__(self, model: Model, shown: Iterable[ColumnElement[Any]], images: Sequence[str]) -> None:
        self.columns = list(shown)
        at_of = {column: at for at, column in enumerate(self.columns)}
        self._places: list[tuple[str, int]] = []
        for name, column in _named(model.table, images):
            self._places.append((name, at_of.get(column, len(self.columns))))
            if column not in at_of:
                self.columns.append(column.label(f"fastrdb_{name}"))

    def image(self, row: Row[Any]) -> dict[str, Any]:
        """Give the row image: column name -> value."""
        return {name: row[at] for name, at in self._places}

    def places(self, names: Iterable[str]) -> list[int]:
        """Give where these columns of the row image stand in a row."""
        places = dict(self._places)
        return [places[name] for name in names]


class Creation(NamedTuple):
    """An INSERT of one row, what it gives back, and the columns of row images."""

    statement: Executable
    returned: Returned
    images: tuple[str, ...]


class Change(NamedTuple):
    """An UPDATE or a DELETE of one row.

    Attributes:
        lock: What locks the row and gives its image first; ``None`` where that is not needed.
        statement: The change; after a lock it goes by primary key.
        read: What reads the row after it, where an UPDATE gives nothing back; by the new primary key.
        returned: What it gives back.
        images: The columns of row images.
        keys: The columns of the primary key.
        assigned: The columns that an UPDATE may change: named, computed, or set by the column itself.
        reached: Other tables whose rows it may change.
    """

    lock: Executable | None
    statement: Executable
    read: Executable | None
    returned: Returned
    images: tuple[str, ...]
    keys: tuple[str, ...]
    assigned: frozenset[str]
    reached: frozenset[Table]

    def by_key(self, image: Mapping[str, Any]) -> dict[str, Any]:
        """Give the parameters of a change that goes by primary key."""
        return {_key_parameter(name): image[name] for name in self.keys}


def build_creation(model: Model, shown: Iterable[ColumnElement[Any]], images: tuple[str, ...]) -> Creation:
    """Build an INSERT; its parameters are the keys of the columns."""
    returned = Returned(model, shown, images)
    return Creation(insert(model.table).returning(*returned.columns), returned, images)


def build_change(
    model: Model,
    asked: Asked,
    conditions: Sequence[ColumnElement[bool]],
    names: Sequence[str] | None,
    shown: Iterable[ColumnElement[Any]],
    images: tuple[str, ...],
    dialect: str,
    marks: Mapping[str, ColumnElement[Any]] = MappingProxyType({}),
) -> Change:
    """Build what changes the one row that is asked for.

    The row is locked first where the criterion holds no unique key, so that nothing is changed when several match, or
    where the write changes columns that keys are made of, so that the old ones are known. MariaDB's UPDATE gives
    nothing back: there the row is always locked, and read after it.

    Args:
        conditions: All that the row must satisfy.
        names: The attributes that an UPDATE sets, by parameters that ``setting`` names; ``None``: a DELETE.
        shown: The columns of the response; none if it is read back.
        images: The columns of row images.
        dialect: As in ``Place``.
        marks: Further attributes that an UPDATE sets, and to what.
    """
    table, keys = model.table, tuple(model.table.primary_key.columns)
    assigned = frozenset[str]() if names is None else assigned_by(model, [*names, *marks])
    lock = read = None
    reads_back = dialect == "mysql" and names is not None
    by_key = [column == bindparam(_key_parameter(column.name), type_=column.type) for column in keys]
    if reads_back or not model.covers_unique_key(asked.equal) or assigned & set(images):
        lock = _lock(model, conditions, images, dialect)
        # Under AUTOCOMMIT the lock is gone at once: an UPDATE that would do without it says again what was asked for.
        again = reads_back and asked.where is None and asked.filter.fields <= model.columns.keys()
        conditions = [*conditions, *by_key] if again else by_key
    returned = Returned(model, shown, images)
    statement: Executable
    if names is None:
        statement = delete(table).where(*conditions).returning(*returned.columns)
        reached = reached_by_delete(table)
    else:
        change = update(table).where(*conditions).values(set_clauses(model, names, marks))
        statement = change if reads_back else change.returning(*returned.columns)
        reached = reached_by_update(table, assigned)
    if reads_back:
        # Not from the transaction's snapshot, which may be older than the row that an UPDATE left as it was.
        read = select(*returned.columns).where(*by_key).with_for_update()
    return Change(lock, statement, read, returned, images, tuple(c.name for c in keys), assigned, frozenset(reached))


def setting(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the parameters of an UPDATE that sets these attributes."""
    return {_set_parameter(name): value for name, value in values.items()}


def set_clauses(model: Model, names: Sequence[str], marks: Mapping[str, ColumnElement[Any]]) -> dict[str, Any]:
    columns = [(name, model.columns[name]) for name in names]
    found: dict[str, Any] = {c.key: bindparam(_set_parameter(name), type_=c.type) for name, c in columns}
    found |= {model.columns[name].key: value for name, value in marks.items()}
    if model.version is not None:
        counted = model.columns[model.version]
        found[counted.key] = counted + 1
    return found


def _set_parameter(name: str) -> str:
    return f"fastrdb_set_{name}"


def _key_parameter(name: str) -> str:
    return f"fastrdb_key_{name}"


def _lock(model: Model, conditions: Sequence[Any], images: Sequence[str], dialect: str) -> Executable:
    columns = [column.label(f"fastrdb_{name}") for name, column in _named(model.table, images)]
    found = locking(model.table, columns, conditions, dialect)
    return found.limit(2) if isinstance(found, Select) else found


def locking(table: Table, columns: Sequence[Any], conditions: Sequence[Any], dialect: str) -> Executable:
    """Build what locks rows until the transaction's end, and gives columns of them."""
    if dialect == "sqlite":  # no FOR UPDATE: this takes the lock, and changes nothing, what sets itself included
        same = {c.key: c for c in table.columns if c.primary_key or c.onupdate is not None}
        return update(table).where(*conditions).values(same).returning(*columns)
    return select(*columns).where(*conditions).with_for_update(of=table)


def _named(table: Table, names: Iterable[str]) -> list[tuple[str, Column[Any]]]:
    """Find columns by their names; ``Table.c`` goes by keys, which may differ."""
    columns = {column.name: column for column in table.columns}
    return [(name, columns[name]) for name in names]


def assigned_by(model: Model, names: Iterable[str]) -> frozenset[str]:
    """Give the columns that an UPDATE of these attributes may change."""
    counted = [model.version] if model.version is not None else []
    named = {model.columns[name].name for name in (*names, *counted)}
    by_itself = {
        c.name for c in model.table.columns if c.onupdate is not None or c.server_onupdate is not None or c.computed
    }
    return frozenset(named | by_itself)

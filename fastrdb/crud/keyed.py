"""Rows that are named by keys, many at a time: the keys understood, the rows locked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select, select, tuple_, update

from ..db.servers import family
from ..errors import BatchRefused, InputError, RefusedRow, RowsNotFound, UnknownField, UsageError
from .arguments import Asked
from .arrays import item_type, takes_arrays
from .core import C, M, R, U
from .items import Items, refusal

Missing: TypeAlias = Literal["raise", "skip"]
MISSING: Sequence[str] = get_args(Missing)
WhereField: TypeAlias = "str | Sequence[str] | None"
PARAMETERS = 10_000  # of one statement: PostgreSQL's drivers stop at 32 767, SQLite at 32 766


class Locked(NamedTuple):
    """Rows that are locked.

    Attributes:
        rows: By the indexes of the items that name them, in their order.
        keys: Their primary keys.
        images: The columns of row images.
        start: Where those begin in a row; the version, where the model counts them, is last.
    """

    rows: dict[int, Row[Any]]
    keys: Sequence[tuple[Any, ...]]
    images: tuple[str, ...]
    start: int

    def image(self, index: int) -> dict[str, Any]:
        """Give a row image."""
        return dict(zip(self.images, self.rows[index][self.start :], strict=False))


class Keyed(Items[M, C, U, R]):
    """What the writes of many rows ask about the keys that name them."""

    def _key_fields(self, where_field: WhereField) -> tuple[str, ...]:
        """Give the attributes that keys are values of: of a unique key, the primary key by default."""
        if where_field is None:
            return self._model.primary_key
        names = (where_field,) if isinstance(where_field, str) else tuple(where_field)
        for name in names:
            if name not in self._model.columns:
                raise UnknownField(name, self._model.name, self._model.columns)
        tenant = {self._tenancy.field} if self._tenancy is not None else set[str]()
        if not self._model.covers_unique_key(frozenset(tenant.union(names))):
            unique = ", ".join(sorted({"+".join(sorted(key)) for key in self._model.unique}))
            raise UsageError(f"where_field: {', '.join(names)} may name several rows; use a unique key: {unique}")
        return names

    def _keys(
        self, fields: Sequence[str], given: Mapping[int, object], refused: list[RefusedRow]
    ) -> dict[int, tuple[Any, ...]]:
        """Bring keys to the types of their columns, by index; what is wrong with any of them is named."""
        settled = self._settled_keys(fields, given)
        if settled is not None:
            return settled
        found: dict[int, tuple[Any, ...]] = {}
        first: dict[tuple[Any, ...], int] = {}
        for index, key in given.items():
            try:
                values = tuple(self._key_value(name, value) for name, value in _by_field(fields, key))
                before = first.setdefault(self._compared(fields, [values])[0], index)
            except InputError as error:
                refused.append(refusal(index, error))
                continue
            if before != index:
                refused.append(RefusedRow(index, fields[0], f"the same key as in [{before}]"))
            found[index] = values
        return found

    def _settled_keys(self, fields: Sequence[str], given: Mapping[int, object]) -> dict[int, tuple[Any, ...]] | None:
        """Give keys of one field, where they are all of its type and all differ, as nearly always; else ``None``."""
        column = self._model.values[fields[0]]
        if len(fields) > 1 or not column.as_equal or set(map(type, given.values())) != {column.python_type}:
            return None
        try:
            values = column.coerce_all(list(given.values()))
        except InputError:
            return None
        return dict(zip(given, zip(values, strict=True), strict=True)) if len(set(values)) == len(values) else None

    def _key_value(self, name: str, value: object) -> Any:
        if value is None:
            raise InputError(f"{name!r} is None: NULL names no row")
        return self._model.values[name].coerce(value)

    def _compared(self, fields: Sequence[str], keys: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Give keys in a form that is equal in Python just where they are: as they are, or as texts."""
        described = [self._model.values[name] for name in fields]
        if all(each.as_equal for each in described):
            return keys
        return [
            tuple(each.text(each.coerce(value)) for each, value in zip(described, key, strict=True)) for key in keys
        ]

    # -- locking

    def _locked(
        self, connection: Connection, asked: Asked, fields: Sequence[str], keys: Mapping[int, tuple[Any, ...]]
    ) -> Locked:
        """Lock the rows that exist, in the order of their primary keys.

        Args:
            asked: What they must satisfy besides.
            fields, keys: What names them.

        Raises:
            BatchRefused: The database takes two keys for the same row's.
        """
        if family(connection.dialect) == "sqlite":  # no FOR UPDATE: this takes the lock, and changes nothing
            same = {c.key: c for c in self._model.table.columns if c.primary_key or c.onupdate is not None}
            connection.execute(update(self._model.table).where(sa.false()).values(same))
        places = range(len(fields))
        rows: dict[tuple[Any, ...], Row[Any]] = {}
        for part in in_parts(keys.values(), PARAMETERS // len(fields)):
            locked = self._lock_rows(connection, asked, fields, part)
            rows.update(zip(self._compared(fields, _keys_at(places, locked)), locked, strict=True))
        compared = self._compared(fields, list(keys.values()))
        found = {index: rows[key] for index, key in zip(keys, compared, strict=True) if key in rows}
        if len(found) < len(keys) and not all(self._model.values[name].exact for name in fields):
            left = [index for index in keys if index not in found]
            found.update(self._found_by_collation(connection, asked, fields, keys, left))
            found = {index: found[index] for index in keys if index in found}
        images = self._image_columns()
        named = tuple(len(fields) + images.index(column.name) for column in self._model.table.primary_key.columns)
        locked_rows = Locked(found, _keys_at(named, list(found.values())), images, len(fields))
        _check_distinct(locked_rows)
        return locked_rows

    def _found_by_collation(
        self,
        connection: Connection,
        asked: Asked,
        fields: Sequence[str],
        keys: Mapping[int, tuple[Any, ...]],
        left: Sequence[int],
    ) -> Iterator[tuple[int, Row[Any]]]:
        """Lock rows that have the keys in the database's eyes alone; one may have several names."""
        for part in in_parts(left, PARAMETERS // len(fields)):
            if self._lock_rows(connection, asked, fields, [keys[index] for index in part]):
                for index in part:
                    yield from ((index, row) for row in self._lock_rows(connection, asked, fields, [keys[index]]))

    def _lock_rows(
        self, connection: Connection, asked: Asked, fields: Sequence[str], keys: Sequence[tuple[Any, ...]]
    ) -> Sequence[Row[Any]]:
        """Lock rows, and give of each the key that names it, its image, and its version."""
        columns = [self._model.columns[name] for name in fields]
        array = item_type(columns[0]) if len(fields) == 1 and takes_arrays(connection.dialect) else None
        if array is not None:  # one parameter, where IN has one for each key
            named = columns[0] == sa.any_(sa.literal([key[0] for key in keys], sa.ARRAY(array)))
        else:
            named = named_by(columns, keys)
        statement = self._lock_statement(fields, self._image_columns()).where(*self._conditions(asked), named)
        return connection.execute(statement, asked.params).fetchall()

    def _lock_statement(self, fields: Sequence[str], images: Sequence[str]) -> Select[Any]:
        table, by_name = self._model.table, {column.name: column for column in self._model.table.columns}
        named = [*(self._model.columns[name] for name in fields), *(by_name[name] for name in images)]
        if self._model.version is not None:
            named.append(self._model.columns[self._model.version])
        columns = [column.label(f"fastrdb_{at}") for at, column in enumerate(named)]
        return select(*columns).order_by(*table.primary_key.columns).with_for_update(of=table)

    def _check_missing(self, given: Mapping[int, object], found: Collection[int], missing: Missing) -> None:
        if len(found) < len(given) and missing == "raise":
            absent = {index: key for index, key in given.items() if index not in found}
            raise RowsNotFound(self._model.name, absent)


def named_by(columns: Sequence[sa.ColumnElement[Any]], keys: Sequence[tuple[Any, ...]]) -> sa.ColumnElement[bool]:
    """Give the condition that the columns have one of the keys."""
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])
    return tuple_(*columns).in_(keys)


def in_parts(items: Iterable[Any], most: int) -> Iterator[list[Any]]:
    """Cut into lists of at most so many."""
    left = iter(items)
    while part := list(islice(left, max(most, 1))):
        yield part


def _by_field(fields: Sequence[str], key: object) -> list[tuple[str, Any]]:
    """Give a key's values with their fields; a key of one field may be bare."""
    said = f"a value of {fields[0]!r}" if len(fields) == 1 else f"a tuple of {', '.join(map(repr, fields))}"
    if isinstance(key, Mapping):
        if set(key) != set(fields):
            raise InputError(f"the key {dict(key)!r} must have just the fields {', '.join(map(repr, fields))}")
        return [(name, key[name]) for name in fields]
    values = key if isinstance(key, tuple) else (key,)
    if len(values) != len(fields):
        raise InputError(f"the key {key!r} must be {said}, or a mapping")
    return list(zip(fields, values, strict=True))


def _keys_at(places: Sequence[int], rows: Sequence[Row[Any]]) -> list[tuple[Any, ...]]:
    return list(zip(*(map(itemgetter(place), rows) for place in places), strict=True))


def _check_distinct(found: Locked) -> None:
    if len(set(found.keys)) == len(found.keys):
        return
    refused = []
    first: dict[tuple[Any, ...], int] = {}
    for index, key in zip(found.rows, found.keys, strict=True):
        if (before := first.setdefault(key, index)) != index:
            refused.append(RefusedRow(index, None, f"its key names the same row as that of [{before}]"))
    raise BatchRefused("keys", refused)

"""Rows that are named by keys, many at a time: the keys understood, the rows locked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy import Connection, Select, select, tuple_, update

from ..db.servers import family
from ..errors import BatchRefused, InputError, RefusedRow, RowsNotFound, UnknownField, UsageError
from .arrays import item_type, takes_arrays
from .core import C, M, R, U
from .items import Items, refusal

Missing: TypeAlias = Literal["raise", "skip"]
WhereField: TypeAlias = "str | Sequence[str] | None"
PARAMETERS = 10_000  # of one statement: PostgreSQL's drivers stop at 32 767, SQLite at 32 766


class Locked(NamedTuple):
    """A row that is locked.

    Attributes:
        key: Its primary key.
        image: Its row image.
        version: Its version, where the model counts versions.
    """

    key: tuple[Any, ...]
    image: dict[str, Any]
    version: Any


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
        found: dict[int, tuple[Any, ...]] = {}
        first: dict[tuple[str, ...], int] = {}
        for index, key in given.items():
            try:
                values = tuple(self._key_value(name, value) for name, value in _by_field(fields, key))
                before = first.setdefault(self._key_text(fields, values), index)
            except InputError as error:
                refused.append(refusal(index, error))
                continue
            if before != index:
                refused.append(RefusedRow(index, fields[0], f"the same key as in [{before}]"))
            found[index] = values
        return found

    def _key_value(self, name: str, value: object) -> Any:
        if value is None:
            raise InputError(f"{name!r} is None: NULL names no row")
        return self._model.values[name].coerce(value)

    def _key_text(self, fields: Sequence[str], values: Sequence[Any]) -> tuple[str, ...]:
        described = self._model.values
        return tuple(described[name].text(described[name].coerce(v)) for name, v in zip(fields, values, strict=True))

    # -- locking

    def _locked(
        self, connection: Connection, fields: Sequence[str], keys: Mapping[int, tuple[Any, ...]]
    ) -> dict[int, Locked]:
        """Lock the rows that exist, in the order of their primary keys, and give them by index.

        Raises:
            BatchRefused: The database takes two keys for the same row's.
        """
        if family(connection.dialect) == "sqlite":  # no FOR UPDATE: this takes the lock, and changes nothing
            same = {c.key: c for c in self._model.table.columns if c.primary_key or c.onupdate is not None}
            connection.execute(update(self._model.table).where(sa.false()).values(same))
        rows: dict[tuple[str, ...], Locked] = {}
        for part in in_parts(keys.values(), PARAMETERS // len(fields)):
            for key, row in self._lock_rows(connection, fields, part):
                rows[self._key_text(fields, key)] = row
        found: dict[int, Locked] = {}
        left: list[int] = []
        for index, values in keys.items():
            text = self._key_text(fields, values)
            if text in rows:
                found[index] = rows[text]
            else:
                left.append(index)
        if not all(self._model.values[name].exact for name in fields):  # by a collation, one row may have several names
            for part in in_parts(left, PARAMETERS // len(fields)):
                if any(True for _ in self._lock_rows(connection, fields, [keys[index] for index in part])):
                    for index in part:
                        found.update((index, row) for _, row in self._lock_rows(connection, fields, [keys[index]]))
        _check_distinct(found)
        return {index: found[index] for index in keys if index in found}

    def _lock_rows(
        self, connection: Connection, fields: Sequence[str], keys: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[tuple[Any, ...], Locked]]:
        images, width = self._image_columns(), len(fields)
        asked = self._asked({}, None, None)
        columns = [self._model.columns[name] for name in fields]
        array = item_type(columns[0]) if width == 1 and takes_arrays(connection.dialect) else None
        if array is not None:  # one parameter, where IN has one for each key
            named = columns[0] == sa.any_(sa.literal([key[0] for key in keys], sa.ARRAY(array)))
        else:
            named = named_by(columns, keys)
        statement = self._lock_statement(fields, images).where(*self._conditions(asked), named)
        for row in connection.execute(statement, asked.params).fetchall():
            image = dict(zip(images, row[width:], strict=False))
            key = tuple(image[column.name] for column in self._model.table.primary_key.columns)
            yield tuple(row[:width]), Locked(key, image, row[-1] if self._model.version is not None else None)

    def _lock_statement(self, fields: Sequence[str], images: Sequence[str]) -> Select[Any]:
        table, by_name = self._model.table, {column.name: column for column in self._model.table.columns}
        named = [*(self._model.columns[name] for name in fields), *(by_name[name] for name in images)]
        if self._model.version is not None:
            named.append(self._model.columns[self._model.version])
        columns = [column.label(f"fastrdb_{at}") for at, column in enumerate(named)]
        return select(*columns).order_by(*table.primary_key.columns).with_for_update(of=table)

    def _check_missing(self, given: Mapping[int, object], found: Mapping[int, object], missing: Missing) -> None:
        absent = {index: key for index, key in given.items() if index not in found}
        if absent and missing == "raise":
            raise RowsNotFound(self._model.name, absent)


def check_missing_argument(missing: object) -> None:
    """Refuse a ``missing`` that means nothing."""
    if missing not in ("raise", "skip"):
        raise InputError(f"missing must be 'raise' or 'skip', not {missing!r}")


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


def _check_distinct(found: Mapping[int, Locked]) -> None:
    refused = []
    first: dict[tuple[Any, ...], int] = {}
    for index, row in found.items():
        if (before := first.setdefault(row.key, index)) != index:
            refused.append(RefusedRow(index, None, f"its key names the same row as that of [{before}]"))
    if refused:
        raise BatchRefused("keys", refused)

"""Many rows at once: create_multi."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Row, insert
from sqlalchemy.orm import Session

from ..cache.cache import Cache
from ..db.sessions import Place
from ..errors import EmptyInput, UsageError
from ..writes.effects import MAX_CELLS
from .arrays import ROWS, as_arrays, insert_of_arrays, takes_arrays
from .changes import Changes
from .core import UNSET, C, M, MaybeDatabase, MaybeRedis, R, U, Unset
from .statements import Creation, Returned
from .writing import Written


class Bulk(Changes[M, C, U, R]):
    """The writes of many rows."""

    async def create_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        instances: Sequence[C] | Unset = UNSET,
        *,
        commit: bool | None = None,
        **key: Any,
    ) -> list[R]:
        """Insert rows, all or none, and give them as the database has them, in the order of *instances*.

        Args:
            db, redis, commit: As in ``create``.
            instances: Create schemas, at least one.
            **key: Fields that format ``invalidate_pattern_prefix``; the rows are not compared with them.

        Raises:
            EmptyInput: *instances* is empty.
            UniqueViolation, ForeignKeyViolation, NotNullViolation, CheckViolation: The database refused one of them.
            UnknownField, ValueRefused: A field is no column, or its value does not fit.
        """
        database, cache = self._database(db), self._cache(redis)
        place = self._place(database, cache)
        rows = self._parameters(_instances(instances))
        named = {name: self._coerced(name, value) for name, value in key.items()}

        def statements(connection: Connection, session: Session) -> tuple[list[R], Written]:
            creation = self._creation()
            found: dict[int, Row[Any]] = {}
            for indexes in _alike(rows):
                given = self._insert(connection, [rows[index] for index in indexes], creation)
                found.update(zip(indexes, given, strict=True))
            ordered = [found[index] for index in range(len(rows))]
            responses = [self._response(connection, row, creation.returned) for row in ordered]
            written = self._written_rows(cache, place, ordered, creation.returned)
            if cache is not None and named:
                written.directories |= self._space(cache).dropped_by(named)
            return responses, written

        return await self._writer(cache, place, commit).run(database, statements)

    def _insert(self, connection: Connection, rows: Sequence[Mapping[str, Any]], creation: Creation) -> list[Row[Any]]:
        """Insert rows that give the same columns, and give them in their order."""
        table, keys, columns = self._model.table, tuple(rows[0]), creation.returned.columns
        arrays = None
        if takes_arrays(connection.dialect):
            arrays = self._kept(("arrays", keys, creation.images), lambda: insert_of_arrays(table, keys, columns))
        if arrays is None:
            statement = insert(table).returning(*columns, sort_by_parameter_order=True)
            return list(connection.execute(statement, rows).fetchall())
        found: list[Row[Any]] = []
        for start in range(0, len(rows), ROWS):
            found += connection.execute(arrays, as_arrays(keys, rows[start : start + ROWS])).fetchall()
        return found

    def _parameters(self, instances: Sequence[object]) -> list[dict[str, Any]]:
        """Give the columns of each row by their keys."""
        keys = {name: column.key for name, column in self._model.columns.items()}
        renamed = any(name != key for name, key in keys.items())
        found = []
        for instance in instances:
            if not isinstance(instance, BaseModel):
                wrong = type(instance).__name__
                raise UsageError(f"instances: an item is {wrong}; pass instances of the create schema")
            values = self._create_values(instance, {})
            found.append({keys[name]: value for name, value in values.items()} if renamed else values)
        return found

    def _written_rows(self, cache: Cache | None, place: Place, rows: Sequence[Row[Any]], returned: Returned) -> Written:
        """Name what the cache must drop; of too many rows to name, only what a declared pattern needs."""
        few = len(rows) <= MAX_CELLS
        images = [returned.image(row) for row in rows] if few or self._dropped_columns else []
        written = self._written(cache, place, images, None)
        written.everything = not few
        return written


def _instances(instances: Sequence[Any] | Unset) -> list[Any]:
    if instances is UNSET or isinstance(instances, BaseModel) or not hasattr(instances, "__iter__"):
        raise UsageError("instances: pass a list of instances of the create schema")
    found = list(instances)
    if not found:
        raise EmptyInput("instances", "pass at least one row, or do not call create_multi")
    return found


def _alike(rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Group rows that give the same columns: one statement takes one set, and the others keep their defaults."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(tuple(row), []).append(index)
    return list(groups.values())

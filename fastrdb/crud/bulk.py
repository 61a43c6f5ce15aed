"""Many rows at once: create_multi."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, insert
from sqlalchemy.orm import Session

from ..errors import EmptyInput, UsageError
from .changes import Changes
from .core import UNSET, C, M, MaybeDatabase, MaybeRedis, R, U, Unset
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
        rows = [self._parameters(instance) for instance in _instances(instances)]
        named = {name: self._coerced(name, value) for name, value in key.items()}

        def statements(connection: Connection, session: Session) -> tuple[list[R], Written]:
            returned = self._creation().returned
            found: dict[int, Any] = {}
            for indexes in _alike(rows):
                statement = insert(self._model.table).returning(*returned.columns, sort_by_parameter_order=True)
                given = connection.execute(statement, [rows[i] for i in indexes]).fetchall()
                found.update(zip(indexes, given, strict=True))
            ordered = [found[index] for index in range(len(rows))]
            images = [returned.image(row) for row in ordered]
            responses = [self._response(connection, row, image) for row, image in zip(ordered, images, strict=True)]
            written = self._written(cache, place, images, None)
            if cache is not None and named:
                written.directories |= self._space(cache).dropped_by(named)
            return responses, written

        return await self._writer(cache, place, commit).run(database, statements)

    def _parameters(self, instance: object) -> dict[str, Any]:
        if not isinstance(instance, BaseModel):
            raise UsageError(f"instances: an item is {type(instance).__name__}; pass instances of the create schema")
        return {self._model.columns[name].key: value for name, value in self._create_values(instance, {}).items()}


def _instances(instances: Sequence[Any] | Unset) -> list[Any]:
    if instances is UNSET or isinstance(instances, BaseModel) or not hasattr(instances, "__iter__"):
        raise UsageError("instances: pass a list of instances of the create schema")
    found = list(instances)
    if not found:
        raise EmptyInput("instances", "pass at least one row, or do not call create_multi")
    return found


def _alike(rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Group rows that give the same columns: one statement takes one set, and the others keep their defaults."""
    groups: dict[frozenset[str], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(frozenset(row), []).append(index)
    return list(groups.values())

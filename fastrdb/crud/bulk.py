"""Many rows at once: create_multi."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Row, insert
from sqlalchemy.orm import Session

from ..errors import EmptyInput, UnsupportedModel, UsageError
from ..writes.touched import MAX_CELLS
from .arguments import UNSET, MaybeDatabase, MaybeRedis, Sources, Unset
from .arrays import Batch, insert_of_arrays, takes_arrays
from .changes import Changes
from .core import C, M, R, U
from .statements import Creation, Returned
from .writing import Done, Written


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
        sources = await self._asked_sources(db, redis)
        key = dict(self._told(key))
        batches = self._batches(_instances(instances), self._tenancy.named(key) if self._tenancy is not None else None)
        named = {name: self._coerced(name, value) for name, value in key.items()}

        def statements(connection: Connection, session: Session) -> Done[list[R]]:
            creation = self._creation()
            created = self._insert(connection, batches, creation)
            responses = self._responded(connection, created, creation.returned)
            written = self._written_rows(sources, created, creation.returned)
            if self._hooks:
                images = [(None, creation.returned.image(row)) for row in created]
                written.change = self._hooks.change("create", images)
            if sources.space is not None and named:
                written.directories |= sources.space.dropped_by(named)
            return Done(lambda: responses, written)

        return await self._writer(sources, commit).run(sources.db, statements)

    def _batches(self, instances: Sequence[Any], tenant: Any = None) -> list[Batch]:
        """Bring create schemas to columns; rows that leave other columns to their defaults make another batch."""
        given = [self._given(instance, tenant) for instance in instances]
        alike: dict[tuple[str, ...], list[int]] = {}
        for index, row in enumerate(given):
            alike.setdefault(tuple(row), []).append(index)
        return [self._batch(names, indexes, given) for names, indexes in alike.items()]

    def _given(self, instance: object, tenant: Any = None) -> dict[str, Any]:
        if not isinstance(instance, BaseModel):
            raise UsageError(f"instances: an item is {type(instance).__name__}; pass instances of the create schema")
        return self._completed(self._sent(instance), tenant)

    def _batch(self, names: Sequence[str], indexes: list[int], given: Sequence[Mapping[str, Any]]) -> Batch:
        rows = [given[index] for index in indexes]
        columns = {}
        for name in names:
            coerce = self._coercion(name)
            columns[self._model.columns[name].key] = list(map(coerce, map(itemgetter(name), rows)))
        return Batch(indexes, columns)

    def _insert(self, connection: Connection, batches: Sequence[Batch], creation: Creation) -> list[Row[Any]]:
        """Insert all rows, and give them in their order."""
        if len(batches) == 1:
            return self._insert_batch(connection, batches[0], creation)
        found: dict[int, Row[Any]] = {}
        for batch in batches:
            found.update(zip(batch.indexes, self._insert_batch(connection, batch, creation), strict=True))
        return [found[index] for index in range(len(found))]

    def _insert_batch(self, connection: Connection, batch: Batch, creation: Creation) -> list[Row[Any]]:
        table, keys, columns = self._model.table, tuple(batch.columns), creation.returned.columns
        arrays = None
        if takes_arrays(connection.dialect):
            arrays = self._kept(("arrays", keys, creation.images), lambda: insert_of_arrays(table, keys, columns))
        if arrays is None:
            statement = insert(table).returning(*columns, sort_by_parameter_order=True)
            return list(connection.execute(statement, batch.rows()).fetchall())
        found = [row for part in batch.arrays() for row in connection.execute(arrays, part).fetchall()]
        if len(found) != len(batch.indexes):
            raise UnsupportedModel(self._model.name, "a trigger of its table lets rows vanish; create them one by one")
        return found

    def _responded(self, connection: Connection, rows: Sequence[Row[Any]], returned: Returned) -> list[R]:
        if self._plain:
            return self._responses.build_all(rows)
        return self._read_back_all(connection, [returned.image(row) for row in rows])

    def _written_rows(self, sources: Sources, rows: Sequence[Row[Any]], returned: Returned) -> Written:
        """Name what the cache must drop; of too many rows to name, only what a declared pattern needs."""
        few = len(rows) <= MAX_CELLS
        images = [returned.image(row) for row in rows] if few or self._dropped_columns else []
        written = self._written(sources, images, None)
        written.everything = not few
        return written


def _instances(instances: Sequence[Any] | Unset) -> list[Any]:
    if instances is UNSET or isinstance(instances, BaseModel) or not hasattr(instances, "__iter__"):
        raise UsageError("instances: pass a list of instances of the create schema")
    found = list(instances)
    if not found:
        raise EmptyInput("instances", "pass at least one row, or do not call create_multi")
    return found

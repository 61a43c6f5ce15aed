"""Many rows at once: create_multi."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from sqlalchemy import Connection, Row, insert
from sqlalchemy.orm import Session

from ..writes.touched import MAX_CELLS
from .arguments import UNSET, MaybeDatabase, MaybeRedis, Sources, Unset
from .arrays import Batch, insert_of_arrays, takes_arrays
from .copying import copy_into
from .core import C, M, R, U
from .insertions import Insertions, vanished
from .items import Items, listed_items
from .progress import Progress, Sent
from .statements import Creation, Returned, build_creation
from .writing import Done, Written


class Bulk(Items[M, C, U, R], Insertions[M, C, U, R]):
    """The insertion of many rows."""

    @overload
    async def create_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        instances: Sequence[C] | Unset = UNSET,
        *,
        returning: Literal[True] = True,
        progress: Progress | None = None,
        commit: bool | None = None,
        **key: Any,
    ) -> list[R]: ...

    @overload
    async def create_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        instances: Sequence[C] | Unset = UNSET,
        *,
        returning: Literal[False],
        progress: Progress | None = None,
        commit: bool | None = None,
        **key: Any,
    ) -> int: ...

    @overload
    async def create_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        instances: Sequence[C] | Unset = UNSET,
        *,
        returning: bool,
        progress: Progress | None = None,
        commit: bool | None = None,
        **key: Any,
    ) -> list[R] | int: ...

    async def create_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        instances: Sequence[C] | Unset = UNSET,
        *,
        returning: bool = True,
        progress: Progress | None = None,
        commit: bool | None = None,
        **key: Any,
    ) -> list[R] | int:
        """Insert rows, all or none, and give them as the database has them, in the order of *instances*.

        Args:
            db, redis, commit: As in ``create``.
            instances: Create schemas, at least one.
            returning: ``False``: the rows are not wanted; their number is given, and they go the fastest way that
                the driver has.
            progress: Called with the number of rows that were sent so far, after each statement; what it raises
                undoes all of them.
            **key: Fields that format ``invalidate_pattern_prefix``. They set no column, and the rows are not compared
                with them; but the tenant is whose the rows are.

        Raises:
            EmptyInput: *instances* is empty.
            BatchRefused: Some instances are wrong; it names each of them. Nothing was sent.
            UniqueViolation, ForeignKeyViolation, NotNullViolation, CheckViolation: The database refused one of them.
        """
        sources = await self._asked_sources(db, redis, self._linked_tables())
        key = dict(self._told(key))
        tenant = self._tenancy.named(key) if self._tenancy is not None else None
        batches = self._batches(listed_items(instances, "instances", "create_multi"), tenant)
        named = {name: self._coerced(name, value) for name, value in key.items()}
        count = sum(len(batch.indexes) for batch in batches)

        def statements(connection: Connection, session: Session) -> Done[list[R] | int]:
            self._check_links(connection, [batch.columns for batch in batches])
            creation = self._creation() if returning else self._bare_creation()
            with self._all_or_none(connection, sources, commit):
                if returning or count <= MAX_CELLS or self._dropped_columns:
                    created = self._insert(connection, batches, creation, Sent(progress))
                    written = self._written_rows(sources, created, creation.returned)
                else:
                    self._pour(connection, batches, progress)
                    created, written = [], self._written(sources, [], None)
                    written.everything = True
                    written.change = self._hooks.change("create", None)
                responses: list[R] | int = count
                if returning:
                    responses = self._answers(connection, created, map(creation.returned.image, created))
            if sources.space is not None and named:
                written.directories |= sources.space.dropped_by(named)
            return Done(lambda: responses, written)

        return await self._writer(sources, commit).run(sources.db, statements)

    def _bare_creation(self) -> Creation:
        """Give the creation whose rows nobody wants to see: only their images come back."""
        images = self._image_columns()
        found: Creation = self._kept(("create bare", images), lambda: build_creation(self._model, (), images))
        return found

    # -- rows that need not come back

    def _pour(self, connection: Connection, batches: Sequence[Batch], progress: Progress | None) -> None:
        """Insert rows that need not come back."""
        sent = Sent(progress)
        for batch in batches:
            self._pour_batch(connection, batch, sent)

    def _pour_batch(self, connection: Connection, batch: Batch, sent: Sent) -> None:
        table, keys = self._model.table, tuple(batch.columns)
        if (copy := copy_into(connection, table, keys)) is not None:
            written = sum(copy.send(connection, part) for part in sent.cut(batch))
            if written != len(batch.indexes):
                raise vanished(self._model)
            return
        arrays = None
        if takes_arrays(connection.dialect):
            arrays = self._kept(("arrays", keys), lambda: insert_of_arrays(table, keys, ()))
        for part in sent.cut(batch, limited=arrays is not None):
            if arrays is not None:
                connection.execute(arrays, part.arrays())
            else:
                connection.execute(insert(table), part.rows())

    def _written_rows(self, sources: Sources, rows: Sequence[Row[Any]], returned: Returned) -> Written:
        """Name what the cache must drop; of too many rows to name, only what a declared pattern needs."""
        few = len(rows) <= MAX_CELLS
        images = [returned.image(row) for row in rows] if few or self._dropped_columns else []
        written = self._written(sources, images, None)
        written.everything = not few
        written.change = self._hooks.change("create", ((None, returned.image(row)) for row in rows))
        return written

"""Many rows, deleted: delete_multi."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Delete, Update, delete, select, update
from sqlalchemy.orm import Session

from ..db.servers import family
from ..errors import BatchRefused, RefusedRow
from ..writes.reach import reached_by_delete, reached_by_update
from ..writes.touched import MAX_CELLS
from .arguments import UNSET, Asked, MaybeDatabase, MaybeRedis, Sources, Unset, check_missing
from .committed import Image
from .core import C, M, R, U
from .instances import alters
from .items import listed_items
from .keyed import MISSING, PARAMETERS, Keyed, Locked, Missing, WhereField, in_parts, named_by
from .progress import Progress, Sent
from .statements import assigned_by, set_clauses
from .writing import Done, Written

K = TypeVar("K")


class Deletions(Keyed[M, C, U, R]):
    """The deletion of many rows."""

    async def delete_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        keys: Iterable[K] | Unset = UNSET,
        *,
        where_field: WhereField = None,
        missing: Missing = "raise",
        progress: Progress | None = None,
        commit: bool | None = None,
        **whose: Any,
    ) -> list[K]:
        """Delete the rows with these keys, all or none, and give the keys of those that there were.

        Args:
            db, redis, commit: As in ``create``.
            keys: At least one: bare values, tuples where the key has several fields, or mappings.
            where_field: The attributes of a unique key that *keys* are values of; by default the primary key.
            missing: ``"skip"``: keys that name no row are left out of the answer.
            progress: As in ``create_multi``.
            **whose: The tenant, as in ``create``, where rows belong to tenants; no other field.

        Raises:
            EmptyInput: *keys* is empty.
            BatchRefused: Some keys are wrong, or there twice; it names each of them. Nothing was sent.
            RowsNotFound: Some name no row; it names each of them, and nothing is deleted.
            ForeignKeyViolation: Another row refers to one of them.
        """
        check_missing(missing, MISSING)
        sources = await self._asked_sources(db, redis)
        asked = self._asked(self._for_whom("delete_multi", whose), None, None)
        fields, refused = self._key_fields(where_field), list[RefusedRow]()
        given: dict[int, K] = dict(enumerate(listed_items(keys, "keys", "delete_multi")))
        wanted = self._keys(fields, given, refused)
        if refused:
            raise BatchRefused("keys", refused)

        def statements(connection: Connection, session: Session) -> Done[list[K]]:
            with self._all_or_none(connection, sources, commit):
                found = self._locked(connection, asked, fields, wanted)
                self._check_missing(given, found.rows, missing)
                gone = self._delete_rows(connection, asked, found, Sent(progress))
                self._check_missing(given, gone, missing)
            if session.identity_map:
                for index in gone:
                    self._let_go(session, found.image(index))
            return Done(lambda: [given[index] for index in gone], self._written_deletions(sources, found, gone))

        return await self._writer(sources, commit).run(sources.db, statements)

    def _delete_rows(self, connection: Connection, asked: Asked, found: Locked, sent: Sent) -> dict[int, Image]:
        """Delete rows that are locked, and give those that were still there: where nothing is locked, some may not.

        Each has its image as it is now, if it is marked and the mark changed what keys are made of.
        """
        gone: dict[int, Image] = {}
        keys = len(self._model.table.primary_key.columns)
        for part in in_parts(zip(found.keys, found.rows, strict=True), PARAMETERS // keys):
            gone.update(self._delete_part(connection, asked, dict(part), found.images))
            sent.count(len(part))
        return {index: gone[index] for index in found.rows if index in gone}

    def _delete_part(
        self, connection: Connection, asked: Asked, by_key: Mapping[tuple[Any, ...], int], images: Sequence[str]
    ) -> Iterator[tuple[int, Image]]:
        table, deletion, dialect = self._model.table, self._policies.deletion, family(connection.dialect)
        moved = deletion is not None and assigned_by(self._model, deletion.columns) & set(images)
        keys = [column.name for column in table.primary_key.columns]
        names = images if moved else keys
        by_name = {column.name: column for column in table.columns}
        columns = [by_name[name] for name in names]
        named = named_by(tuple(table.primary_key.columns), list(by_key))
        statement = self._deletion(dialect).where(*self._conditions(asked), named)
        rows: Collection[Sequence[Any]]
        if isinstance(statement, Update) and dialect == "mysql":  # which gives nothing back; they are locked
            connection.execute(statement, asked.params)
            rows = connection.execute(select(*columns).where(named).with_for_update()).fetchall() if moved else by_key
        else:
            rows = connection.execute(statement.returning(*columns), asked.params).fetchall()
        if len(rows) < len(by_key) and isinstance(statement, Delete) and table in reached_by_delete(table):
            # Some may have gone with others: PostgreSQL alone gives those back, too.
            left = set(map(tuple, connection.execute(select(*columns).where(named))))
            rows = by_key.keys() - left
        for row in rows:
            image = dict(zip(names, row, strict=True))
            yield by_key[tuple(image[name] for name in keys)], image if moved else None

    def _deletion(self, dialect: str) -> Update | Delete:
        """Give what deletes rows, or marks them deleted."""
        marks = self._policies.marking("marks", dialect)
        if not marks:
            return delete(self._model.table)
        return update(self._model.table).values(set_clauses(self._model, (), marks))

    def _let_go(self, session: Session, image: Mapping[str, Any]) -> None:
        """Forget the session's own instance of a row, or let it read the marks when it is asked."""
        deletion = self._policies.deletion
        if deletion is None:
            self._forget(session, image)
        elif (instance := self._instance(session, image)) is not None:
            alters(session, instance)
            session.expire(instance, list(deletion.columns))

    def _written_deletions(self, sources: Sources, found: Locked, gone: Mapping[int, Image]) -> Written:
        few = len(gone) <= MAX_CELLS
        images: list[dict[str, Any]] = []
        if few or self._dropped_columns:
            images = [*map(found.image, gone), *(dict(after) for after in gone.values() if after is not None)]
        written = self._written(sources, images, None)
        written.everything = not few
        table, deletion = self._model.table, self._policies.deletion
        written.tables |= reached_by_delete(table) if deletion is None else reached_by_update(table, deletion.names)
        written.change = self._hooks.change("delete", ((found.image(index), None) for index in gone))
        return written

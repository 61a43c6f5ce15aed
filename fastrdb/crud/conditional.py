"""Writes by condition: update_where, delete_where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Executable, delete, select, tuple_, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state, set_committed_value
from sqlalchemy.sql.elements import True_

from ..db.servers import family
from ..db.sessions import place_of
from ..errors import EmptyInput, InputError
from ..writes.touched import MAX_CELLS
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources, Unset
from .changes import Changes, schema_object
from .committed import Image
from .core import C, M, R, U
from .instances import alters, lets_go
from .statements import Change, set_clauses, setting
from .upsert_statements import sqlite_lock
from .writing import Done, Written

_KEYS = 500  # of one SELECT
TOLD = 10_000
"""Rows that hooks are told one by one, at most: nobody knows how many a condition names, and all are kept in memory."""


@dataclass(slots=True)
class Tally:
    """What the statements of one call have changed so far.

    Attributes:
        rows: How many rows.
        images: Their images, before and after, for the cache.
        unnamed: Rows were changed that the images do not name.
        told: The images of each row before and after it, for hooks; ``None``: nobody is told, or not by rows.
    """

    rows: int = 0
    images: list[dict[str, Any]] = field(default_factory=list)
    unnamed: bool = False
    told: list[tuple[Image, Image]] | None = None

    @property
    def most(self) -> int:
        """How many more rows have to be looked at, to know whether they are few enough to be named."""
        named = 0 if self.unnamed else MAX_CELLS + 1 - self.rows
        return max(named, TOLD + 1 - self.rows if self.told is not None else 0)

    def count(self, changed: int, looked_at: int) -> None:
        """Note that rows were changed; of too many, or of others than were looked at, nobody is told one by one."""
        self.rows += changed
        certain = changed == looked_at  # else others were locked than were changed
        self.unnamed |= not certain or self.rows > MAX_CELLS
        if not certain or self.rows > TOLD:
            self.told = None


@dataclass(frozen=True, slots=True)
class Work:
    """What is done to the rows that a condition names.

    Attributes:
        change: Its parts; the statement itself goes by the condition.
        values: What is set; ``None``: the rows are deleted.
        certain: The condition names the same rows for as long as they are locked.
        takes_others: Rows may go with others that match, by a foreign key to their own table, and nobody counts them.
        all_images: Every row has to be looked at, to be counted or because a declared pattern needs its columns.
    """

    asked: Asked
    change: Change
    values: Mapping[str, Any] | None
    certain: bool
    takes_others: bool
    all_images: bool


class Conditional(Changes[M, C, U, R]):
    """The writes of all rows that satisfy a condition."""

    async def update_where(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        obj_in: U | Unset = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        all_rows: bool = False,
        batch: int | None = None,
        progress: Callable[[int], object] | None = None,
        commit: bool | None = None,
        **keywords: Any,
    ) -> int:
        """Change all rows that match, and give their number.

        Args:
            db, redis, commit, where, filters: As in ``update``.
            obj_in: The update schema; only fields that were set are written, and ``None`` is NULL. The version of a
                model that counts versions is not written but compared.
            all_rows: Every row is meant: says so where there is no condition.
            batch: Most rows of one statement; all of them are in one transaction. Rows go by their primary key.
            progress: Called after each statement with the number of rows so far, before COMMIT.
            **keywords: Filters; an empty list matches nothing.

        Returns:
            The number of rows that matched; those that had the values already are among them.

        Raises:
            EmptyInput: There is no condition, and *all_rows* was not said; or no field was set.
            UniqueViolation, ForeignKeyViolation, NotNullViolation, CheckViolation: The database refused it.
        """
        sources = await self._asked_sources(db, redis, self._linked_tables())
        values = self._update_values(schema_object(obj_in), keywords)
        seen = self._seen_version(keywords, values)
        asked = self._condition_of(keywords, filters, where, all_rows, seen)
        if _size(batch) and set(values) & set(self._model.primary_key):
            raise InputError("batch: rows go by their primary key, which obj_in changes; leave batch out")
        return await self._write_where(sources, asked, values, batch, progress, commit)

    async def delete_where(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        all_rows: bool = False,
        batch: int | None = None,
        progress: Callable[[int], object] | None = None,
        commit: bool | None = None,
        **keywords: Any,
    ) -> int:
        """Delete all rows that match, and give their number.

        Args:
            As ``update_where``.

        Raises:
            EmptyInput: There is no condition, and *all_rows* was not said.
            ForeignKeyViolation: Another row refers to one of them.
        """
        sources = await self._asked_sources(db, redis)
        asked = self._condition_of(keywords, filters, where, all_rows, {})
        _size(batch)
        return await self._write_where(sources, asked, None, batch, progress, commit)

    def _condition_of(
        self,
        keywords: Mapping[str, Any],
        filters: Filters,
        where: ColumnElement[bool] | None,
        all_rows: bool,
        seen: Mapping[str, Any],
    ) -> Asked:
        """Parse the condition, and refuse none."""
        unsaid = filters is None or filters == {}
        tenant = {self._tenancy.field} if self._tenancy is not None else set[str]()  # no condition of the caller's
        empty = not keywords.keys() - tenant and unsaid and (where is None or isinstance(where, True_))
        if empty and not all_rows:
            raise EmptyInput("the condition", "say which rows are meant, or all_rows=True for every row")
        if all_rows and not empty:
            raise InputError("all_rows=True goes without a condition: leave one of them out")
        return self._asked({**keywords, **seen}, filters, where)

    async def _write_where(
        self,
        sources: Sources,
        asked: Asked,
        values: Mapping[str, Any] | None,
        batch: int | None,
        progress: Callable[[int], object] | None,
        commit: bool | None,
    ) -> int:
        def statements(connection: Connection, session: Session) -> Done[int]:
            self._check_links_of_rows(connection, [values] if values else [], asked)
            work = self._conditional_work(connection, asked, values)
            stays = work.certain and not place_of(connection, sources.place).autocommit
            told = self._hooks and stays and not sources.place.bound
            tally = Tally(unnamed=sources.cache is None or not stays, told=[] if told else None)
            if family(connection.dialect) == "sqlite":
                connection.execute(sqlite_lock(self._model.table))
            for part in self._where_parts(connection, work, batch):
                self._change_where_part(connection, work, part, tally)
                if progress is not None:
                    progress(tally.rows)
            self._follow_where(connection, session, work)
            written = self._written(sources, tally.images, None) if tally.rows else Written(nothing=True)
            if tally.rows:
                written.everything |= tally.unnamed
                written.change = self._hooks.change("delete" if values is None else "update", tally.told)
                written.tables |= work.change.reached
            return Done(lambda: tally.rows, written)

        return await self._writer(sources, commit).run(sources.db, statements)

    def _conditional_work(self, connection: Connection, asked: Asked, values: Mapping[str, Any] | None) -> Work:
        marks = values is None and self._policies.deletion is not None
        names = () if marks else None if values is None else tuple(values)
        change = self._change(connection, asked, names, "marks" if marks else None)
        moved = bool(change.assigned & set(change.keys))
        certain = asked.uncacheable is None and not asked.tables and not moved
        cascades = values is None and not marks and self._model.table in change.reached
        takes_others = cascades and family(connection.dialect) != "postgresql"  # which counts all that matched
        return Work(asked, change, values, certain, takes_others, takes_others or bool(self._dropped_columns))

    # -- statements

    def _where_parts(
        self, connection: Connection, work: Work, batch: int | None
    ) -> Iterator[list[ColumnElement[bool]]]:
        """Give the bounds of each statement, by primary key; the last has no upper one.

        The next is asked for when the statement before it is done.
        """
        if batch is None:
            yield []
            return
        keys = list(self._model.table.primary_key.columns)
        beyond: list[ColumnElement[bool]] = []
        while True:
            ends = select(*keys).where(*self._conditions(work.asked), *beyond).order_by(*keys)
            end = connection.execute(ends.offset(batch - 1).limit(1), work.asked.params).one_or_none()
            if end is None:
                yield beyond
                return
            if len(keys) == 1:
                yield [*beyond, keys[0] <= end[0]]
                beyond = [keys[0] > end[0]]
            else:
                yield [*beyond, tuple_(*keys) <= tuple_(*end)]
                beyond = [tuple_(*keys) > tuple_(*end)]

    def _change_where_part(
        self, connection: Connection, work: Work, part: list[ColumnElement[bool]], tally: Tally
    ) -> None:
        conditions = [*self._conditions(work.asked), *part]
        before = self._look_at_matching(connection, work, conditions, tally)
        statement: Executable
        if work.values is None and self._policies.deletion is None:
            statement, parameters = delete(self._model.table).where(*conditions), work.asked.params
        else:
            marks = self._policies.marking("marks" if work.values is None else None, family(connection.dialect))
            values = work.values or {}
            statement = (
                update(self._model.table).where(*conditions).values(set_clauses(self._model, list(values), marks))
            )
            parameters = {**work.asked.params, **setting(values)}
        changed = connection.execute(statement, parameters).rowcount
        if work.takes_others:
            changed = max(changed, len(before))
        tally.count(changed, len(before))
        self._note_images(connection, work, before, tally)

    def _note_images(self, connection: Connection, work: Work, before: list[dict[str, Any]], tally: Tally) -> None:
        """Note the images of rows that were changed, as far as anybody wants them."""
        keeps = work.all_images or not tally.unnamed
        if not keeps:
            tally.images = []
            if tally.told is None:
                return
        after: Sequence[Image] = before
        images = list(before)
        if work.change.assigned & set(work.change.images):  # by a mark, too: the row is in other lists then
            after = again = self._images_again(connection, work.change, before)
            images += again
        if work.values is None:
            after = [None] * len(before)
        if keeps:
            tally.images += images
        if len(after) != len(before):
            tally.told = None
        if tally.told is not None:
            tally.told += zip(before, after, strict=True)

    def _look_at_matching(
        self, connection: Connection, work: Work, conditions: Sequence[ColumnElement[bool]], tally: Tally
    ) -> list[dict[str, Any]]:
        """Lock rows, and give their images, as far as they may be few enough to be named."""
        if not tally.most and not work.all_images:
            return []
        columns = self._image_parts(work.change.images)
        statement = select(*columns).where(*conditions)
        if not work.all_images:
            statement = statement.limit(tally.most)
        if family(connection.dialect) != "sqlite":
            statement = statement.with_for_update(of=self._model.table)
        rows = connection.execute(statement, work.asked.params).fetchall()
        return [dict(zip(work.change.images, row, strict=True)) for row in rows]

    def _images_again(
        self, connection: Connection, change: Change, images: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Read the images of rows that are locked again, by primary key, in their order.

        Those that are not there under their key any more are left out.
        """

        def key_of(image: Mapping[str, Any]) -> tuple[Any, ...]:
            return tuple(image[name] for name in change.keys)

        rows = self._read_by_keys(connection, list(map(key_of, images)), self._image_parts(change.images), locked=True)
        again = [dict(zip(change.images, row, strict=True)) for row in rows]
        by_key = {key_of(image): image for image in again}
        return [by_key[key] for key in map(key_of, images) if key in by_key]

    def _read_by_keys(
        self,
        connection: Connection,
        keys: Sequence[tuple[Any, ...]],
        columns: Sequence[ColumnElement[Any]],
        *,
        locked: bool = False,
    ) -> Iterator[Any]:
        """Read columns of rows.

        Args:
            locked: They are ours: MariaDB's snapshot may be older than one that an UPDATE left as it was.
        """
        primary = list(self._model.table.primary_key.columns)
        for start in range(0, len(keys), _KEYS):
            some = keys[start : start + _KEYS]
            among = primary[0].in_([key[0] for key in some]) if len(primary) == 1 else tuple_(*primary).in_(some)
            statement = select(*columns).where(among)
            if locked and family(connection.dialect) == "mysql":
                statement = statement.with_for_update()
            yield from connection.execute(statement)

    def _image_parts(self, names: Sequence[str]) -> list[ColumnElement[Any]]:
        columns = {column.name: column for column in self._model.table.columns}
        return [columns[name] for name in names]

    # -- the caller's own instances

    def _follow_where(self, connection: Connection, session: Session, work: Work) -> None:
        """Give the session's own instances what was written, and forget those whose rows are gone."""
        mapper = self._model.mapper
        own = {
            tuple(instance_state(instance).key[1]): instance  # type: ignore[index]  # in an identity map, it has one
            for instance in session.identity_map.values()
            if isinstance(instance, self._model.cls)
        }
        if not own:
            return
        columns = list(mapper.primary_key)
        names = [name for name, column in self._model.columns.items() if column.name in work.change.assigned]
        if work.change.assigned & set(work.change.keys):  # rows that cannot be found by what instances know of them
            for instance in own.values():
                alters(session, instance)
                session.expire(instance, names)
            return
        shown = [*columns, *(self._model.columns[name] for name in names)]
        found = {
            tuple(row[: len(columns)]): row[len(columns) :] for row in self._read_by_keys(connection, list(own), shown)
        }
        for key, instance in own.items():
            if key in found:
                alters(session, instance)
                pending = instance_state(instance).committed_state  # changed by the caller, and not flushed yet
                for name, value in zip(names, found[key], strict=True):
                    if name not in pending:
                        set_committed_value(instance, name, value)
            elif work.values is None:
                lets_go(session, instance)


def _size(batch: int | None) -> bool:
    if batch is None:
        return False
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise InputError(f"batch must be a whole number of rows, 1 or more, not {batch!r}")
    return True

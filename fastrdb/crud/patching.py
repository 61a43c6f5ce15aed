"""One row, changed where it differs: patch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Executable, Select, false, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import Null

from ..db.servers import family
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources, Unset
from .changes import Changes, schema_object
from .core import C, M, R, U
from .statements import Returned
from .writing import Done, Written

Shown = TypeVar("Shown")


class Updated(NamedTuple, Generic[Shown]):
    """What a patch did.

    Attributes:
        row: The row as the database then has it.
        changed: The attributes that it changed; empty where all of them had their values already.
    """

    row: Shown
    changed: frozenset[str]


class _Look(NamedTuple):
    """How the row is looked at first.

    Attributes:
        lock: What is sent before, on SQLite.
        statement: Locks the row and reads it.
        returned: The columns that it gives.
    """

    lock: Executable | None
    statement: Select[Any]
    returned: Returned


class Patching(Changes[M, C, U, R]):
    """The write that looks before it writes."""

    async def patch(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        obj_in: U | Unset = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        commit: bool | None = None,
        **key: Any,
    ) -> Updated[R]:
        """Change the fields that differ in the one row that matches, and tell which those were.

        The row is locked and read first. Fields that were not set are left alone, as in ``update``; so are those that
        have their values already. Where none differs, no UPDATE is sent: no version is counted, no ``updated_at``
        moves, nothing is dropped from the cache, and no hook is called.

        Arguments and errors as in ``update``.
        """
        sources = await self._asked_sources(db, redis, self._linked_tables())
        values = self._update_values(schema_object(obj_in), key)
        asked = self._criterion(key, filters, where, self._seen_version(key, values))

        def statements(connection: Connection, session: Session) -> Done[Updated[R]]:
            return self._patch(connection, session, sources, asked, values)

        return await self._writer(sources, commit).run(sources.db, statements)

    def _patch(
        self,
        connection: Connection,
        session: Session,
        sources: Sources,
        asked: Asked,
        values: Mapping[str, Any],
    ) -> Done[Updated[R]]:
        look = self._look(connection, asked, tuple(values))
        if look.lock is not None:
            connection.execute(look.lock)
        row = self._one(connection, asked, look.statement, asked.params)
        image = look.returned.image(row)
        differing = {name: value for name, value in values.items() if self._differs(name, value, image)}
        changed = frozenset(differing)
        if not differing:
            answer = self._answer(connection, row, look.returned)
            return Done(lambda: Updated(answer(), changed), Written(nothing=True))
        done = self._update(connection, session, sources, asked, differing)
        return Done(_told(done.answer, changed), done.written)

    def _differs(self, name: str, value: Any, image: Mapping[str, Any]) -> bool:
        """Tell whether a column has another value: by its canonical text, so that 1.5 is 1.50."""
        kept, values = image[self._model.columns[name].name], self._model.values[name]
        null = value is None or isinstance(value, Null)  # which None is in a JSON column
        if kept is None or null:
            return kept is not None or not null
        if values.category != "plain" and values.category != "text":
            return bool(type(kept) is not type(value) or kept != value)
        return values.text(kept) != values.text(value)

    def _look(self, connection: Connection, asked: Asked, names: tuple[str, ...]) -> _Look:
        table, dialect = self._model.table, family(connection.dialect)
        images = self._image_columns()
        needed = dict.fromkeys([*images, *(self._model.columns[name].name for name in names)])

        def build() -> _Look:
            returned = Returned(self._model, self._shown_columns(), tuple(needed))
            statement = select(*returned.columns).where(*self._conditions(asked)).limit(2).with_for_update(of=table)
            keys = {column.key: column for column in table.primary_key.columns}
            # No row locks on SQLite: an UPDATE of no row takes the database's.
            lock = update(table).where(false()).values(keys) if dialect == "sqlite" else None
            return _Look(lock, statement, returned)

        if asked.where is not None:
            return build()
        found: _Look = self._kept(("look", names, images, dialect, asked.shape), build)
        return found


def _told(answer: Callable[[], Shown], changed: frozenset[str]) -> Callable[[], Updated[Shown]]:
    return lambda: Updated(answer(), changed)

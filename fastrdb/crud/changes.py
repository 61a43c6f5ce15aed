"""One row, written: create, update, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache as once
from functools import partial
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Connection, Executable, Row
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state, set_committed_value

from ..cache.cache import Cache
from ..db.servers import family
from ..db.sessions import Place
from ..errors import EmptyInput, KeyMismatch, MultipleFound, UnknownField, UsageError
from ..writes.templates import templates_of
from ..writes.touched import Through
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources, Unset
from .core import C, M, R, U
from .execution import Query, read_back
from .keyspace import key_of_row
from .statements import Change, Creation, Returned, build_change, build_creation, setting
from .versions import Versions
from .writing import Done, Writer, Written

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Changes(Versions[M, C, U, R]):
    """The writes of one row."""

    async def create(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        obj_in: C | Unset = UNSET,
        *,
        commit: bool | None = None,
        **key: Any,
    ) -> R:
        """Insert a row, and give it as the database has it, defaults included.

        Args:
            db: An AsyncSession or a factory. Outside a transaction that the caller began, the write commits.
            redis: A client or a Cache; ``None`` says that no process caches this table.
            obj_in: The create schema.
            commit: ``False``: the caller commits.
            **key: Fields of the row: set where the schema lacks them, else compared with the row.

        Raises:
            UniqueViolation, ForeignKeyViolation, NotNullViolation, CheckViolation: The database refused it.
            KeyMismatch: A key field differs from the row.
            UnknownField, ValueRefused: A field is no column, or its value does not fit.
        """
        sources = await self._asked_sources(db, redis)
        values = self._create_values(_schema_object(obj_in), key)
        expected = {name: self._model.values[name].coerce(value) for name, value in key.items()}

        def statements(connection: Connection, session: Session) -> Done[R]:
            statement, returned, _ = self._creation()
            row = connection.execute(statement, {self._model.columns[n].key: v for n, v in values.items()}).one()
            image = returned.image(row)
            self._compare(expected, image)
            answer = self._answer(connection, row, returned)
            return Done(answer, self._written(sources, [image], answer))

        return await self._writer(sources, commit).run(sources.db, statements)

    async def update(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        obj_in: U | Unset = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        commit: bool | None = None,
        **key: Any,
    ) -> R:
        """Change the one row that matches, and give it as the database then has it.

        Args:
            db, redis, commit: As in ``create``.
            obj_in: The update schema; only fields that were set are written, and ``None`` is NULL. The version of a
                model that counts versions is not written but compared, as if it were a filter.
            where: A SQLAlchemy expression that the row must satisfy, too.
            filters: Further filters, for fields whose names are arguments here.
            **key: Filters that match exactly one row; with a version, the one that the caller saw.

        Raises:
            NotFound: No row matches.
            MultipleFound: Several do; nothing is changed.
            Conflict: The row has another version; nothing is changed.
            EmptyInput: No field was set, or no filter was given.
            UniqueViolation, ForeignKeyViolation, NotNullViolation, CheckViolation: The database refused it.
        """
        sources = await self._asked_sources(db, redis)
        values = self._update_values(_schema_object(obj_in))
        asked = self._criterion(key, filters, where, self._seen_version(key, values))
        sources = self._widened(sources, asked.tables)

        def statements(connection: Connection, session: Session) -> Done[R]:
            return self._update(connection, session, sources, asked, values)

        return await self._writer(sources, commit).run(sources.db, statements)

    async def delete(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        commit: bool | None = None,
        **key: Any,
    ) -> None:
        """Delete the one row that matches.

        Raises:
            NotFound: No row matches.
            MultipleFound: Several do; nothing is deleted.
            Conflict: The row has another version than the filters say; nothing is deleted.
            EmptyInput: No filter was given.
            ForeignKeyViolation: Another row refers to it.
        """
        sources = await self._asked_sources(db, redis)
        asked = self._criterion(key, filters, where)
        sources = self._widened(sources, asked.tables)

        def statements(connection: Connection, session: Session) -> Done[None]:
            change = self._change(connection, asked, None)
            _, parameters = self._lock(connection, asked, change)
            image = change.returned.image(self._one(connection, asked, change.statement, parameters))
            self._forget(session, image)
            written = self._written(sources, [image], None)
            written.tables |= change.reached
            return Done(_nothing, written)

        await self._writer(sources, commit).run(sources.db, statements)

    # -- values

    def _create_values(self, obj_in: BaseModel, key: Mapping[str, Any]) -> dict[str, Any]:
        """Bring a create schema and the key fields to attributes and column types."""
        values = {name: self._coerced(name, value) for name, value in self._sent(obj_in).items()}
        for name, value in key.items():
            wanted = self._coerced(name, value)
            if name in values and values[name] != wanted:
                raise KeyMismatch(name, value, values[name])
            values[name] = wanted
        return self._completed(values)

    def _sent(self, obj_in: BaseModel) -> dict[str, Any]:
        """Give what a create schema says, by attributes, without what it leaves to the columns' own defaults."""
        given = obj_in.model_dump(by_alias=False)
        for name in self._filled:
            if given.get(name, obj_in) is None and self._leaves_default(obj_in, name):
                del given[name]
        return given

    def _completed(self, values: dict[str, Any]) -> dict[str, Any]:
        """Add what the model's own factories, and its place in an inheritance, say of a row."""
        for name, factory in self._model.factories.items():
            if name not in values:
                values[name] = factory()
        values.update(self._model.identity)
        return values

    def _leaves_default(self, obj_in: BaseModel, name: str) -> bool:
        """Tell whether a ``None`` for a column that has a value of its own is not sent: nobody has set it."""
        by_itself = self._model.columns[name] is self._model.table.autoincrement_column
        return by_itself or name not in obj_in.model_fields_set

    def _update_values(self, obj_in: BaseModel) -> dict[str, Any]:
        given = obj_in.model_dump(exclude_unset=True, by_alias=False)
        if not given:
            raise EmptyInput("obj_in", "set at least one field of the update schema")
        return {name: self._coerced(name, value) for name, value in given.items()}

    def _coerced(self, name: str, value: object) -> Any:
        return self._coercion(name)(value)

    def _coercion(self, name: str) -> Callable[[Any], Any]:
        """Give what brings a value to the type of a column."""
        if name not in self._model.columns:
            raise UnknownField(name, self._model.name, self._model.columns)
        return self._model.values[name].coerce

    def _compare(self, expected: Mapping[str, Any], image: Mapping[str, Any]) -> None:
        for name, value in expected.items():
            column, values = self._model.columns[name].name, self._model.values[name]
            if column not in image:
                continue
            written = image[column]
            if (None if value is None else values.text(value)) != (None if written is None else values.text(written)):
                raise KeyMismatch(name, value, written)

    # -- statements

    def _criterion(
        self,
        key: Mapping[str, Any],
        filters: Filters,
        where: ColumnElement[bool] | None,
        seen: Mapping[str, Any] = _NOTHING,
    ) -> Asked:
        if not key and not filters and where is None:
            raise EmptyInput("the criterion", "name the row by its fields; a write without a condition is refused")
        return self._asked({**key, **seen}, filters, where)

    def _update(
        self,
        connection: Connection,
        session: Session,
        sources: Sources,
        asked: Asked,
        values: Mapping[str, Any],
    ) -> Done[R]:
        change = self._change(connection, asked, tuple(values))
        before, parameters = self._lock(connection, asked, change)
        row = self._changed(connection, asked, change, before, {**parameters, **setting(values)}, values)
        image = change.returned.image(row)
        answer = self._answer(connection, row, change.returned)
        self._refresh(session, before or image, row, change)
        written = self._written(sources, [image, *([before] if before is not None else [])], answer)
        written.tables |= change.reached
        return Done(answer, written)

    def _changed(
        self,
        connection: Connection,
        asked: Asked,
        change: Change,
        before: Mapping[str, Any] | None,
        parameters: Mapping[str, Any],
        values: Mapping[str, Any],
    ) -> Row[Any]:
        """Change the row, and give it as the database then has it."""
        if change.read is None or before is None:
            return self._one(connection, asked, change.statement, parameters)
        if not connection.execute(change.statement, parameters).rowcount:  # of rows that match, changed or not
            raise self._missing(connection, asked)
        assigned = {self._model.columns[name].name: value for name, value in values.items()}
        return self._one(connection, asked, change.read, change.by_key({**before, **assigned}))

    def _change(self, connection: Connection, asked: Asked, names: tuple[str, ...] | None) -> Change:
        """Give the UPDATE that sets these attributes of the row that is asked for, or the DELETE for ``None``."""
        dialect, images = family(connection.dialect), self._image_columns()
        shown = self._shown_columns() if names is not None else ()

        def build() -> Change:
            return build_change(self._model, asked, self._conditions(asked), names, shown, images, dialect)

        if asked.where is not None:
            return build()
        tables = len(self._model.table.metadata.tables)  # one that is defined later may refer to this one
        found: Change = self._kept(("change", names, dialect, asked.shape, asked.equal, images, tables), build)
        return found

    def _creation(self) -> Creation:
        images = self._image_columns()
        shown = self._shown_columns()
        found: Creation = self._kept(("create", images), lambda: build_creation(self._model, shown, images))
        return found

    def _lock(
        self, connection: Connection, asked: Asked, change: Change
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Give the row's image, if it has to be locked, and the parameters of the condition that the change has."""
        if change.lock is None:
            return None, asked.params
        row = self._one(connection, asked, change.lock, asked.params)
        image = dict(zip(change.images, row, strict=True))
        return image, {**asked.params, **change.by_key(image)}

    def _one(
        self, connection: Connection, asked: Asked, statement: Executable, parameters: Mapping[str, Any]
    ) -> Row[Any]:
        rows = connection.execute(statement, parameters).fetchall()
        if not rows:
            raise self._missing(connection, asked)
        if len(rows) > 1:
            raise MultipleFound(self._model.name, dict(asked.given))
        return rows[0]

    def _image_columns(self) -> tuple[str, ...]:
        """Give the columns of row images: the primary key, and all that templates and the declared pattern name."""
        table = self._model.table
        in_templates = templates_of(table).columns()

        def build() -> tuple[str, ...]:
            hidden = {self._model.columns[name].name for name in self._hidden + self._dropped_columns}
            names = {c.name for c in table.primary_key.columns} | in_templates | hidden
            return tuple(c.name for c in table.columns if c.name in names)

        found: tuple[str, ...] = self._kept(("images", in_templates), build)
        return found

    def _shown_columns(self) -> tuple[ColumnElement[Any], ...]:
        """Give what a write returns for the response; nothing where that has to be read back."""
        return tuple(self._responses.columns.values()) if self._plain else ()

    def _answer(self, connection: Connection, row: Row[Any], returned: Returned) -> Callable[[], R]:
        """Give what makes the response of a written row, once: of what the statement returned, or was read back now."""
        if self._plain:
            return once(partial(self._responses.build, row))
        response = self._read_back(connection, row, returned)
        return lambda: response

    def _read_back(self, connection: Connection, row: Row[Any], returned: Returned) -> R:
        image = returned.image(row)
        key = {self._model.attribute_of[c.name]: image[c.name] for c in self._model.table.primary_key.columns}
        asked = self._asked(key, None, None)
        statement = self._select(asked)
        if family(connection.dialect) == "mysql":  # not from a snapshot that may be older than the row
            statement = statement.with_for_update()
        query = Query.of(statement, by_entity=self._responses.by_entity)
        found: list[tuple[R, Any]] = read_back(connection, query, asked.params, self._build)
        return found[0][0]

    # -- what a write touched

    def _writer(self, sources: Sources, commit: bool | None) -> Writer:
        commits = self._commit if commit is None else commit
        return Writer(sources.place, sources.cache, self._model.table, self._model.mapper, commits, self._touches)

    def _written(
        self,
        sources: Sources,
        images: list[dict[str, Any]],
        answer: Callable[[], R] | None,
    ) -> Written:
        """Name what the cache must drop, and what it may keep instead."""
        _, place, cache, space, sight = sources
        if cache is None or space is None:
            return Written()
        written = Written(list(images), set(self._touches), space.dropped(map(self._by_attribute, images)))
        # The plain entry is read by those who see everything; what this caller sees lies elsewhere.
        plain = self._plain and sight is None and not self._layout.depends_on
        if answer is not None and plain and not self._triggers:
            written.through = self._through(cache, place, self._by_attribute(images[0]), answer)
        return written

    def _through(self, cache: Cache, place: Place, row: Mapping[str, Any], answer: Callable[[], R]) -> list[Through]:
        def dump() -> bytes | None:
            return self._responses.dump(answer())

        found = []
        for keys in self._space(cache).rows:
            entry = key_of_row(keys.bound, row)
            # NULL is equal to nothing, so that several rows may have it under a unique key.
            if keys.unique and entry is not None and all(row[name] is not None for name in keys.fields):
                scope, life = keys.scope(row), self._layout.life_ms(entry)
                stamps = scope.stamps(place.identity)
                found.append(Through(entry, scope.value_tokens, keys.listed, stamps, dump, life))
        return found

    def _by_attribute(self, image: Mapping[str, Any]) -> dict[str, Any]:
        names = self._model.attribute_of
        return {names[column]: value for column, value in image.items() if column in names}

    # -- the caller's own instances

    def _refresh(self, session: Session, image: Mapping[str, Any], row: Row[Any], change: Change) -> None:
        """Give the session's own instance of the row, if it has one, the values that were written."""
        instance = self._instance(session, image)
        if instance is None:
            return
        known = dict(zip(self._responses.columns, row, strict=False)) if self._plain else {}
        pending = instance_state(instance).committed_state  # changed by the caller, and not flushed yet
        for name, value in known.items():
            column = self._model.columns.get(name)
            if column is not None and (column.name in change.assigned or name not in pending):
                set_committed_value(instance, name, value)
        unknown = [n for n, c in self._model.columns.items() if c.name in change.assigned and n not in known]
        if unknown:
            session.expire(instance, unknown)

    def _forget(self, session: Session, image: Mapping[str, Any]) -> None:
        instance = self._instance(session, image)
        if instance is not None:
            session.expunge(instance)

    def _instance(self, session: Session, image: Mapping[str, Any]) -> Any:
        if not session.identity_map:
            return None
        key = tuple(image[column.name] for column in self._model.mapper.primary_key)
        return session.identity_map.get(self._model.mapper.identity_key_from_primary_key(key))


def _nothing() -> None:
    """Give what a delete gives."""


def _schema_object(obj_in: BaseModel | Unset) -> BaseModel:
    if not isinstance(obj_in, BaseModel):
        given = "nothing" if obj_in is UNSET else type(obj_in).__name__
        raise UsageError(f"obj_in: {given}; pass an instance of the create or update schema")
    return obj_in

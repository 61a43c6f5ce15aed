"""One row, written: create, update, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Connection, Executable, Row
from sqlalchemy.orm import Session

from ..db.servers import family
from ..errors import EmptyInput, KeyMismatch, MultipleFound, UnknownField, UsageError
from ..values import ColumnValues
from ..writes.templates import templates_of
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources, Unset
from .core import C, M, R, U
from .links import Links
from .options import ReadOptions
from .policies import Marking
from .statements import Change, Creation, build_change, build_creation, setting
from .writing import Done

T = TypeVar("T")

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Changes(Links[M, C, U, R]):
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
        sources = await self._asked_sources(db, redis, self._linked_tables())
        values = self._create_values(schema_object(obj_in), key)
        expected = {name: self._model.values[name].coerce(value) for name, value in key.items()}

        def statements(connection: Connection, session: Session) -> Done[R]:
            self._check_links_of_rows(connection, [values])
            statement, returned, _ = self._creation()
            row = connection.execute(statement, {self._model.columns[n].key: v for n, v in values.items()}).one()
            image = returned.image(row)
            self._compare(expected, image)
            answer = self._answer(connection, row, returned)
            hidden = self._policies.deletion is not None and self._policies.deletion.hides(values)
            written = self._written(sources, [image], None if hidden else answer)
            written.change = self._hooks.change("create", [(None, image)])
            return Done(answer, written)

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
        sources = await self._asked_sources(db, redis, self._linked_tables())
        values = self._update_values(schema_object(obj_in), key)
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
        """Delete the one row that matches; of a model that is deleted softly, mark it deleted.

        Raises:
            NotFound: No row matches.
            MultipleFound: Several do; nothing is deleted.
            Conflict: The row has another version than the filters say; nothing is deleted.
            EmptyInput: No filter was given.
            ForeignKeyViolation: Another row refers to it.
        """
        await self._write_one(db, redis, commit, self._criterion(key, filters, where), self._remove)

    async def _write_one(
        self,
        db: MaybeDatabase,
        redis: MaybeRedis,
        commit: bool | None,
        asked: Asked,
        work: Callable[[Connection, Session, Sources, Asked], Done[T]],
    ) -> T:
        """Do to the row that is asked for what takes no values, and give the answer."""
        sources = self._widened(await self._asked_sources(db, redis), asked.tables)

        def statements(connection: Connection, session: Session) -> Done[T]:
            return work(connection, session, sources, asked)

        return await self._writer(sources, commit).run(sources.db, statements)

    # -- values

    def _create_values(self, obj_in: BaseModel, key: Mapping[str, Any]) -> dict[str, Any]:
        """Bring a create schema and the key fields to attributes and column types."""
        sent = self._sent(obj_in)
        values = {name: self._stored(name, value) for name, value in sent.items()}
        for name, value in key.items():
            if self._tenancy is not None and name == self._tenancy.field:
                continue
            if name in sent and self._coerced(name, sent[name]) != self._coerced(name, value):
                raise KeyMismatch(name, value, values[name])
            values[name] = self._stored(name, value)
        return self._completed(values, self._tenancy.named(key) if self._tenancy is not None else None)

    def _sent(self, obj_in: BaseModel) -> dict[str, Any]:
        """Give what a create schema says, by attributes, without what it leaves to the columns' own defaults."""
        given = obj_in.model_dump(by_alias=False)
        for name in self._filled:
            if given.get(name, obj_in) is None and self._leaves_default(obj_in, name):
                del given[name]
        return given

    def _completed(self, values: dict[str, Any], tenant: Any = None) -> dict[str, Any]:
        """Add what the model's own factories, its place in an inheritance, and its policies say of a row.

        Args:
            values: Of the row, by attributes.
            tenant: For whom the call works; ``None``: for the tenant of the block that it is in.
        """
        if self._tenancy is not None:
            self._tenancy.own(values, tenant)
        for name, factory in self._model.factories.items():
            if name not in values:
                values[name] = self._stored(name, factory())
        values.update(self._model.identity)
        return values

    def _leaves_default(self, obj_in: BaseModel, name: str) -> bool:
        """Tell whether a ``None`` for a column that has a value of its own is not sent: nobody has set it."""
        by_itself = self._model.columns[name] is self._model.table.autoincrement_column
        return by_itself or name not in obj_in.model_fields_set

    def _update_values(self, obj_in: BaseModel, key: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
        """Bring an update schema to attributes and column types; a tenant in it must be that of the call."""
        given = obj_in.model_dump(exclude_unset=True, by_alias=False)
        if not given:
            raise EmptyInput("obj_in", "set at least one field of the update schema")
        if self._tenancy is not None and self._tenancy.field in given:
            self._tenancy.keep(given, self._tenancy.named(key))
            if not given:
                raise EmptyInput("obj_in", "set at least one field of the update schema besides the tenant")
        return {name: self._stored(name, value) for name, value in given.items()}

    def _coerced(self, name: str, value: object) -> Any:
        """Bring a value to the type of a column, to be compared."""
        return self._taking(name).coerce(value)

    def _stored(self, name: str, value: object) -> Any:
        """Bring a value to what is written into a column."""
        return self._taking(name).stored(value)

    def _taking(self, name: str) -> ColumnValues:
        """Give what a column takes."""
        if name not in self._model.columns:
            raise UnknownField(name, self._model.name, self._model.columns)
        return self._model.values[name]

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
        options: ReadOptions | None = None,
    ) -> Asked:
        named = set(key) - ({self._tenancy.field} if self._tenancy is not None else set())
        if not named and not filters and where is None:
            raise EmptyInput("the criterion", "name the row by its fields; a write without a condition is refused")
        return self._asked({**key, **seen}, filters, where, options)

    def _update(
        self,
        connection: Connection,
        session: Session,
        sources: Sources,
        asked: Asked,
        values: Mapping[str, Any],
        marking: Marking = None,
    ) -> Done[R]:
        row, change, images = self._written_row(connection, session, asked, values, marking)
        answer = self._answer(connection, row, change.returned)
        deletion = self._policies.deletion
        marked = deletion is not None and change.assigned & deletion.names  # it may be hidden now
        written = self._reaching(sources, change, images, None if marked else answer)
        written.change = self._hooks.change("update", [(images[-1], images[0])])
        return Done(answer, written)

    def _remove(self, connection: Connection, session: Session, sources: Sources, asked: Asked) -> Done[None]:
        """Mark the row deleted, or delete it where the model has no marks."""
        remove = self._delete if self._policies.deletion is None else self._mark
        return remove(connection, session, sources, asked)

    def _mark(self, connection: Connection, session: Session, sources: Sources, asked: Asked) -> Done[None]:
        """Mark the row deleted."""
        _, change, images = self._written_row(connection, session, asked, _NOTHING, "marks")
        written = self._reaching(sources, change, images, None)
        written.change = self._hooks.change("delete", [(images[-1], None)])
        return Done(_nothing, written)

    def _written_row(
        self,
        connection: Connection,
        session: Session,
        asked: Asked,
        values: Mapping[str, Any],
        marking: Marking = None,
    ) -> tuple[Row[Any], Change, list[dict[str, Any]]]:
        """Change the row, and give it as it is now, and its images."""
        self._check_links_of_rows(connection, [values], asked)
        change = self._change(connection, asked, tuple(values), marking)
        before, parameters = self._lock(connection, asked, change)
        row = self._changed(connection, asked, change, before, {**parameters, **setting(values)}, values)
        image = change.returned.image(row)
        self._refresh(session, before or image, row, change)
        return row, change, [image, *([before] if before is not None else [])]

    def _delete(self, connection: Connection, session: Session, sources: Sources, asked: Asked) -> Done[None]:
        """Delete the row, marked or not."""
        change = self._change(connection, asked, None)
        _, parameters = self._lock(connection, asked, change)
        image = change.returned.image(self._one(connection, asked, change.statement, parameters))
        self._forget(session, image)
        written = self._reaching(sources, change, [image], None)
        written.change = self._hooks.change("delete", [(image, None)])
        return Done(_nothing, written)

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

    def _change(
        self, connection: Connection, asked: Asked, names: tuple[str, ...] | None, marking: Marking = None
    ) -> Change:
        """Give the UPDATE that sets these attributes of the row that is asked for, or the DELETE for ``None``.

        Args:
            marking: Set, too, what marks the row deleted, or what takes the mark back.
        """
        dialect, images = family(connection.dialect), self._image_columns()
        shown = self._shown_columns() if names is not None else ()

        def build() -> Change:
            marks = self._policies.marking(marking, dialect)
            return build_change(self._model, asked, self._conditions(asked), names, shown, images, dialect, marks)

        if asked.where is not None:
            return build()
        tables = len(self._model.table.metadata.tables)  # one that is defined later may refer to this one
        found: Change = self._kept(("change", names, marking, dialect, asked.shape, asked.equal, images, tables), build)
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
            raise MultipleFound(self._model.name, asked.criterion)
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


def _nothing() -> None:
    """Give what a delete gives."""


def schema_object(obj_in: BaseModel | Unset) -> BaseModel:
    """Give the schema that a write was given, or raise UsageError."""
    if not isinstance(obj_in, BaseModel):
        given = "nothing" if obj_in is UNSET else type(obj_in).__name__
        raise UsageError(f"obj_in: {given}; pass an instance of the create or update schema")
    return obj_in

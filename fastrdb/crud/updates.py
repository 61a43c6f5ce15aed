"""Many rows, each given values of its own: update_multi."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, overload

from pydantic import BaseModel
from sqlalchemy import Connection, Row
from sqlalchemy.orm import Session

from ..errors import BatchRefused, InputError, RefusedRow, RowConflict, RowsConflict, UnknownField
from ..writes.touched import MAX_CELLS
from .arguments import UNSET, Asked, MaybeDatabase, MaybeRedis, Sources, Unset, check_missing
from .core import C, M, R, U
from .instances import alters
from .items import alike, listed_items, refusal
from .keyed import MISSING, Keyed, Locked, Missing, WhereField
from .progress import Progress, Sent
from .rowwise import Shape, Targets, build_shape
from .writing import Done, Written


class _Todo(NamedTuple):
    """What is to be done, in the columns' types; rows go by the indexes of their items.

    Attributes:
        asked: What all rows must satisfy.
        given: Keys as they were given.
        keys: Keys.
        seen: Versions that the caller saw, where one was said.
        batches: Of the rows that set the same attributes: their indexes, and the values by attribute.
    """

    asked: Asked
    given: dict[int, object]
    keys: dict[int, tuple[Any, ...]]
    seen: dict[int, Any]
    batches: list[tuple[list[int], dict[str, Sequence[Any]]]]


class _Changed(NamedTuple):
    """Rows that were changed.

    Attributes:
        before: As they were locked.
        rows: As they are now, by the indexes of their items, in their order.
        parts: The indexes of those that were changed alike.
    """

    before: Locked
    rows: dict[int, Row[Any]]
    parts: list[tuple[Shape, list[int]]]

    def after(self, index: int) -> dict[str, Any]:
        """Give the row image of a row as it is now."""
        return self.parts[0][0].change.returned.image(self.rows[index])


class Updates(Keyed[M, C, U, R]):
    """The change of many rows."""

    @overload
    async def update_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        items: Iterable[tuple[Any, U]] | Unset = UNSET,
        *,
        where_field: WhereField = None,
        missing: Missing = "raise",
        returning: Literal[True] = True,
        progress: Progress | None = None,
        commit: bool | None = None,
        **whose: Any,
    ) -> list[R]: ...

    @overload
    async def update_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        items: Iterable[tuple[Any, U]] | Unset = UNSET,
        *,
        where_field: WhereField = None,
        missing: Missing = "raise",
        returning: Literal[False],
        progress: Progress | None = None,
        commit: bool | None = None,
        **whose: Any,
    ) -> int: ...

    @overload
    async def update_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        items: Iterable[tuple[Any, U]] | Unset = UNSET,
        *,
        where_field: WhereField = None,
        missing: Missing = "raise",
        returning: bool,
        progress: Progress | None = None,
        commit: bool | None = None,
        **whose: Any,
    ) -> list[R] | int: ...

    async def update_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        items: Iterable[tuple[Any, U]] | Unset = UNSET,
        *,
        where_field: WhereField = None,
        missing: Missing = "raise",
        returning: bool = True,
        progress: Progress | None = None,
        commit: bool | None = None,
        **whose: Any,
    ) -> list[R] | int:
        """Change rows, each in its own way, all or none, and give them as the database then has them, in their order.

        Args:
            db, redis, commit: As in ``create``.
            items: Pairs of a key and an update schema, at least one. Of each schema only fields that were set are
                written, and ``None`` is NULL; a version is not written but compared. Keys are bare values, tuples
                where the key has several fields, or mappings.
            where_field: The attributes of a unique key that the keys are values of; by default the primary key.
            missing: ``"skip"``: items whose rows do not exist are left out of the answer.
            returning: ``False``: only the number of rows is given.
            progress: As in ``create_multi``.
            **whose: The tenant, as in ``create``, where rows belong to tenants; no other field.

        Raises:
            EmptyInput: *items* is empty.
            BatchRefused: Some items are wrong; it names each of them, and nothing is changed.
            RowsNotFound: Some rows do not exist; it names each of them, and nothing is changed.
            RowsConflict: Some rows have other versions; it names each of them, and nothing is changed.
            UniqueViolation, ForeignKeyViolation, NotNullViolation, CheckViolation: The database refused one of them.
        """
        check_missing(missing, MISSING)
        sources = await self._asked_sources(db, redis, self._linked_tables())
        fields = self._key_fields(where_field)
        asked = self._asked(self._for_whom("update_multi", whose), None, None)
        todo = self._understood(asked, fields, listed_items(items, "items", "update_multi"))

        def statements(connection: Connection, session: Session) -> Done[list[R] | int]:
            self._check_links_of_columns(connection, asked, [columns for _, columns in todo.batches])
            with self._all_or_none(connection, sources, commit):
                found = self._locked(connection, asked, fields, todo.keys)
                self._check_missing(todo.given, found.rows, missing)
                self._check_versions(todo, found)
                changed = self._change_rows(connection, found, todo, returning, Sent(progress))
                self._check_missing(todo.given, changed.rows, missing)
                answer: list[R] | int = len(changed.rows)
                if returning:
                    answer = self._answers(connection, changed.rows.values(), map(changed.after, changed.rows))
            self._follow_changes(session, changed, returning)
            return Done(lambda: answer, self._written_changes(sources, changed))

        return await self._writer(sources, commit).run(sources.db, statements)

    # -- values

    def _understood(self, asked: Asked, fields: Sequence[str], items: Sequence[Any]) -> _Todo:
        """Bring items to keys and columns.

        Raises:
            BatchRefused: Items are wrong.
        """
        refused: list[RefusedRow] = []
        pairs = self._pairs(items, refused)
        given = {index: pair[0] for index, pair in pairs.items()}
        keys = self._keys(fields, given, refused)
        rows = self._changes([pair[1] for pair in pairs.values()])
        seen: dict[int, Any] = {}
        batches = []
        for places, columns in self._kept_tenants(asked, list(given), rows, refused):
            self._coerce_batch(places, columns, seen, refused)
            batches.append((places, columns))
        if refused:
            raise BatchRefused("items", sorted(refused, key=lambda row: row.index))
        return _Todo(asked, given, keys, seen, batches)

    def _pairs(self, items: Sequence[Any], refused: list[RefusedRow]) -> dict[int, tuple[Any, BaseModel]]:
        schema = self._schema(1) or BaseModel
        if set(map(type, items)) == {tuple} and set(map(len, items)) == {2}:
            kinds = {type(item[1]) for item in items}
            if all(issubclass(kind, schema) for kind in kinds):
                return dict(enumerate(items))
        return {at: pair for at, item in enumerate(items) if (pair := self._pair(at, item, refused)) is not None}

    def _pair(self, index: int, item: Any, refused: list[RefusedRow]) -> tuple[Any, BaseModel] | None:
        schema = self._schema(1) or BaseModel
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], schema):
            return item
        wanted = "the update schema" if schema is BaseModel else f"the update schema, {schema.__name__}"
        inner = ", ".join(type(each).__name__ for each in item) if isinstance(item, tuple) else ""
        shown = f"tuple of ({inner})" if isinstance(item, tuple) else type(item).__name__
        refused.append(RefusedRow(index, None, f"{shown}; pass a pair of a key and an instance of {wanted}"))
        return None

    def _changes(self, schemas: Sequence[BaseModel]) -> list[dict[str, Any]]:
        """Give the fields that were set of each schema."""
        if not schemas:
            return []
        at_once = self._dumped_at_once(schemas, set_only=True)
        return at_once or [each.model_dump(exclude_unset=True, by_alias=False) for each in schemas]

    def _kept_tenants(
        self, asked: Asked, indexes: Sequence[int], rows: Sequence[dict[str, Any]], refused: list[RefusedRow]
    ) -> Iterator[tuple[list[int], dict[str, Sequence[Any]]]]:
        """Put rows that set the same attributes together, by columns; tenants are taken out."""
        if self._tenancy is not None:
            tenant = self._tenancy.named(self._whose(asked))
            for index, row in zip(indexes, rows, strict=True):
                try:
                    self._tenancy.keep(row, tenant)
                except InputError as error:
                    refused.append(refusal(index, error))
        for places, columns in alike(rows) if rows else ():
            yield [indexes[place] for place in places], columns

    def _coerce_batch(
        self,
        indexes: Sequence[int],
        columns: dict[str, Sequence[Any]],
        seen: dict[int, Any],
        refused: list[RefusedRow],
    ) -> None:
        """Bring columns to their types, and take the versions out of them."""
        for name, values in columns.items():
            if name in self._model.columns:
                columns[name] = self._coerced_all(name, indexes, values, refused)
            else:
                unknown = UnknownField(name, self._model.name, self._model.columns)
                refused += [refusal(index, unknown) for index in indexes]
        version = self._model.version
        if version is not None and version in columns:
            versions = dict(zip(indexes, columns.pop(version), strict=True))
            reason = f"{version!r} is None: say the version that you saw, or leave it out to overwrite any"
            refused += [RefusedRow(index, version, reason) for index, value in versions.items() if value is None]
            seen |= versions
        if not columns:
            reason = "sets nothing: set at least one field of the update schema"
            refused += [RefusedRow(index, None, reason) for index in indexes]

    # -- statements

    def _check_versions(self, todo: _Todo, found: Locked) -> None:
        stale = {
            index: RowConflict(todo.given[index], todo.seen[index], row[-1])
            for index, row in (found.rows.items() if todo.seen else ())
            if index in todo.seen and todo.seen[index] != row[-1]
        }
        if stale:
            raise RowsConflict(self._model.name, stale)

    def _change_rows(self, connection: Connection, found: Locked, todo: _Todo, returning: bool, sent: Sent) -> _Changed:
        keys = dict(zip(found.rows, found.keys, strict=True))
        changed: dict[int, Row[Any]] = {}
        parts: list[tuple[Shape, list[int]]] = []
        for indexes, columns in todo.batches:
            here = [at for at, index in enumerate(indexes) if index in keys]
            if not here:
                continue
            at = [indexes[place] for place in here]
            names = tuple(name for name in self._model.columns if name in columns)
            whole = len(here) == len(indexes)
            values = [columns[name] if whole else [columns[name][place] for place in here] for name in names]
            shape = self._shape(todo.asked, names, returning)
            for rows in shape.send(connection, Targets(at, [keys[index] for index in at], values)):
                changed.update(rows)
                sent.count(len(rows))
            parts.append((shape, at))
        return _Changed(found, {index: changed[index] for index in found.rows if index in changed}, parts)

    def _shape(self, asked: Asked, names: tuple[str, ...], returning: bool) -> Shape:
        shown = self._shown_columns() if returning else ()
        return build_shape(self._model, names, self._conditions(asked), asked.params, shown, self._image_columns())

    # -- what follows

    def _follow_changes(self, session: Session, changed: _Changed, returning: bool) -> None:
        """Give the session's own instances what was written, or let them read it when they are asked."""
        if not session.identity_map:
            return
        for shape, indexes in changed.parts:
            assigned = [n for n, c in self._model.columns.items() if c.name in shape.change.assigned]
            for index in indexes:
                if index not in changed.rows:
                    continue
                before = changed.before.image(index)
                if returning:
                    self._refresh(session, before, changed.rows[index], shape.change)
                elif (instance := self._instance(session, before)) is not None:
                    alters(session, instance)
                    session.expire(instance, assigned)

    def _written_changes(self, sources: Sources, changed: _Changed) -> Written:
        """Name what the cache must drop; of too many rows to name, only what a declared pattern needs."""
        few = 2 * len(changed.rows) <= MAX_CELLS
        images: list[dict[str, Any]] = []
        if few or self._dropped_columns:
            images = [*map(changed.before.image, changed.rows), *map(changed.after, changed.rows)]
        written = self._written(sources, images, None)
        written.everything = not few
        pairs = ((changed.before.image(index), changed.after(index)) for index in changed.rows)
        written.change = self._hooks.change("update", pairs)
        for shape, _ in changed.parts:
            written.tables |= shape.change.reached
        return written

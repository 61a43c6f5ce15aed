"""Many rows, each given values of its own: update_multi."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, overload

from pydantic import BaseModel
from sqlalchemy import Connection, Row
from sqlalchemy.orm import Session

from ..db.sessions import place_of
from ..errors import BatchRefused, InputError, RefusedRow, RowConflict, RowsConflict
from ..writes.touched import MAX_CELLS
from .arguments import UNSET, MaybeDatabase, MaybeRedis, Sources, Unset
from .core import C, M, R, U
from .items import listed_items, refusal
from .keyed import Keyed, Locked, Missing, WhereField, check_missing_argument
from .progress import Progress, Sent
from .rowwise import Shape, Target, build_shape
from .savepoint import all_or_none
from .writing import Done, Written


class _Item(NamedTuple):
    """What is to be done to one row: the version that the caller saw, or ``None``, and the values by attribute."""

    seen: Any
    values: dict[str, Any]


class _Changed(NamedTuple):
    """A row before and after."""

    before: Locked
    row: Row[Any]
    shape: Shape


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

        Raises:
            EmptyInput: *items* is empty.
            BatchRefused: Some items are wrong; it names each of them, and nothing is changed.
            RowsNotFound: Some rows do not exist; it names each of them, and nothing is changed.
            RowsConflict: Some rows have other versions; it names each of them, and nothing is changed.
            UniqueViolation, ForeignKeyViolation, NotNullViolation, CheckViolation: The database refused one of them.
        """
        sources = await self._asked_sources(db, redis, self._linked_tables())
        check_missing_argument(missing)
        fields = self._key_fields(where_field)
        pairs, keys, todo = self._understood(fields, listed_items(items, "items", "update_multi"))
        given = {index: pair[0] for index, pair in pairs.items()}

        def statements(connection: Connection, session: Session) -> Done[list[R] | int]:
            everyone = self._asked({}, None, None)
            self._check_links_of_rows(connection, [item.values for item in todo.values()], everyone)
            with all_or_none(connection, place_of(connection, sources.place)):
                found = self._locked(connection, fields, keys)
                self._check_missing(given, found, missing)
                self._check_versions(given, found, todo)
                changed = self._change_rows(connection, found, todo, returning, Sent(progress))
                self._check_missing({index: given[index] for index in found}, changed, missing)
                answer = self._responded_changes(connection, changed) if returning else len(changed)
            self._follow_changes(session, changed, returning)
            return Done(lambda: answer, self._written_changes(sources, list(changed.values())))

        return await self._writer(sources, commit).run(sources.db, statements)

    # -- values

    def _understood(
        self, fields: Sequence[str], items: Sequence[Any]
    ) -> tuple[dict[int, tuple[Any, BaseModel]], dict[int, tuple[Any, ...]], dict[int, _Item]]:
        """Give the items as they are, their keys, and what is to be done, in the columns' types; all by index.

        Raises:
            BatchRefused: Items are wrong.
        """
        refused: list[RefusedRow] = []
        pairs = {at: pair for at, item in enumerate(items) if (pair := self._pair(at, item, refused)) is not None}
        keys = self._keys(fields, {index: pair[0] for index, pair in pairs.items()}, refused)
        todo = {index: self._item(index, pair[1], refused) for index, pair in pairs.items()}
        if refused:
            raise BatchRefused("items", sorted(refused, key=lambda row: row.index))
        return pairs, keys, todo

    def _pair(self, index: int, item: Any, refused: list[RefusedRow]) -> tuple[Any, BaseModel] | None:
        schema = self._schema(1) or BaseModel
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], schema):
            return item
        wanted = "the update schema" if schema is BaseModel else f"the update schema, {schema.__name__}"
        inner = ", ".join(type(each).__name__ for each in item) if isinstance(item, tuple) else ""
        shown = f"tuple of ({inner})" if isinstance(item, tuple) else type(item).__name__
        refused.append(RefusedRow(index, None, f"{shown}; pass a pair of a key and an instance of {wanted}"))
        return None

    def _item(self, index: int, obj_in: BaseModel, refused: list[RefusedRow]) -> _Item:
        values = obj_in.model_dump(exclude_unset=True, by_alias=False)
        try:
            if self._tenancy is not None:
                self._tenancy.keep(values)
        except InputError as error:
            refused.append(refusal(index, error))
        for name, value in values.items():
            try:
                values[name] = self._coerced(name, value)
            except InputError as error:
                refused.append(refusal(index, error))
        version, seen = self._model.version, None
        if version is not None and version in values and (seen := values.pop(version)) is None:
            reason = f"{version!r} is None: say the version that you saw, or leave it out to overwrite any"
            refused.append(RefusedRow(index, version, reason))
        if not values:
            refused.append(RefusedRow(index, None, "sets nothing: set at least one field of the update schema"))
        return _Item(seen, values)

    # -- statements

    def _check_versions(
        self, given: Mapping[int, object], found: Mapping[int, Locked], todo: Mapping[int, _Item]
    ) -> None:
        stale = {
            index: RowConflict(given[index], todo[index].seen, row.version)
            for index, row in found.items()
            if todo[index].seen is not None and todo[index].seen != row.version
        }
        if stale:
            raise RowsConflict(self._model.name, stale)

    def _change_rows(
        self,
        connection: Connection,
        found: Mapping[int, Locked],
        todo: Mapping[int, _Item],
        returning: bool,
        sent: Sent,
    ) -> dict[int, _Changed]:
        alike: dict[tuple[str, ...], list[Target]] = {}
        for index, row in found.items():
            values = todo[index].values
            names = tuple(name for name in self._model.columns if name in values)
            alike.setdefault(names, []).append(Target(index, row.key, values))
        changed: dict[int, _Changed] = {}
        for names, targets in alike.items():
            shape = self._shape(names, returning)
            for rows in shape.send(connection, targets):
                changed.update((index, _Changed(found[index], row, shape)) for index, row in rows.items())
                sent.count(len(rows))
        return {index: changed[index] for index in found if index in changed}

    def _shape(self, names: tuple[str, ...], returning: bool) -> Shape:
        asked, shown = self._asked({}, None, None), self._shown_columns() if returning else ()
        return build_shape(self._model, names, self._conditions(asked), asked.params, shown, self._image_columns())

    def _responded_changes(self, connection: Connection, changed: Mapping[int, _Changed]) -> list[R]:
        if self._plain:
            return self._responses.build_all([each.row for each in changed.values()])
        return self._read_back_all(
            connection, [each.shape.change.returned.image(each.row) for each in changed.values()]
        )

    # -- what follows

    def _follow_changes(self, session: Session, changed: Mapping[int, _Changed], returning: bool) -> None:
        """Give the session's own instances what was written, or let them read it when they are asked."""
        if not session.identity_map:
            return
        for each in changed.values():
            change = each.shape.change
            if returning:
                self._refresh(session, each.before.image, each.row, change)
            elif (instance := self._instance(session, each.before.image)) is not None:
                session.expire(instance, [n for n, c in self._model.columns.items() if c.name in change.assigned])

    def _written_changes(self, sources: Sources, changed: Sequence[_Changed]) -> Written:
        few = 2 * len(changed) <= MAX_CELLS
        images: list[dict[str, Any]] = []
        if few or self._dropped_columns:
            images = [each.before.image for each in changed]
            images += [each.shape.change.returned.image(each.row) for each in changed]
        written = self._written(sources, images, None)
        written.everything = not few
        written.change = self._hooks.change(
            "update", ((each.before.image, each.shape.change.returned.image(each.row)) for each in changed)
        )
        for shape in {each.shape.names: each.shape for each in changed}.values():
            written.tables |= shape.change.reached
        return written

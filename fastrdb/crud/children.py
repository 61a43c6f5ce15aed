"""The rows that refer to a parent, written together: create_by_foreign_key, update_by_foreign_key, …"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, NamedTuple

from pydantic import BaseModel
from sqlalchemy import Connection, Row, bindparam, select, tuple_
from sqlalchemy.orm import Session

from ..db.servers import family
from ..db.sessions import place_of
from ..errors import Conflict, EmptyInput, MultipleFound, NotFound, SessionRefused
from .arguments import UNSET, Asked, MaybeDatabase, MaybeRedis, Sources, Unset
from .arrays import Batch
from .child_items import Parent, in_turn, listed, of_all
from .child_values import ChildUpdate, ChildValues
from .committed import told_together
from .core import C, M, R, U
from .insertions import Insertions, vanished
from .items import alike
from .progress import Sent
from .statements import locking
from .writing import Done, Written

_LOCKED = 500  # rows of one statement


class ChildrenChange(NamedTuple, Generic[R]):
    """What became of the children.

    Attributes:
        created: The new rows, in the order in which they were given.
        updated: The changed rows, likewise.
        deleted: How many rows were deleted.
    """

    created: list[R]
    updated: list[R]
    deleted: int


class Children(ChildValues[M, C, U, R], Insertions[M, C, U, R]):
    """The writes of all children of one parent, on the crud of the children."""

    async def create_by_foreign_key(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        fk_field: str | Unset = UNSET,
        fk_value: Any = UNSET,
        data: Sequence[C | Mapping[str, Any]] | Unset = UNSET,
        *,
        commit: bool | None = None,
        **whose: Any,
    ) -> list[R]:
        """Insert children of a parent, all or none, and give them as the database has them, in the order of *data*.

        Args:
            db, redis, commit: As in ``create``.
            fk_field: The attribute that refers to the parent: a foreign key of one column.
            fk_value: Its value; the items may leave it out.
            data: Create schemas, or dicts that the create schema takes; at least one.
            **whose: The tenant, as in ``create``, where rows belong to tenants; no other field.

        Raises:
            EmptyInput: *data* is empty.
            InputError: *fk_field* is no such foreign key.
            BatchRefused: Some items are wrong, or name another parent; it names each of them.
            NotFound: There is no such parent; nothing is written.
            UniqueViolation, ForeignKeyViolation, NotNullViolation, CheckViolation: The database refused one of them.
            SessionRefused: *db* commits each statement by itself.
        """
        parent = self._parent(fk_field, fk_value, self._for_whom("create_by_foreign_key", whose))
        items = listed("data", data)
        if not items:
            raise EmptyInput("data", "pass at least one child, or do not call create_by_foreign_key")
        rows = of_all("data", items, lambda item: self._child_values(item.given, parent, numbered=False))
        changed = await self._change_children(db, redis, parent, rows, [], [], commit)
        return changed.created

    async def update_by_foreign_key(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        fk_field: str | Unset = UNSET,
        fk_value: Any = UNSET,
        data: Sequence[C | U | BaseModel | Mapping[str, Any]] | Unset = UNSET,
        *,
        create: Sequence[C | Mapping[str, Any]] = (),
        update: Sequence[U | BaseModel | Mapping[str, Any]] = (),
        delete: Sequence[Any] = (),
        commit: bool | None = None,
        **whose: Any,
    ) -> ChildrenChange[R]:
        """Delete, change and create children of a parent, in this order, all or nothing.

        Args:
            db, redis, commit: As in ``create``.
            fk_field, fk_value: As in ``create_by_foreign_key``.
            data: Dicts or schemas with an id: none or 0 creates the item, above 0 changes the row with that id, below
                0 deletes the row with the positive one. Only fields that are set are changed.
            create, update, delete: Instead of *data*, and for any other kind of key: items to create; items to change,
                which carry their key; keys to delete, as values, or as tuples or dicts where the key has several
                columns.
            **whose: As in ``create_by_foreign_key``.

        Raises:
            NotFound: There is no such parent, or some rows are not its children: it names them. Nothing is written.
            Conflict: A row has another version than its item says. Nothing is written.
            EmptyInput: There is nothing to do.
            InputError, BatchRefused, SessionRefused: As in ``create_by_foreign_key``.
            UniqueViolation, ForeignKeyViolation, NotNullViolation, CheckViolation: The database refused a row.
        """
        parent = self._parent(fk_field, fk_value, self._for_whom("update_by_foreign_key", whose))
        asked_for = self._sorted(data, create, update, delete)
        numbered = data is not UNSET
        updating = self._updating(parent, asked_for)
        updates, rows = in_turn(
            lambda: of_all("data" if numbered else "update", [item for item, _ in asked_for.updates], updating),
            lambda: of_all(
                "data" if numbered else "create",
                asked_for.creates,
                lambda item: self._child_values(item.given, parent, numbered=numbered),
            ),
        )
        return await self._change_children(db, redis, parent, rows, updates, [k for _, k in asked_for.deletes], commit)

    async def delete_by_foreign_key(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        fk_field: str | Unset = UNSET,
        fk_value: Any = UNSET,
        *,
        commit: bool | None = None,
        **whose: Any,
    ) -> int:
        """Delete all children of a parent, and tell how many there were. The parent need not exist any more.

        Args:
            db, redis, fk_field, fk_value, commit, **whose: As in ``create_by_foreign_key``.

        Raises:
            InputError: *fk_field* is no foreign key of one column.
            ForeignKeyViolation: Another row refers to one of them; nothing is deleted.
            SessionRefused: *db* commits each statement by itself.
        """
        parent = self._parent(fk_field, fk_value, self._for_whom("delete_by_foreign_key", whose))
        sources = await self._asked_sources(db, redis)

        def statements(connection: Connection, session: Session) -> Done[int]:
            self._refuse_autocommit(connection, sources)
            found = self._locked_children(connection, parent, None)
            with self._all_or_none(connection, sources, commit):
                deleted = self._delete_children(connection, session, sources, parent, list(found.values()))
            return Done(lambda: len(deleted), _together(deleted))

        return await self._writer(sources, commit).run(sources.db, statements)

    # -- statements

    async def _change_children(
        self,
        db: MaybeDatabase,
        redis: MaybeRedis,
        parent: Parent,
        rows: Sequence[Mapping[str, Any]],
        updates: Sequence[ChildUpdate],
        deletes: Sequence[dict[str, Any]],
        commit: bool | None,
    ) -> ChildrenChange[R]:
        sources = await self._asked_sources(db, redis, self._linked_tables() | {parent.column.table.fullname})

        def statements(connection: Connection, session: Session) -> Done[ChildrenChange[R]]:
            self._refuse_autocommit(connection, sources)
            # All that can be wrong with what is there already is found before anything is changed.
            self._require_parent(connection, parent)
            self._check_links_of_rows(connection, rows, known=parent.field)
            found = self._locked_children(connection, parent, [*(each.key for each in updates), *deletes])
            self._compare_versions(found, updates)
            creation = self._creation()
            with self._all_or_none(connection, sources, commit):
                gone = self._delete_children(connection, session, sources, parent, deletes)
                changed, written = self._update_children(connection, session, sources, parent, updates)
                made = self._insert(connection, self._child_batches(rows), creation, Sent(None))
                images = list(map(creation.returned.image, made))
                updated = self._answers(connection, [row for row, _ in changed], (image for _, image in changed))
                created = self._answers(connection, made, images)
            new = self._written(sources, images, None)
            new.change = self._hooks.change("create", [(None, image) for image in images])
            everything = _together([*gone, *written, new])
            return Done(lambda: ChildrenChange(created, updated, len(gone)), everything)

        return await self._writer(sources, commit).run(sources.db, statements)

    def _refuse_autocommit(self, connection: Connection, sources: Sources) -> None:
        if place_of(connection, sources.place).autocommit:
            raise SessionRefused(
                "db: it commits each statement by itself (AUTOCOMMIT), and children are written by several; "
                "pass a session whose transactions have an end"
            )

    def _require_parent(self, connection: Connection, parent: Parent) -> None:
        column = parent.column
        conditions, parameters = self._visible(column.table, parent.whose)
        named = column == bindparam("fastrdb_parent", type_=column.type)
        statement = select(column).where(named, *conditions).limit(1)
        if family(connection.dialect) == "mysql":  # not from a snapshot that may be older than the parent
            statement = statement.with_for_update(read=True)
        if connection.execute(statement, {**parameters, "fastrdb_parent": parent.value}).first() is None:
            raise NotFound(parent.name, {column.key: parent.value})

    def _locked_children(
        self, connection: Connection, parent: Parent, keys: Sequence[Mapping[str, Any]] | None
    ) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Lock children of the parent, those with these keys or all, and give their keys, and versions if they have.

        Raises:
            NotFound: Some of them are no children of it.
        """
        names = self._model.primary_key
        parts = [keys[at : at + _LOCKED] for at in range(0, len(keys), _LOCKED)] if keys is not None else [None]
        rows = [row for part in parts for row in self._lock_part(connection, parent, part)]
        found = {tuple(row[name] for name in names): row for row in rows}
        missing = [key for key in keys or () if tuple(key.values()) not in found]
        if missing:
            one = len(names) == 1
            criterion = {names[0]: [key[names[0]] for key in missing]} if one else {"keys": missing}
            raise NotFound(self._model.name, {**criterion, parent.field: parent.value})
        return found

    def _lock_part(
        self, connection: Connection, parent: Parent, keys: Sequence[Mapping[str, Any]] | None
    ) -> list[dict[str, Any]]:
        columns = [self._model.columns[name] for name in self._model.primary_key]
        asked = self._asked({**parent.whose, parent.field: parent.value}, None, None)
        conditions, given = self._conditions(asked), dict(asked.params)
        if keys is not None:
            named: Any = bindparam("fastrdb_keys", expanding=True)
            conditions.append(tuple_(*columns).in_(named) if len(columns) > 1 else columns[0].in_(named))
            wanted = [tuple(key[name] for name in self._model.primary_key) for key in keys]
            given["fastrdb_keys"] = wanted if len(columns) > 1 else [key[0] for key in wanted]
        version = self._model.version
        shown = [*self._model.primary_key, *([version] if version is not None else [])]
        labelled = [self._model.columns[name].label(f"fastrdb_{name}") for name in shown]
        statement = locking(self._model.table, labelled, conditions, family(connection.dialect))
        return [dict(zip(shown, row, strict=True)) for row in connection.execute(statement, given)]

    def _compare_versions(
        self, found: Mapping[tuple[Any, ...], Mapping[str, Any]], updates: Sequence[ChildUpdate]
    ) -> None:
        for each in updates:
            for version, seen in each.seen.items():
                current = found[tuple(each.key.values())][version]
                if current != seen:
                    raise Conflict(self._model.name, each.key, seen, current)

    def _child(self, parent: Parent, key: Mapping[str, Any]) -> Asked:
        named = {name: key[name] for name in self._model.primary_key}
        return self._criterion({**parent.whose, **named, parent.field: parent.value}, None, None)

    def _delete_children(
        self,
        connection: Connection,
        session: Session,
        sources: Sources,
        parent: Parent,
        keys: Sequence[Mapping[str, Any]],
    ) -> list[Written]:
        gone = []
        for key in keys:
            with suppress(NotFound):  # one that went with another: they refer to each other
                gone.append(self._remove(connection, session, sources, self._child(parent, key)).written)
        return gone

    def _update_children(
        self, connection: Connection, session: Session, sources: Sources, parent: Parent, updates: Sequence[ChildUpdate]
    ) -> tuple[list[tuple[Row[Any], dict[str, Any]]], list[Written]]:
        rows, written = [], []
        for each in updates:
            try:
                row, change, images = self._written_row(connection, session, self._child(parent, each.key), each.values)
            except (NotFound, MultipleFound) as error:  # they are locked
                raise vanished(self._model, "change") from error
            rows.append((row, images[0]))
            one = self._reaching(sources, change, images, None)
            one.change = self._hooks.change("update", [(images[-1], images[0])])
            written.append(one)
        return rows, written

    def _child_batches(self, rows: Sequence[Mapping[str, Any]]) -> list[Batch]:
        """Bring rows, by attributes, to columns; those that leave other columns to their defaults go apart."""
        return [
            Batch(indexes, {self._model.columns[name].key: values for name, values in given.items()})
            for indexes, given in (alike(rows) if rows else ())
        ]


def _together(parts: Iterable[Written]) -> Written:
    """Give what several writes did as one."""
    found, changes = Written(nothing=True), []
    for part in parts:
        found.nothing = False
        changes += [part.change] if part.change is not None else []
        found.images += part.images
        found.tables |= part.tables
        found.directories |= part.directories
        found.everything |= part.everything
    found.change = told_together(changes)
    return found

"""Rows that are created or changed, whichever it takes: upsert, upsert_multi, get_or_create."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from ..db.sessions import place_of
from ..errors import BatchRefused
from ..writes.touched import MAX_CELLS
from .arguments import UNSET, MaybeDatabase, MaybeRedis, Sources, Unset
from .arrays import ROWS, Batch, takes_arrays
from .changes import schema_object
from .committed import Kind
from .conflicts import Upsertion, check_key, conflict_key, equal_rows
from .core import C, M, R, U
from .execution import Query
from .outcomes import Outcome, by_index, primary_keys
from .sides import primary_of
from .upsert_batches import SaidTwice, UpsertBatches, instances_of
from .writing import Done, Written


class Upserted(NamedTuple, Generic[R]):
    """A row, and whether this call has created it.

    Attributes:
        row: The row as the database has it.
        created: It was not there before.
    """

    row: R
    created: bool


class Upserts(UpsertBatches[M, C, U, R]):
    """The writes that take a row as it comes."""

    async def upsert(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        obj_in: C | Unset = UNSET,
        *,
        conflict_fields: Sequence[str] | None = None,
        update_fields: Sequence[str] | None = None,
        commit: bool | None = None,
        **key: Any,
    ) -> Upserted[R]:
        """Insert a row or, where one has its key, change that one; and say which.

        It is atomic: of many callers with one key, one creates the row, and the others change it.

        Args:
            db, redis, commit: As in ``create``.
            obj_in: The create schema.
            conflict_fields: The unique key that decides, any that the model has; by default the primary key if
                *obj_in* has it, else the only other key that it has.
            update_fields: What is written to a row that is there; by default the fields that were set, besides the
                conflict fields and the primary key. An empty list leaves that row as it is.
            **key: Fields of the row that the schema lacks.

        Raises:
            UniqueViolation: Another row has the value of another unique key, or one that this crud does not show
                has this key.
            ForeignKeyViolation, NotNullViolation, CheckViolation: The database refused it.
            InputError: *conflict_fields* is no unique key, or none can be told from the values.
            UnknownField, ValueRefused, KeyMismatch: As in ``create``; and a conflict field that is ``None``.
            SessionRefused: AUTOCOMMIT on SQLite or MariaDB, where it takes several statements.
        """
        sources = await self._asked_sources(db, redis, self._linked_tables())
        given = schema_object(obj_in)
        values = self._create_values(given, key)
        wanted = self._wanted(values, {*given.model_fields_set, *key}, conflict_fields, update_fields)
        return await self._upsert(sources, commit, wanted, values, key)

    async def get_or_create(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        obj_in: C | Unset = UNSET,
        *,
        conflict_fields: Sequence[str] | None = None,
        commit: bool | None = None,
        **key: Any,
    ) -> Upserted[R]:
        """Give the row with this key as it is, or insert it; and say which.

        Of many callers at once one creates the row, and all get that one. A row that is there is read only: nothing
        is written, nothing committed. Of a pair the primary is asked.

        Args:
            db, redis, obj_in, conflict_fields, commit, **key: As in ``upsert``.

        Raises:
            As ``upsert``.
        """
        sources = await self._asked_sources(db, redis, self._linked_tables())
        values = self._create_values(schema_object(obj_in), key)
        wanted = self._wanted(values, frozenset(), conflict_fields, ())
        asked = self._asked({**self._tenant_in(key), **{name: values[name] for name in wanted.conflict}}, None, None)
        query: Query = self._kept(
            ("met", asked.shape), lambda: Query.of(self._select(asked), by_entity=self._responses.by_entity)
        )
        rows, _ = await self._fetch(sources._replace(db=primary_of(sources.db)), query, asked.params, self._build)
        if rows:
            return Upserted(rows[0][0], False)
        return await self._upsert(sources, commit, wanted, values, key)

    async def upsert_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        instances: Sequence[C] | Unset = UNSET,
        *,
        conflict_fields: Sequence[str] | None = None,
        update_fields: Sequence[str] | None = None,
        commit: bool | None = None,
        **whose: Any,
    ) -> list[Upserted[R]]:
        """Upsert rows, all or none, and give them in the order of *instances*.

        Args:
            db, redis, conflict_fields, update_fields, commit: As in ``upsert``; one key decides for all rows.
            instances: Create schemas, at least one, each with another key.
            **whose: The tenant, as in ``create``, where rows belong to tenants; no other field.

        Raises:
            BatchRefused: Values do not fit their columns, or rows have the same key; it names every such row.
            EmptyInput: *instances* is empty.
            As ``upsert``.
        """
        sources = await self._asked_sources(db, redis, self._linked_tables())
        tenant = self._for_whom("upsert_multi", whose)
        groups = self._upserts_of(instances_of(instances), tenant, conflict_fields, update_fields)
        self._check_conflict_keys(groups)

        def statements(connection: Connection, session: Session) -> Done[list[Upserted[R]]]:
            self._prepare_upsert(connection, sources.place)
            autocommit = place_of(connection, sources.place).autocommit
            self._check_links(connection, [batch.columns for _, batch in groups])
            with self._all_or_none(connection, sources, commit), SaidTwice(groups, self._conflict_keys):
                found = [
                    self._meet(connection, wanted, batch, tenant, autocommit=autocommit) for wanted, batch in groups
                ]
                outcomes = by_index([batch for _, batch in groups], found)
                self._refuse_same_rows(connection, groups, outcomes)
            return self._upserts_done(connection, session, sources, outcomes)

        return await self._writer(sources, commit).run(sources.db, statements)

    # -- one

    def _wanted(
        self,
        values: Mapping[str, Any],
        said: frozenset[str] | set[str],
        conflict_fields: Sequence[str] | None,
        update_fields: Sequence[str] | None,
    ) -> Upsertion:
        there = values if conflict_fields is not None else {name for name in values if values[name] is not None}
        conflict = conflict_key(self._model, there, conflict_fields)
        check_key(conflict, values)
        return Upsertion(tuple(values), conflict, self._updated_fields(values, said, conflict, update_fields))

    async def _upsert(
        self,
        sources: Sources,
        commit: bool | None,
        wanted: Upsertion,
        values: Mapping[str, Any],
        key: Mapping[str, Any],
    ) -> Upserted[R]:
        expected = {name: self._model.values[name].coerce(value) for name, value in key.items()}
        batch = Batch([0], {self._model.columns[name].key: [values[name]] for name in wanted.given})

        def statements(connection: Connection, session: Session) -> Done[Upserted[R]]:
            self._prepare_upsert(connection, sources.place)
            self._check_links(connection, [batch.columns])
            (outcome,) = self._meet(connection, wanted, batch, self._tenant_in(key))
            if outcome.created:
                self._compare(expected, outcome.after)
            answer = self._answer(connection, outcome.row, outcome.change.returned)
            self._show_upserted(session, outcome)
            hidden = self._policies.deletion is not None and self._policies.deletion.hides(values)
            written = self._written_outcomes(sources, [outcome], None if hidden else answer)
            return Done(lambda: Upserted(answer(), outcome.created), written)

        return await self._writer(sources, commit).run(sources.db, statements)

    # -- many

    def _refuse_same_rows(
        self, connection: Connection, groups: Sequence[tuple[Upsertion, Batch]], outcomes: Sequence[Outcome]
    ) -> None:
        """Refuse a batch in which two rows met in one: the database takes their keys for equal.

        Of the rows of one statement PostgreSQL says so itself.
        """
        wanted, _ = groups[0]
        one = len(groups) == 1 and len(outcomes) <= ROWS and wanted.updated
        if one and takes_arrays(connection.dialect):
            return
        met = primary_keys(outcomes)
        if len(set(met)) < len(met):
            raise BatchRefused("instances", equal_rows(wanted.conflict, met))

    def _upserts_done(
        self, connection: Connection, session: Session, sources: Sources, outcomes: Sequence[Outcome]
    ) -> Done[list[Upserted[R]]]:
        responses = self._answers(connection, [each.row for each in outcomes], (each.after for each in outcomes))
        if session.identity_map:
            for outcome in outcomes:
                self._show_upserted(session, outcome)
        answers = list(map(Upserted, responses, [outcome.created for outcome in outcomes]))
        return Done(lambda: answers, self._written_outcomes(sources, outcomes, None))

    # -- both

    def _show_upserted(self, session: Session, outcome: Outcome) -> None:
        """Give the session's own instance of a row that was there what was written."""
        if outcome.before is not None and not outcome.kept:
            self._refresh(session, outcome.before, outcome.row, outcome.change)

    def _written_outcomes(
        self, sources: Sources, outcomes: Sequence[Outcome], answer: Callable[[], R] | None
    ) -> Written:
        """Name what the cache must drop; of too many rows to name, only what a declared pattern needs."""
        changed = [outcome for outcome in outcomes if not outcome.kept]
        if not changed:
            return Written(nothing=True)
        few = len(changed) <= MAX_CELLS
        images = list(_images(changed)) if few or self._dropped_columns else []
        written = self._written(sources, images, answer)
        written.everything |= not few
        for change in {id(each.change): each.change for each in changed if not each.created}.values():
            written.tables |= change.reached
        pairs = ((each.before, each.after) for each in changed)
        written.change = self._hooks.change(_kind(changed), pairs)
        return written


def _kind(outcomes: Sequence[Outcome]) -> Kind | None:
    created = {outcome.created for outcome in outcomes}
    return None if len(created) > 1 else "create" if True in created else "update"


def _images(outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    for outcome in outcomes:
        yield outcome.after
        if outcome.before is not None and outcome.before != outcome.after:
            yield outcome.before

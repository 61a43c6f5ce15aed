"""How a row that is to be inserted meets the one that has its key, on each database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, select

from ..db.servers import family
from ..db.sessions import Place, place_of
from ..errors import InputError, SessionRefused
from .arguments import Asked
from .arrays import ROWS, Batch, takes_arrays
from .claims import Claims, unless_unclear
from .conflicts import Upsertion
from .core import C, M, R, U
from .insertions import vanished
from .keyed import named_by
from .outcomes import Outcome, in_order_of, primary_keys
from .statements import Change
from .upsert_statements import DEFINE, PostgresUpsert, SQLiteUpsert, for_postgresql, for_sqlite, inserting, sqlite_lock

_DEFINED = "fastrdb_upsert_defined"
_KEYS = 500  # of one SELECT
_ATTEMPTS = 10  # to insert or to read a row that others create and delete meanwhile


class Meeting(Claims[M, C, U, R]):
    """What upserts do, database by database."""

    def _prepare_upsert(self, connection: Connection, expected: Place) -> None:
        """Make the connection ready for an upsert.

        Raises:
            SessionRefused: Each of the statements would be committed by itself.
        """
        dialect = family(connection.dialect)
        if dialect == "postgresql":
            return
        if place_of(connection, expected).autocommit:
            raise SessionRefused(
                "db: an upsert takes several statements here, which AUTOCOMMIT would commit one by one; "
                "pass a session with transactions"
            )
        if dialect == "sqlite":
            connection.execute(sqlite_lock(self._model.table))
        elif not connection.info.get(_DEFINED):
            connection.execute(DEFINE)
            connection.info[_DEFINED] = True

    def _meet(
        self,
        connection: Connection,
        wanted: Upsertion,
        batch: Batch,
        tenant: Mapping[str, Any],
        *,
        autocommit: bool = False,
    ) -> list[Outcome]:
        """Insert rows, or change those that have their keys, and tell what became of each, in the batch's order.

        Args:
            connection, wanted, batch: Which rows, and how.
            tenant: For whom, as the keywords of the call say it.
            autocommit: Each statement commits by itself, so that nothing can be tried and undone.
        """
        dialect, everyone = family(connection.dialect), self._asked(tenant, None, None)
        change = self._upserting(connection, wanted, everyone)
        at_once = len(batch.indexes) > 1 and not autocommit
        if dialect == "mysql":
            return self._meet_on_mariadb(connection, wanted, change, everyone, batch, at_once)
        if not wanted.updated:
            return self._keep_all_met(connection, wanted, change, everyone, batch, at_once)
        if dialect == "postgresql":
            return self._meet_on_postgresql(connection, wanted, change, everyone, batch)
        return self._meet_on_sqlite(connection, wanted, change, everyone, batch)

    def _upserting(self, connection: Connection, wanted: Upsertion, everyone: Asked) -> Change:
        if wanted.updated:
            return self._change(connection, everyone, wanted.updated)
        statement, returned, images = self._creation()
        keys = tuple(column.name for column in self._model.table.primary_key.columns)
        return Change(None, statement, None, returned, images, keys, frozenset(), frozenset())

    # -- PostgreSQL

    def _meet_on_postgresql(
        self, connection: Connection, wanted: Upsertion, change: Change, asked: Asked, batch: Batch
    ) -> list[Outcome]:
        statements: PostgresUpsert = self._kept(
            self._upsert_shape(wanted, change, asked, "postgresql"),
            lambda: for_postgresql(self._model, wanted, change, self._conditions(asked)),
        )
        rows: list[Row[Any]] = []
        if len(batch.indexes) > 1 and statements.arrays is not None and takes_arrays(connection.dialect):
            for part in batch.parts(ROWS):
                rows += connection.execute(statements.arrays, {**part.arrays(), **asked.params}).fetchall()
        else:
            for given in batch.rows():
                rows += connection.execute(statements.one, {**given, **asked.params}).fetchall()
        self._check_upserted(connection, change, batch, rows)
        at = len(change.returned.columns)
        olds = statements.olds
        if not olds:
            return [Outcome(row, change, not row[at]) for row in rows]
        first, last = at + 1, at + 1 + len(olds)
        return [
            Outcome(row, change, not row[at], dict(zip(olds, row[first:last], strict=True)) if row[at] else None)
            for row in rows
        ]

    # -- SQLite

    def _meet_on_sqlite(
        self, connection: Connection, wanted: Upsertion, change: Change, asked: Asked, batch: Batch
    ) -> list[Outcome]:
        statements: SQLiteUpsert = self._upsert_of_many(
            self._upsert_shape(wanted, change, asked, "sqlite"),
            asked,
            lambda conditions: for_sqlite(self._model, wanted, change, conditions),
        )
        columns = [self._model.columns[name].key for name in wanted.conflict]
        keys = list(zip(*(batch.columns[key] for key in columns), strict=True))
        there: dict[tuple[Any, ...], dict[str, Any]] = {}
        for start in range(0, len(keys), _KEYS):
            for row in connection.execute(statements.existing(keys[start : start + _KEYS])):
                image = dict(zip(change.images, row, strict=True))
                there[tuple(image[name] for name in change.keys)] = image
        rows: list[Row[Any]] = []
        for part in [[row] for row in batch.rows()] if self._expands(asked) else [batch.rows()]:
            rows += connection.execute(statements.write, part[0] if len(part) == 1 else part).fetchall()
        self._check_upserted(connection, change, batch, rows)
        rows = in_order_of(keys, rows)
        outcomes = [Outcome(row, change, True) for row in rows]
        olds = [there.get(key) for key in primary_keys(outcomes)]
        return [
            each if old is None else each._replace(created=False, old=old)
            for each, old in zip(outcomes, olds, strict=True)
        ]

    # -- rows that stay as they are

    def _keep_all_met(
        self, connection: Connection, wanted: Upsertion, change: Change, everyone: Asked, batch: Batch, at_once: bool
    ) -> list[Outcome]:
        if at_once:
            keep_all = partial(self._keep_at_once, connection, wanted, change, everyone, batch)
            if (found := unless_unclear(connection, keep_all)) is not None:
                return found
        return [self._keep_met(connection, wanted, change, everyone, row) for row in batch.rows()]

    def _keep_at_once(
        self, connection: Connection, wanted: Upsertion, change: Change, everyone: Asked, batch: Batch
    ) -> list[Outcome] | None:
        """Insert the rows that are not there, and read all.

        ``None``: some cannot be found by what was given. Others have deleted them meanwhile, a trigger writes other
        keys, the database takes another text for the same, or the row that has the key is none of this crud's.
        """
        dialect, rows = family(connection.dialect), batch.rows()
        statement = self._kept(
            self._upsert_shape(wanted, change, everyone, dialect),
            lambda: inserting(self._model, wanted, change, dialect),
        )
        made = [Outcome(row, change, True) for row in connection.execute(statement, rows)]
        columns = [self._model.columns[name] for name in wanted.conflict]
        keys = list(zip(*(batch.columns[column.key] for column in columns), strict=True))
        shown = [column.label(f"fastrdb_by_{at}") for at, column in enumerate(columns)]
        there: dict[tuple[str, ...] | None, Row[Any]] = {}
        for start in range(0, len(keys), _KEYS):
            among = named_by(columns, keys[start : start + _KEYS])
            read = select(*change.returned.columns, *shown).where(*self._conditions(everyone), among)
            for row in connection.execute(read, everyone.params):
                there[self._key_text(wanted, row[-len(columns) :])] = row
        found = [there.get(self._key_text(wanted, key)) for key in keys]
        if None in found:
            return None
        outcomes = [Outcome(row, change, False, kept=True) for row in found if row is not None]
        new = set(primary_keys(made))
        return [
            each._replace(created=True, kept=False) if key in new else each
            for each, key in zip(outcomes, primary_keys(outcomes), strict=True)
        ]

    def _key_text(self, wanted: Upsertion, key: Sequence[Any]) -> tuple[str, ...] | None:
        """Write a key as equal ones are written; ``None`` where a column has a value that it cannot have."""
        values = [self._model.values[name] for name in wanted.conflict]
        try:
            return tuple(each.text(each.coerce(part)) for each, part in zip(values, key, strict=True))
        except InputError:
            return None

    def _keep_met(
        self, connection: Connection, wanted: Upsertion, change: Change, everyone: Asked, given: Mapping[str, Any]
    ) -> Outcome:
        """Insert a row, or read the one that has its key: on PostgreSQL others may delete that one in between."""
        dialect, asked = family(connection.dialect), self._asked_by_key(wanted, everyone, given)
        statement = self._kept(
            self._upsert_shape(wanted, change, asked, dialect), lambda: inserting(self._model, wanted, change, dialect)
        )
        read = self._kept(
            ("upsert met", change.images, asked.shape),
            lambda: select(*change.returned.columns).where(*self._conditions(asked)),
        )
        for _ in range(_ATTEMPTS):
            row = connection.execute(statement, given).one_or_none()
            if row is not None:
                return Outcome(row, change, True)
            row = connection.execute(read, asked.params).one_or_none()
            if row is not None:
                return Outcome(row, change, False, kept=True)
        self._insert_plainly(connection, [given])
        raise vanished(self._model)

    # -- all

    def _check_upserted(self, connection: Connection, change: Change, batch: Batch, rows: Sequence[Row[Any]]) -> None:
        """Find out why a row was neither inserted nor changed: the one that has its key may be none of this crud's."""
        if len(rows) != len(batch.indexes):
            self._insert_plainly(connection, batch.rows())
            raise vanished(self._model)

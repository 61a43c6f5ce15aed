"""How a row that is to be inserted meets the one that has its key, on each database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, insert, select

from ..db.servers import family
from ..db.sessions import Place, place_of
from ..errors import SessionRefused
from .arguments import Asked
from .arrays import ROWS, Batch, takes_arrays
from .changes import Changes
from .conflicts import Upsertion
from .core import C, M, R, U
from .insertions import vanished
from .statements import Change
from .upsert_statements import (
    DEFINE,
    FOUND,
    OTHER,
    MariaDBUpsert,
    PostgresUpsert,
    SQLiteUpsert,
    for_mariadb,
    for_postgresql,
    for_sqlite,
    inserting,
    sqlite_lock,
)

_DEFINED = "fastrdb_upsert_defined"
_KEYS = 500  # of one SELECT
_ATTEMPTS = 10  # to insert or to read a row that others create and delete meanwhile


class Outcome(NamedTuple):
    """What became of one row.

    Attributes:
        row: What the statement gave back.
        change: The statement's parts.
        created: It was not there before.
        old: Its image before, where that may be another one than after it.
        kept: It was there, and was left as it is.
    """

    row: Row[Any]
    change: Change
    created: bool
    old: dict[str, Any] | None = None
    kept: bool = False

    @property
    def after(self) -> dict[str, Any]:
        """The row's image."""
        return self.change.returned.image(self.row)

    @property
    def before(self) -> dict[str, Any] | None:
        """Its image before; ``None`` where there was none."""
        return None if self.created else self.old or self.after


def _in_order_of(keys: Sequence[tuple[Any, ...]], rows: list[Row[Any]]) -> list[Row[Any]]:
    """Bring rows, which end with their keys, to the order of *keys*.

    SQLite gives rows back in the order in which it took them, and does not promise to. Where a key came back in other
    words than it was sent, that order has to do.
    """
    found = [tuple(row[-len(keys[0]) :]) for row in rows]
    if found == keys or set(found) != set(keys):
        return rows
    placed = dict(zip(found, rows, strict=True))
    return [placed[key] for key in keys]


def by_index(batches: Sequence[Batch], found: Sequence[Sequence[Outcome]]) -> list[Outcome]:
    """Bring what became of the rows of batches to the order of all rows."""
    placed: dict[int, Outcome] = {}
    for batch, outcomes in zip(batches, found, strict=True):
        placed.update(zip(batch.indexes, outcomes, strict=True))
    return [placed[index] for index in range(len(placed))]


def primary_keys(outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    """Give the primary keys of rows, by columns."""
    changes = {id(outcome.change): outcome.change for outcome in outcomes}
    places = {which: change.returned.places(change.keys) for which, change in changes.items()}
    return [tuple([outcome.row[at] for at in places[id(outcome.change)]]) for outcome in outcomes]


class Meeting(Changes[M, C, U, R]):
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
        self, connection: Connection, wanted: Upsertion, batch: Batch, tenant: Mapping[str, Any] = MappingProxyType({})
    ) -> list[Outcome]:
        """Insert rows, or change those that have their keys, and tell what became of each, in the batch's order."""
        dialect, everyone = family(connection.dialect), self._asked(tenant, None, None)
        change = self._upserting(connection, wanted, everyone)
        if dialect == "mysql":
            return self._meet_on_mariadb(connection, wanted, change, everyone, batch)
        if not wanted.updated:
            return [self._keep_met(connection, wanted, change, everyone, row) for row in batch.rows()]
        if dialect == "postgresql":
            return self._meet_on_postgresql(connection, wanted, change, everyone, batch)
        return self._meet_on_sqlite(connection, wanted, change, everyone, batch)

    def _upserting(self, connection: Connection, wanted: Upsertion, everyone: Asked) -> Change:
        if wanted.updated:
            return self._change(connection, everyone, wanted.updated)
        statement, returned, images = self._creation()
        keys = tuple(column.name for column in self._model.table.primary_key.columns)
        return Change(None, statement, None, returned, images, keys, frozenset(), frozenset())

    def _upsert_shape(self, wanted: Upsertion, change: Change, asked: Asked, dialect: str) -> object:
        return "upsert", dialect, wanted, change.images, asked.shape

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
        statements: SQLiteUpsert = self._kept(
            self._upsert_shape(wanted, change, asked, "sqlite"),
            lambda: for_sqlite(self._model, wanted, change, self._conditions(asked)),
        )
        columns = [self._model.columns[name].key for name in wanted.conflict]
        keys = list(zip(*(batch.columns[key] for key in columns), strict=True))
        there: dict[tuple[Any, ...], dict[str, Any]] = {}
        for start in range(0, len(keys), _KEYS):
            for row in connection.execute(statements.existing(keys[start : start + _KEYS])):
                image = dict(zip(change.images, row, strict=True))
                there[tuple(image[name] for name in change.keys)] = image
        rows: list[Row[Any]] = []
        if len(keys) > 1 and not self._conditions(asked):  # which may have parameters that VALUES have no place for
            rows += connection.execute(statements.write, batch.rows()).fetchall()
        else:
            for given in batch.rows():
                rows += connection.execute(statements.write, {**given, **asked.params}).fetchall()
        self._check_upserted(connection, change, batch, rows)
        rows = _in_order_of(keys, rows)
        outcomes = [Outcome(row, change, True) for row in rows]
        olds = [there.get(key) for key in primary_keys(outcomes)]
        return [
            each if old is None else each._replace(created=False, old=old)
            for each, old in zip(outcomes, olds, strict=True)
        ]

    # -- MariaDB

    def _meet_on_mariadb(
        self, connection: Connection, wanted: Upsertion, change: Change, asked: Asked, batch: Batch
    ) -> list[Outcome]:
        statements: MariaDBUpsert = self._kept(
            self._upsert_shape(wanted, change, asked, "mysql"),
            lambda: for_mariadb(self._model, wanted, change, self._conditions(asked)),
        )
        return [
            self._meet_one_on_mariadb(connection, wanted, change, asked, statements, given) for given in batch.rows()
        ]

    def _meet_one_on_mariadb(
        self,
        connection: Connection,
        wanted: Upsertion,
        change: Change,
        asked: Asked,
        statements: MariaDBUpsert,
        given: Mapping[str, Any],
    ) -> Outcome:
        row = connection.execute(statements.claim, {**given, **asked.params}).one()
        note = row[len(change.returned.columns)]
        if note == OTHER:
            row = self._meant(connection, wanted, change, asked, given)
        image = change.returned.image(row)
        if note not in (FOUND, OTHER):
            return Outcome(row, change, True)
        if statements.write is None:
            return Outcome(row, change, False, kept=True)
        by_key = {column.key: image[column.name] for column in self._model.table.primary_key.columns}
        row = connection.execute(statements.write, {**given, **by_key}).one()
        return Outcome(row, change, False, image)

    def _meant(
        self, connection: Connection, wanted: Upsertion, change: Change, everyone: Asked, given: Mapping[str, Any]
    ) -> Row[Any]:
        """Lock the row that the key names, where the new one would be in the way of another row."""
        asked = self._asked_by_key(wanted, everyone, given)
        statement = select(*change.returned.columns).where(*self._conditions(asked)).with_for_update()
        row = connection.execute(statement, asked.params).one_or_none()
        if row is None:
            self._insert_plainly(connection, [given])
            raise vanished(self._model)
        return row

    # -- all

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

    def _asked_by_key(self, wanted: Upsertion, everyone: Asked, given: Mapping[str, Any]) -> Asked:
        """Ask for the row that the key names, among those that the call may see."""
        named = {name: given[self._model.columns[name].key] for name in wanted.conflict}
        return self._asked({**self._whose(everyone), **named}, None, None)

    def _check_upserted(self, connection: Connection, change: Change, batch: Batch, rows: Sequence[Row[Any]]) -> None:
        """Find out why a row was neither inserted nor changed: the one that has its key may be none of this crud's."""
        if len(rows) != len(batch.indexes):
            self._insert_plainly(connection, batch.rows())
            raise vanished(self._model)

    def _insert_plainly(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Let the database say which constraint is in the way."""
        for row in rows:
            connection.execute(insert(self._model.table), row)

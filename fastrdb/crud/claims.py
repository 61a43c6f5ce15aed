"""How a row that is to be inserted meets the one that has its key on MariaDB: it claims it, and says so in a note."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import BindParameter, ColumnElement, Connection, Row, insert, select
from sqlalchemy.sql.visitors import cloned_traverse, iterate

from .arguments import Asked
from .arrays import Batch
from .changes import Changes
from .conflicts import Upsertion
from .core import C, M, R, U
from .insertions import vanished
from .outcomes import Outcome, primary_keys
from .savepoint import undo
from .statements import Change
from .upsert_statements import FOUND, OTHER, MariaDBUpsert, for_mariadb

T = TypeVar("T")


class Claims(Changes[M, C, U, R]):
    """What upserts do on MariaDB, and what they do on every database."""

    def _meet_on_mariadb(
        self, connection: Connection, wanted: Upsertion, change: Change, asked: Asked, batch: Batch, at_once: bool
    ) -> list[Outcome]:
        if at_once and not self._expands(asked):
            claim_all = partial(self._claim_all, connection, wanted, change, asked, batch)
            if (found := unless_unclear(connection, claim_all)) is not None:
                return found
        statements: MariaDBUpsert = self._kept(
            self._upsert_shape(wanted, change, asked, "mysql"),
            lambda: for_mariadb(self._model, wanted, change, self._conditions(asked)),
        )
        return [
            self._meet_one_on_mariadb(connection, wanted, change, asked, statements, given) for given in batch.rows()
        ]

    def _claim_all(
        self, connection: Connection, wanted: Upsertion, change: Change, asked: Asked, batch: Batch
    ) -> list[Outcome] | None:
        """Claim all rows by one statement, and write those that were there by another one.

        The server takes rows one after the other, and gives each back before it takes the next. ``None``: a row is in
        another one's way. Then it matters that each row is written before the next is claimed.
        """
        statements: MariaDBUpsert = self._upsert_of_many(
            self._upsert_shape(wanted, change, asked, "mysql"),
            asked,
            lambda conditions: for_mariadb(self._model, wanted, change, conditions),
        )
        rows = batch.rows()
        claimed = connection.execute(statements.claim, rows).fetchall()
        notes = [row[len(change.returned.columns)] for row in claimed]
        if len(claimed) != len(rows) or OTHER in notes:
            return None
        found = [Outcome(row, change, note != FOUND) for row, note in zip(claimed, notes, strict=True)]
        if statements.write is None:
            return [each._replace(kept=not each.created) for each in found]
        columns = self._model.table.primary_key.columns
        keys = primary_keys(found)
        there = [
            {**given, **dict(zip(columns.keys(), key, strict=True))}
            for given, key, each in zip(rows, keys, found, strict=True)
            if not each.created
        ]
        written = connection.execute(statements.write, there).fetchall() if there else []
        now = dict(zip(primary_keys([Outcome(row, change, False) for row in written]), written, strict=True))
        if any(key not in now for key, each in zip(keys, found, strict=True) if not each.created):
            return None
        return [
            each if each.created else Outcome(now[key], change, False, each.after)
            for key, each in zip(keys, found, strict=True)
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

    def _upsert_shape(self, wanted: Upsertion, change: Change, asked: Asked, dialect: str) -> object:
        return "upsert", dialect, wanted, change.images, asked.shape

    def _expands(self, asked: Asked) -> bool:
        """Tell whether the conditions have a parameter that stands for a list: then a statement is for one row."""
        parts = (part for condition in self._conditions(asked) for part in iterate(condition))
        return any(isinstance(part, BindParameter) and (part.expanding or part.literal_execute) for part in parts)

    def _upsert_of_many(self, shape: object, asked: Asked, build: Callable[[Sequence[ColumnElement[bool]]], T]) -> T:
        """Build statements whose parameters are rows alone: those of the conditions stand in the conditions."""
        conditions = self._conditions(asked)
        if asked.params:
            return build([_with_values(each, asked.params) for each in conditions])
        found: T = self._kept(shape, lambda: build(conditions))
        return found

    def _asked_by_key(self, wanted: Upsertion, everyone: Asked, given: Mapping[str, Any]) -> Asked:
        """Ask for the row that the key names, among those that the call may see."""
        named = {name: given[self._model.columns[name].key] for name in wanted.conflict}
        return self._asked({**self._whose(everyone), **named}, None, None)

    def _insert_plainly(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Let the database say which constraint is in the way."""
        for row in rows:
            connection.execute(insert(self._model.table), row)


def _with_values(condition: ColumnElement[bool], values: Mapping[str, Any]) -> ColumnElement[bool]:
    """Give the condition with the values of its parameters in it."""

    def set_value(parameter: BindParameter[Any]) -> None:
        if parameter.key in values:
            parameter.value, parameter.required = values[parameter.key], False

    return cloned_traverse(condition, {"maintain_key": True}, {"bindparam": set_value})


def unless_unclear(connection: Connection, statements: Callable[[], T | None]) -> T | None:
    """Give what statements give; where that is ``None``, they are undone."""
    nested = connection.begin_nested()
    try:
        found = statements()
    except BaseException:
        undo(nested)
        raise
    if found is None:
        nested.rollback()
    else:
        nested.commit()
    return found

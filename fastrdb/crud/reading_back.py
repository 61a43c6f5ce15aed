"""What writes answer: the responses of rows as their statements gave them back, or as they are read again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache as once
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, tuple_

from ..db.servers import family
from .arguments import Asked
from .core import C, M, R, U
from .execution import Query, read_back
from .instances import Instances
from .options import PLAIN
from .statements import Returned

_ROWS = 500  # of one statement


class ReadingBack(Instances[M, C, U, R]):
    """How a written row becomes a response; one that shows more than columns of its row is read again for it."""

    def _shown_columns(self) -> tuple[ColumnElement[Any], ...]:
        """Give what a write returns for the response; nothing where that has to be read back."""
        return tuple(self._responses.columns.values()) if self._plain else ()

    def _answer(self, connection: Connection, row: Row[Any], returned: Returned) -> Callable[[], R]:
        """Give what makes the response of a written row, once: of what the statement returned, or was read back now."""
        if self._plain:
            return once(partial(self._responses.build, row))
        response = self._read_back(connection, [returned.image(row)])[0]
        return lambda: response

    def _answers(
        self, connection: Connection, rows: Iterable[Row[Any]], images: Iterable[Mapping[str, Any]]
    ) -> list[R]:
        """Give the responses of written rows, in their order; their images are looked at only to read them back."""
        if self._plain:
            return self._responses.build_all(rows)
        return self._read_back(connection, images)

    def _read_back(self, connection: Connection, images: Iterable[Mapping[str, Any]]) -> list[R]:
        """Give the responses of rows that the same transaction has written, in the order of their images."""
        names = [column.name for column in self._model.table.primary_key.columns]
        keys = [tuple(image[name] for name in names) for image in images]
        asked = self._parsed({}, None, None, self._policies.every_row)
        query = self._reading_back(asked, family(connection.dialect), len(names))
        found: dict[Any, R] = {}
        for start in range(0, len(keys), _ROWS):
            part = keys[start : start + _ROWS]
            given = {**asked.params, "fastrdb_keys": part if len(names) > 1 else [key[0] for key in part]}
            found.update(
                read_back(connection, query, given, lambda row: (tuple(row[-len(names) :]), self._build(row)[0]))
            )
        return [found[key] for key in keys]

    def _reading_back(self, asked: Asked, dialect: str, width: int) -> Query:
        """Give the SELECT of responses by their keys, which are shown last."""
        keys = list(self._model.table.primary_key.columns)
        named: Any = bindparam("fastrdb_keys", expanding=True)
        among = tuple_(*keys).in_(named) if width > 1 else keys[0].in_(named)
        shown = [key.label(f"fastrdb_key_{key.name}") for key in keys]
        # The row itself may be deleted by now; related rows are shown as every read shows them.
        statement = self._select(asked, PLAIN).add_columns(*shown).where(among)
        if dialect == "mysql":  # not from a snapshot that may be older than the row
            statement = statement.with_for_update()
        return Query.of(statement, by_entity=self._responses.by_entity)

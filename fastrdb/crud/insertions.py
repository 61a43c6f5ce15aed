"""Rows inserted many at a time, each of which comes back in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert

from ..errors import UnsupportedModel
from .arrays import Batch, insert_of_arrays, takes_arrays
from .changes import Changes
from .core import C, M, R, U
from .model import Model
from .progress import Sent
from .statements import Creation


class Insertions(Changes[M, C, U, R]):
    """How the writes that create many rows insert those that they give back."""

    def _insert(
        self, connection: Connection, batches: Sequence[Batch], creation: Creation, sent: Sent
    ) -> list[Row[Any]]:
        """Insert all rows, and give them in their order.

        Raises:
            UnsupportedModel: Fewer came back than were sent, so that nobody knows which is which.
        """
        if len(batches) == 1:
            return self._insert_batch(connection, batches[0], creation, sent)
        found: dict[int, Row[Any]] = {}
        for batch in batches:
            found.update(zip(batch.indexes, self._insert_batch(connection, batch, creation, sent), strict=True))
        return [found[index] for index in range(len(found))]

    def _insert_batch(self, connection: Connection, batch: Batch, creation: Creation, sent: Sent) -> list[Row[Any]]:
        table, keys, columns = self._model.table, tuple(batch.columns), creation.returned.columns
        shape = ("arrays", keys, creation.images, len(columns))
        arrays = None
        if takes_arrays(connection.dialect):
            arrays = self._kept(shape, lambda: insert_of_arrays(table, keys, columns))
        values = insert(table).returning(*columns, sort_by_parameter_order=True)
        found: list[Row[Any]] = []
        for part in sent.cut(batch, limited=arrays is not None):
            if arrays is not None:
                found += connection.execute(arrays, part.arrays()).fetchall()
            else:
                found += connection.execute(values, part.rows()).fetchall()
        if len(found) != len(batch.indexes):
            raise vanished(self._model)
        return found


def vanished(model: Model, verb: str = "create") -> UnsupportedModel:
    """Give the error of a statement that gave back fewer rows than it was to write.

    Args:
        model: Whose table it is.
        verb: What goes row by row: ``"create"`` or ``"change"``.
    """
    return UnsupportedModel(model.name, f"a trigger of its table lets rows vanish; {verb} them one by one")

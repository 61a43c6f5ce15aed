"""Many rows in one INSERT, each column as one array: PostgreSQL takes half the time that as many VALUES need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, Executable, Table, bindparam, column, func, insert, select
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

ROWS = 10_000  # of one statement: a message has a size limit, and both sides keep all of it in memory

# The types whose arrays need no more than asyncpg's own encoders. A cast to VARCHAR(n) or to NUMERIC(p, s) would cut
# or round silently; without a size, the column decides, as with VALUES.
_AS_THEY_ARE = (sa.Boolean, sa.Date, sa.DateTime, sa.TIMESTAMP, sa.Time, sa.Uuid, sa.UUID, sa.LargeBinary)
_UNSIZED: Mapping[type[TypeEngine[Any]], TypeEngine[Any]] = {
    **dict.fromkeys((sa.Integer, sa.INTEGER), sa.Integer()),
    **dict.fromkeys((sa.BigInteger, sa.BIGINT), sa.BigInteger()),
    **dict.fromkeys((sa.SmallInteger, sa.SMALLINT), sa.SmallInteger()),
    **dict.fromkeys((sa.Float, sa.FLOAT, sa.Double, sa.DOUBLE, sa.DOUBLE_PRECISION, sa.REAL), sa.Double()),
    **dict.fromkeys((sa.Numeric, sa.NUMERIC, sa.DECIMAL), sa.Numeric()),
    **dict.fromkeys((sa.String, sa.Text, sa.Unicode, sa.UnicodeText, sa.VARCHAR, sa.TEXT), sa.Text()),
}


def insert_of_arrays(table: Table, keys: Sequence[str], returned: Sequence[ColumnElement[Any]]) -> Executable | None:
    """Build an INSERT whose parameters are ``Batch.arrays``; ``None`` where that would not do what VALUES do.

    The rows come back in the order of the lists: an INSERT takes its rows one after the other from the SELECT, which
    is ordered, and gives each back before it takes the next.

    Args:
        table: The table.
        keys: Keys of the columns that are given.
        returned: What comes back of each row; nothing, for no columns.
    """
    columns = [table.c[key] for key in keys]
    types = [item_type(each) for each in columns]
    if not keys or not _fills_the_rest(table, keys) or any(type_ is None for type_ in types):
        return None
    names = [f"c{at}" for at in range(len(columns))]
    arrays = [bindparam(name, type_=sa.ARRAY(type_)) for name, type_ in zip(names, types, strict=True) if type_]
    typed = [column(name, type_) for name, type_ in zip(names, types, strict=True) if type_]
    rows = func.unnest(*arrays).table_valued(*typed, with_ordinality="at").render_derived()
    ordered = select(*(rows.c[name] for name in names)).order_by(rows.c["at"])
    statement = insert(table).from_select(columns, ordered)
    return statement.returning(*returned) if returned else statement


class Batch(NamedTuple):
    """Rows that give the same columns, by columns.

    Attributes:
        indexes: Their places among all rows.
        columns: Key of each column -> the values of the rows, in their order.
    """

    indexes: list[int]
    columns: dict[str, Sequence[Any]]

    def rows(self) -> list[dict[str, Any]]:
        """Give the rows, by the keys of their columns."""
        if not self.columns:
            return [{} for _ in self.indexes]
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]

    def arrays(self) -> dict[str, Sequence[Any]]:
        """Give the parameters of the statement that inserts the rows as arrays."""
        return {f"c{at}": values for at, values in enumerate(self.columns.values())}

    def parts(self, rows: int) -> Iterator[Batch]:
        """Cut the batch into parts of at most so many rows."""
        if len(self.indexes) <= rows:
            yield self
            return
        for start in range(0, len(self.indexes), rows):
            part = slice(start, start + rows)
            yield Batch(self.indexes[part], {key: values[part] for key, values in self.columns.items()})


def takes_arrays(dialect: Dialect) -> bool:
    """Tell whether the database and its driver are those that this is written for."""
    return dialect.name == "postgresql" and dialect.driver == "asyncpg"


def item_type(of: Column[Any]) -> TypeEngine[Any] | None:
    """Give the type with which the values of a column stand in an array; ``None`` where that may change them."""
    kind = type(of.type)
    if getattr(of.type, "_variant_mapping", None):
        return None
    return of.type if kind in _AS_THEY_ARE else _UNSIZED.get(kind)


def _fills_the_rest(table: Table, keys: Sequence[str]) -> bool:
    """Tell whether the database fills the columns that are not given; Python's defaults are asked for each row."""
    return all(each.default is None for each in table.columns if each.key not in keys)

"""What aggregates compute of a column: the SQL of each function, and the exact value that its result stands for.

Databases give the same sum in several types, and SQLite, which has no decimals, in floats. Here a sum of integers is
an int and one of decimals an exact Decimal on each of them; a mean is computed from sum and number.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import BigInteger, ColumnElement, Float, Numeric, cast, distinct, func, literal, type_coerce

from ..errors import InputError
from ..values import ColumnValues, column_values

_DIVISION = Context(prec=28)
_NUMBERS = frozenset({int, float, Decimal})
_ORDERED = _NUMBERS | {str, dt.date, dt.datetime, dt.time, dt.timedelta}


class Source(NamedTuple):
    """What a function is applied to.

    Attributes:
        alias: Name of the result.
        field: Name of the attribute, or ``"*"``.
        column: Its SQL; ``None`` for ``"*"``.
        values: What it takes; ``None`` for ``"*"``.
        exact: The database computes with decimals.
    """

    alias: str
    field: str
    column: ColumnElement[Any] | None
    values: ColumnValues | None
    exact: bool


class Figure(NamedTuple):
    """One result of an aggregate.

    Attributes:
        selected: What the statement reads for it.
        expression: What ``having`` and ``order_by`` compare.
        values: The kind of the result.
        finish: Makes the result of what was read.
    """

    selected: tuple[ColumnElement[Any], ...]
    expression: ColumnElement[Any]
    values: ColumnValues
    finish: Callable[..., Any]


_Function: TypeAlias = Callable[[Source], Figure]


def figure(function: str, source: Source) -> Figure:
    """Give what a function makes of a column.

    Raises:
        InputError: There is no such function, or the column's type has none.
    """
    if function not in FUNCTIONS:
        valid = ", ".join(sorted(FUNCTIONS))
        raise InputError(f"aggregate {source.alias!r}: there is no function {function!r}; valid: {valid}")
    if source.column is None and function != "count":
        raise InputError(f"aggregate {source.alias!r}: {function} needs a field; only count takes '*'")
    return FUNCTIONS[function](source)


def _count(source: Source) -> Figure:
    counted = func.count() if source.column is None else func.count(source.column)
    return Figure((counted,), counted, column_values(source.alias, BigInteger()), int)


def _count_distinct(source: Source) -> Figure:
    column, values = _column(source)
    if values.category == "json":
        raise _refused(source, "count_distinct", "values that databases compare, which JSON is not")
    counted = func.count(distinct(column))
    return Figure((counted,), counted, column_values(source.alias, BigInteger()), int)


def _sum(source: Source) -> Figure:
    column, values = _column(source, _NUMBERS, "sum", "numbers")
    total = func.sum(column)
    if values.python_type is int:
        whole = type_coerce(total, BigInteger())
        return Figure((whole,), whole, column_values(source.alias, BigInteger()), _whole)
    if values.python_type is float:
        return Figure((total,), total, column_values(source.alias, Float()), _float)
    scale = getattr(column.type, "scale", None)
    kind = column_values(source.alias, Numeric(None, scale))
    if source.exact or scale is None:
        decimal = type_coerce(total, Numeric())
        return Figure((decimal,), decimal, kind, _decimal)
    # Floats are added up with an error; what they stand for are whole numbers of the column's smallest step.
    steps = func.sum(cast(func.round(type_coerce(column, Float()) * literal(10.0**scale)), BigInteger))
    compared = type_coerce(steps / literal(10.0**scale), Numeric())
    return Figure((steps,), compared, kind, lambda number: None if number is None else Decimal(number).scaleb(-scale))


def _avg(source: Source) -> Figure:
    column, values = _column(source, _NUMBERS, "avg", "numbers")
    if values.python_type is float:
        found = func.avg(column)
        return Figure((found,), found, column_values(source.alias, Float()), _float)
    mean: ColumnElement[Any]
    total, number = _sum(source), func.count(column)
    if values.python_type is int:
        # By floats: MariaDB's own mean of integers has four digits.
        mean = type_coerce(func.sum(column) * literal(1.0) / number, Float())
        kind = column_values(source.alias, Float())
        return Figure((*total.selected, number), mean, kind, lambda s, n: None if not n else int(s) / n)
    mean = type_coerce(func.avg(column) if source.exact else total.expression / number, Numeric())
    finish = total.finish
    return Figure(
        (*total.selected, number),
        mean,
        column_values(source.alias, Numeric()),
        lambda s, n: None if not n else _DIVISION.divide(finish(s), Decimal(n)),
    )


def _extreme(name: str) -> _Function:
    def build(source: Source) -> Figure:
        column, _ = _column(source, _ORDERED, name, "numbers, text and times")
        found: ColumnElement[Any] = getattr(func, name)(column)
        return Figure((found,), found, column_values(source.alias, column.type), lambda value: value)

    return build


def _column(
    source: Source, types: frozenset[type] | None = None, function: str = "", taken: str = ""
) -> tuple[ColumnElement[Any], ColumnValues]:
    assert source.column is not None
    assert source.values is not None
    if types is not None and source.values.python_type not in types:
        raise _refused(source, function, taken)
    return source.column, source.values


def _refused(source: Source, function: str, taken: str) -> InputError:
    given = source.values.expected if source.values is not None else "nothing"
    return InputError(f"aggregate {source.alias!r}: {function} takes {taken}, and {source.field!r} is {given}")


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _decimal(value: Any) -> Decimal | None:
    return value if value is None or isinstance(value, Decimal) else Decimal(value)


FUNCTIONS: Mapping[str, _Function] = {
    "count": _count,
    "count_distinct": _count_distinct,
    "sum": _sum,
    "avg": _avg,
    "min": _extreme("min"),
    "max": _extreme("max"),
}
"""Every function of ``aggregate``, by name."""

"""Where a page begins: SQL for "after this row, in this order", in forms that indexes serve.

All comparisons are the database's own, on what its driver gave for the row, never on what SQLAlchemy makes of that:
collations, padding and rounding then decide as they do in ORDER BY. Two things a driver gives otherwise than the
database compares them are asked for in another form: MariaDB shows a FLOAT in six digits, and orders an ENUM by its
number but compares it by its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Enum,
    Float,
    and_,
    bindparam,
    literal_column,
    or_,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from .ordering import Term


class Segment(NamedTuple):
    """A part of a list that is read by one SELECT; the list is its segments, one after the other.

    Attributes:
        conditions: What its rows satisfy; their parameters are those of ``parameters``.
        order: Their ORDER BY.
    """

    conditions: list[ColumnElement[bool]]
    order: list[ColumnElement[Any]]


def walked(terms: Sequence[Term], primary_key: Sequence[str]) -> list[Term]:
    """Give the terms that decide an order: what follows the last column of the primary key decides nothing."""
    places = [at for at, term in enumerate(terms) if term.field in primary_key]
    return list(terms[: max(places) + 1])


def compared(term: Term, dialect: str) -> ColumnElement[Any]:
    """Give the SQL of a term's value as it is fetched and compared: as the driver has it."""
    raw: ColumnElement[Any] = type_coerce(term.expression, NullType())
    if dialect != "mysql":
        return raw
    type_ = _plain(term.expression.type)
    if isinstance(type_, Enum) and type_.native_enum:
        return raw.op("+")(literal_column("0"))
    return raw.op("+")(literal_column("0e0")) if isinstance(type_, Float) else raw


def parameters(values: Sequence[object]) -> dict[str, object]:
    """Give the parameters of the conditions."""
    return {_name(at): value for at, value in enumerate(values)}


def segments(
    terms: Sequence[Term], absent: Sequence[bool] | None, dialect: str, *, inclusive: bool = False
) -> list[Segment]:
    """Give the rest of a list after one of its rows, or all of it.

    Where rows may lack a value of the first term, those that do are a segment of their own: each is then one range of
    an index, whichever comes first.

    Args:
        terms: The order, as ``walked`` gives it.
        absent: For each term whether the row has no value there; ``None``: the whole list.
        dialect: As in ``Place``.
        inclusive: With the row itself.
    """
    first = terms[0]
    whole = [clause for term in terms for clause in term.clauses(dialect)]
    split = first.nullable if absent is not None else first.nullable and not first.natural
    if not split and not (absent is not None and absent[0]):
        after = _after(_Row(terms, absent, dialect, inclusive)) if absent is not None else []
        return [Segment(after, whole)]
    present = [first._replace(nullable=False), *terms[1:]]
    order = [clause for term in present for clause in term.clauses(dialect)]
    empty = Segment([first.expression.is_(None)], order)
    filled = Segment([first.expression.is_not(None)], order)
    if absent is None:
        return [empty, filled] if first.nulls_first else [filled, empty]
    if absent[0]:
        rest = _Row(terms, absent, dialect, inclusive)
        here = Segment([*empty.conditions, _beyond(rest, 1)], order)
        return [here, filled] if first.nulls_first else [here]
    here = Segment(_after(_Row(present, absent, dialect, inclusive)), order)
    return [here] if first.nulls_first else [here, empty]


class _Row(NamedTuple):
    terms: Sequence[Term]
    absent: Sequence[bool]
    dialect: str
    inclusive: bool

    def column(self, at: int) -> ColumnElement[Any]:
        return compared(self.terms[at], self.dialect)


def _after(row: _Row) -> list[ColumnElement[bool]]:
    """Compare whole rows where that is the same; else begin with the range that an index can find."""
    terms = row.terms
    alike = all(term.ascending == terms[0].ascending and not term.nullable for term in terms)
    if alike and row.dialect != "mysql" and len(terms) > 1:  # whose optimizer makes no range of it
        columns = tuple_(*(row.column(at) for at in range(len(terms))))
        values = tuple_(*(_value(at) for at in range(len(terms))))
        return [_greater(columns, values, ascending=terms[0].ascending, equal=row.inclusive)]
    if len(terms) == 1:
        return [_beyond(row, 0)]
    return [_greater(row.column(0), _value(0), ascending=terms[0].ascending, equal=True), _beyond(row, 0)]


def _beyond(row: _Row, at: int) -> ColumnElement[bool]:
    """Say that a row comes after this one, as far as the terms from *at* on decide it."""
    term, last = row.terms[at], at == len(row.terms) - 1
    column = row.column(at)
    if row.absent[at]:
        same = term.expression.is_(None)
        there = [term.expression.is_not(None)] if term.nulls_first else []
        return or_(*there, and_(same, _beyond(row, at + 1)))
    later = [_greater(column, _value(at), ascending=term.ascending, equal=last and row.inclusive)]
    if term.nullable and not term.nulls_first:
        later.append(term.expression.is_(None))
    return or_(*later) if last else or_(*later, and_(column == _value(at), _beyond(row, at + 1)))


def _greater(
    column: ColumnElement[Any], value: ColumnElement[Any], *, ascending: bool, equal: bool
) -> ColumnElement[bool]:
    if equal:
        return column >= value if ascending else column <= value
    return column > value if ascending else column < value


def _value(at: int) -> BindParameter[Any]:
    return bindparam(_name(at), type_=NullType())


def _name(at: int) -> str:
    return f"fastrdb_at_{at}"


@lru_cache(maxsize=1)
def _mysql() -> Dialect:
    return mysql.dialect()


def _plain(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Give the type that MariaDB has for a type, its variants and decorators looked through."""
    found: TypeEngine[Any] = type_.dialect_impl(_mysql())
    while isinstance(found, TypeDecorator):
        found = found.impl_instance
    return found

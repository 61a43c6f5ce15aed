"""The order of a list: by several attributes, in either direction, with NULLs first or last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement

from ..errors import OrderRefused, UnknownField, UsageError
from .model import Model

Nulls: TypeAlias = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class Order:
    """One attribute to order by.

    Attributes:
        field: Its name.
        ascending: Its direction.
        nulls: Where rows without a value come; ``None``: where the database puts them, which an index serves best
            (PostgreSQL takes NULL for the largest value, SQLite and MariaDB for the smallest).
    """

    field: str
    _: KW_ONLY
    ascending: bool = True
    nulls: Nulls | None = None

    def __post_init__(self) -> None:
        if self.nulls not in (None, "first", "last"):
            raise OrderRefused(str(self.field), f'nulls is "first", "last" or None, not {self.nulls!r}')


OrderBy: TypeAlias = "str | Order | Sequence[str | Order] | None"


class Term(NamedTuple):
    """One expression of an ORDER BY, its direction resolved.

    Attributes:
        field: The attribute.
        expression: Its SQL.
        ascending: Its direction.
        nullable: There may be rows without a value.
        nulls_first: Where these come.
        natural: That is where the database puts them unasked.
    """

    field: str
    expression: ColumnElement[Any]
    ascending: bool
    nullable: bool
    nulls_first: bool
    natural: bool

    def reversed(self) -> Term:
        """Give the term of the opposite order."""
        return self._replace(ascending=not self.ascending, nulls_first=not self.nulls_first)

    def clauses(self, dialect: str) -> list[ColumnElement[Any]]:
        """Give its part of the ORDER BY; MariaDB has no NULLS FIRST, and is told whether there is a value first."""
        clause: ColumnElement[Any] = self.expression.asc() if self.ascending else self.expression.desc()
        if self.natural or not self.nullable:
            return [clause]
        if dialect == "mysql":
            absent = self.expression.is_(None)
            return [absent.desc() if self.nulls_first else absent.asc(), clause]
        return [clause.nulls_first() if self.nulls_first else clause.nulls_last()]


@dataclass(frozen=True, slots=True)
class Sorting:
    """An order as it was asked for. Ties, and no order at all, go by the primary key.

    Attributes:
        orders: What to order by.
        ascending: ``False`` turns all of it round: directions, places of NULLs, the primary key.
    """

    orders: tuple[Order, ...]
    ascending: bool

    @property
    def fields(self) -> tuple[str, ...]:
        """The attributes, without those of the primary key that break ties."""
        return tuple(order.field for order in self.orders)

    @property
    def key(self) -> object | None:
        """What a key must hold of it, as JSON can say it; ``None`` for the default order."""
        if not self.orders:
            return None if self.ascending else [None, False]
        if len(self.orders) == 1 and self.orders[0].ascending and self.orders[0].nulls is None:
            return [self.orders[0].field, self.ascending]
        return [[[order.field, order.ascending, order.nulls] for order in self.orders], self.ascending]

    def shape(self, dialect: str) -> object:
        """What the SQL depends on."""
        return self, dialect if any(order.nulls is not None for order in self.orders) else None

    def terms(self, model: Model, dialect: str) -> list[Term]:
        """Give the terms of the ORDER BY, those that break ties last."""
        ties = [Order(name) for name in model.primary_key if name not in self.fields]
        return [self._term(model, order, dialect) for order in (*self.orders, *ties)]

    def _term(self, model: Model, order: Order, dialect: str) -> Term:
        column = model.columns.get(order.field)
        nullable = column is None or (bool(column.nullable) and order.field not in model.primary_key)
        own = order.ascending == (dialect != "postgresql")  # what the database does before the list is turned round
        first = own if order.nulls is None else order.nulls == "first"
        term = Term(order.field, model.expressions[order.field], order.ascending, nullable, first, first == own)
        return term if self.ascending else term.reversed()


_FORWARD: Final = Sorting((), True)


def sorting_of(model: Model, order_by: OrderBy, ascending: bool) -> Sorting:
    """Understand the arguments of a call.

    Raises:
        UnknownField: The model has no such attribute.
        OrderRefused: An attribute is named twice, or is JSON.
        UsageError: *order_by* is something else.
    """
    if order_by is None:
        return _FORWARD if ascending else Sorting((), False)
    given = [order_by] if isinstance(order_by, (str, Order)) else order_by
    if not isinstance(given, (list, tuple)):
        raise _unusable(order_by)
    orders = tuple(map(_order, given))
    seen: list[ColumnElement[Any]] = []
    for order in orders:
        expression = model.expressions.get(order.field)
        if expression is None:
            raise UnknownField(order.field, model.name, model.expressions)
        if model.values[order.field].category == "json":
            raise OrderRefused(order.field, "it is JSON, which databases do not put in an order")
        if any(expression is other for other in seen):
            raise OrderRefused(order.field, "it is there twice; name each attribute once")
        seen.append(expression)
    return Sorting(orders, bool(ascending))


def _order(given: object) -> Order:
    if isinstance(given, Order) and isinstance(given.field, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers
        return given
    if isinstance(given, str):
        return Order(given[1:], ascending=False) if given.startswith("-") else Order(given)
    raise _unusable(given)


def _unusable(given: object) -> UsageError:
    return UsageError(
        f'order_by: {type(given).__name__}; pass the name of an attribute, "-name" for the opposite direction, '
        "a fastrdb.Order, or a list of these"
    )

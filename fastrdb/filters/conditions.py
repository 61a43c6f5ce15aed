"""Parsed filters: a tree of conditions, its shape, its parameters, its canonical form, its SQL."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import BindParameter, ColumnElement, Float, Numeric, and_, bindparam, or_
from sqlalchemy.types import TypeEngine

from fastrdb.filters.exactness import exactly
from fastrdb.filters.fields import FieldSet
from fastrdb.values import ColumnValues

ESCAPE = "/"


class Comparison(NamedTuple):
    """One operator on one field.

    Attributes:
        field: Name of the field.
        operator: A key of ``_SQL``.
        operands: Coerced values, one for each bind parameter; ``in`` and ``not_in`` have one list.
        values: How the operands are written.
    """

    field: str
    operator: str
    operands: tuple[Any, ...]
    values: ColumnValues


class AnyOf(NamedTuple):
    """Alternatives, each of conditions that must all hold."""

    alternatives: tuple[Conditions, ...]


Condition: TypeAlias = Comparison | AnyOf
Conditions: TypeAlias = tuple[Condition, ...]


class Filter(NamedTuple):
    """Filters, parsed: ready to be hashed, built, and bound.

    Attributes:
        shape: Structure without values: filters of equal shape, on the same fields, build equal SQL.
        params: Bind name -> coerced value; a list where the SQL has an expanding ``IN``.
        plain: Fields that got exactly one plain value, coerced, by an equality that must hold; ``None``, too.
        conditions: The tree, in the order of the shape.
    """

    shape: Hashable
    params: dict[str, Any]
    plain: dict[str, Any]
    conditions: Conditions

    @property
    def fields(self) -> frozenset[str]:
        """Give the names of all fields in the tree."""
        return _fields(self.conditions)

    @property
    def canonical(self) -> list[Any]:
        """Give what JSON can say of the filter: equal meaning gives an equal list, in every process.

        Raises:
            ValueRefused: A value of an unknown type has no stable ``repr``.
        """
        return _canonical(self.conditions)

    def canonical_without(self, fields: Container[str]) -> list[Any] | None:
        """Give the canonical form without the plain values of these fields; ``None`` when nothing is left."""
        rest = tuple(each for each in self.conditions if not self._says_plainly(each, fields))
        return _canonical(rest) if rest else None

    def build(self, fields: FieldSet) -> list[ColumnElement[bool]]:
        """Give the SQL: conditions to be joined by AND, whose parameters are named as in ``params``."""
        return _build(self.conditions, fields, _names())

    def _says_plainly(self, condition: Condition, fields: Container[str]) -> bool:
        return (
            isinstance(condition, Comparison)
            and condition.operator in _EQUALITIES
            and condition.field in self.plain
            and condition.field in fields
        )


def all_of(conditions: Sequence[Condition]) -> Filter:
    """Make a filter of conditions that must all hold."""
    ordered = _sorted(conditions)
    params: dict[str, Any] = {}
    return Filter(_number(ordered, params), params, _plain(ordered), ordered)


def any_of(alternatives: Sequence[Conditions]) -> Conditions:
    """Give conditions that hold if one of the alternatives does."""
    return alternatives[0] if len(alternatives) == 1 else (AnyOf(tuple(map(_sorted, alternatives))),)


def _fields(conditions: Conditions) -> frozenset[str]:
    found: set[str] = set()
    for condition in conditions:
        if isinstance(condition, Comparison):
            found.add(condition.field)
        else:
            found.update(*(_fields(each) for each in condition.alternatives))
    return frozenset(found)


# What equal filters have in common.

_EQUALITIES = ("=", "null", "exactly")


def _sorted(conditions: Sequence[Condition]) -> Conditions:
    return tuple(conditions) if len(conditions) < 2 else tuple(sorted(conditions, key=_order))


def _order(condition: Condition) -> tuple[bool, str, str]:
    if isinstance(condition, Comparison):
        return False, condition.field, condition.operator
    return True, str(_number((condition,), {})), ""


def _number(conditions: Conditions, params: dict[str, Any]) -> Hashable:
    """Put the operands into *params*, in the order of the tree, and give the tree's shape."""
    shape: list[Hashable] = []
    for condition in conditions:
        if isinstance(condition, Comparison):
            for operand in condition.operands:
                params[f"filter_{len(params)}"] = operand
            shape.append(condition[:2])
        else:
            shape.append(tuple(_number(each, params) for each in condition.alternatives))
    return tuple(shape)


def _names() -> Iterator[str]:
    """Name the parameters as ``_number`` does."""
    return (f"filter_{number}" for number in count())


def _plain(conditions: Conditions) -> dict[str, Any]:
    found: dict[str, Any] = {}
    contradicted: set[str] = set()
    for condition in conditions:
        if isinstance(condition, Comparison) and condition.operator in _EQUALITIES:
            field, value = condition.field, condition.operands[0] if condition.operands else None
            if found.setdefault(field, value) != value:
                contradicted.add(field)
    return {field: found[field] for field in found if field not in contradicted} if contradicted else found


def _canonical(conditions: Conditions) -> list[Any]:
    return _distinct([_comparison(each) if isinstance(each, Comparison) else _choice(each) for each in conditions])


def _choice(choice: AnyOf) -> list[Any]:
    return ["or", _distinct([_canonical(each) for each in choice.alternatives])]


def _comparison(comparison: Comparison) -> list[Any]:
    field, name, operands, values = comparison
    if name in _PATTERNS:
        return [field, name, *operands]
    if name not in _MANY:
        return [field, name, *map(values.text, operands)]
    texts = sorted(set(map(values.text, operands[0])))
    return [field, _MANY[name] if len(texts) == 1 else name, *texts]


def _distinct(items: list[Any]) -> list[Any]:
    return [json.loads(text) for text in sorted({json.dumps(item) for item in items})]


# SQL.

_Build: TypeAlias = Callable[..., ColumnElement[bool]]

_SQL: dict[str, _Build] = {
    "=": operator.eq,
    "exactly": exactly,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "null": lambda column: column.is_(None),
    "not_null": lambda column: column.is_not(None),
    "is_not": lambda column, value: column.is_distinct_from(value),
    "in": lambda column, listed: column.in_(listed),
    "not_in": lambda column, listed: column.not_in(listed),
    "between": lambda column, low, high: column.between(low, high),
    "like": lambda column, pattern: column.like(pattern),
    "not_like": lambda column, pattern: column.not_like(pattern),
    "ilike": lambda column, pattern: column.ilike(pattern),
    "not_ilike": lambda column, pattern: column.not_ilike(pattern),
    "matches": lambda column, pattern: column.like(pattern, escape=ESCAPE),
}
_MANY = {"in": "=", "not_in": "!="}  # and what they are for one value
_PATTERNS = frozenset({"like", "not_like", "ilike", "not_ilike", "matches"})


def _build(conditions: Conditions, fields: FieldSet, names: Iterator[str]) -> list[ColumnElement[bool]]:
    return [
        _build_one(each, fields, names)
        if isinstance(each, Comparison)
        else or_(*(and_(*_build(alternative, fields, names)) for alternative in each.alternatives))
        for each in conditions
    ]


def _build_one(comparison: Comparison, fields: FieldSet, names: Iterator[str]) -> ColumnElement[bool]:
    column, _ = fields[comparison.field]
    expanding = comparison.operator in _MANY
    type_ = unrounded(column.type)
    binds: list[BindParameter[Any]] = [
        bindparam(next(names), type_=type_, expanding=expanding) for _ in comparison.operands
    ]
    return _SQL[comparison.operator](column, *binds)


def unrounded(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Give a column's type for a parameter, without its scale, to which drivers would round: 1.505 is not 1.51."""
    own = type(type_).__module__.startswith("sqlalchemy.") and not getattr(type_, "_variant_mapping", None)
    return Numeric() if own and isinstance(type_, Numeric) and not isinstance(type_, Float) else type_

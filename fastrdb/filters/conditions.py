"""Parsed filters: a tree of conditions, its shape, its parameters, its canonical form, its SQL."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import BindParameter, ColumnElement, Float, Numeric, and_, bindparam, not_, or_
from sqlalchemy.types import TypeEngine

from fastrdb.filters.exactness import exactly
from fastrdb.filters.fields import FieldSet
from fastrdb.values import ColumnValues

ESCAPE = "/"
PREFIX = "filter"


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
    """Alternatives, each of conditions that must all hold.

    Attributes:
        field: The field of related rows that all of them are about: they then speak of the same row as the
            conditions beside them. ``None``: each speaks for itself.
    """

    alternatives: tuple[Conditions, ...]
    field: str | None = None


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

    def build(self, fields: FieldSet, prefix: str = PREFIX) -> list[ColumnElement[bool]]:
        """Give the SQL: conditions to be joined by AND, whose parameters are named as in ``params``.

        Conditions on related rows that must hold together are one EXISTS: they speak of the same related row.

        Args:
            fields: Those that the filter was parsed for.
            prefix: What the names of parameters begin with, where the statement has several filters.
        """
        return _build(_bind(self.conditions, fields, _names(prefix)), fields)

    def params_of(self, prefix: str) -> dict[str, Any]:
        """Give the parameters by the names that ``build`` gives them with this prefix."""
        return dict(zip(_names(prefix), self.params.values(), strict=False))

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


def any_of(alternatives: Sequence[Conditions], field: str | None = None) -> Conditions:
    """Give conditions that hold if one of the alternatives does.

    Args:
        alternatives: At least one.
        field: The field that all of them are about, if they are alternatives of one.
    """
    if len(alternatives) == 1:
        return alternatives[0]
    return (AnyOf(tuple(map(_sorted, alternatives)), field if field is not None and "." in field else None),)


def escaped(text: str) -> str:
    """Give the pattern that finds a text as it is: with ``%``, ``_`` and the escape character escaped."""
    for special in (ESCAPE, "%", "_"):
        text = text.replace(special, ESCAPE + special)
    return text


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
                params[f"{PREFIX}_{len(params)}"] = operand
            shape.append(condition[:2])
        else:
            within = () if condition.field is None else (condition.field,)
            shape.append((*within, *(_number(each, params) for each in condition.alternatives)))
    return tuple(shape)


def _names(prefix: str) -> Iterator[str]:
    """Name the parameters as ``_number`` does."""
    return (f"{prefix}_{number}" for number in count())


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
    within = [] if choice.field is None else [choice.field]
    return ["or", *within, _distinct([_canonical(each) for each in choice.alternatives])]


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
    "found": lambda column, pattern: column.ilike(pattern, escape=ESCAPE),
}
_MANY = {"in": "=", "not_in": "!="}  # and what they are for one value
_PATTERNS = frozenset({"like", "not_like", "ilike", "not_ilike", "matches", "found"})


class _Bound(NamedTuple):
    """A condition whose parameters have names, at the end of a path of relationships.

    Attributes:
        path: The relationships that are still to be gone through.
        field: Name of the field there; of alternatives, nothing.
        comparison: What is said of it.
        names: Those of its parameters.
        alternatives: What else it is: alternatives of the rows at the end of the path.
    """

    path: tuple[str, ...]
    field: str
    comparison: Comparison | None
    names: tuple[str, ...]
    alternatives: tuple[list[_Bound], ...] = ()


def _bind(conditions: Conditions, fields: FieldSet, names: Iterator[str], gone: int = 0) -> list[_Bound]:
    """Name the parameters, in the order of the tree; of each path *gone* relationships are behind."""
    found: list[_Bound] = []
    for condition in conditions:
        if isinstance(condition, Comparison):
            path, field = fields.split(condition.field)
            own = tuple(next(names) for _ in condition.operands)
            found.append(_Bound(path[gone:], field, condition, own))
        else:
            path = fields.split(condition.field)[0] if condition.field is not None else ()
            alternatives = tuple(_bind(each, fields, names, max(gone, len(path))) for each in condition.alternatives)
            found.append(_Bound(path[gone:], "", None, (), alternatives))
    return found


def _build(conditions: Sequence[_Bound], fields: FieldSet) -> list[ColumnElement[bool]]:
    """Give the SQL; what goes through one relationship is one EXISTS."""
    through: dict[str, list[_Bound]] = {}
    for each in conditions:
        if each.path:
            through.setdefault(each.path[0], []).append(each._replace(path=each.path[1:]))
    found = [_build_one(each, fields) for each in conditions if not each.path]
    for name, below in through.items():
        related = fields.related(name)
        found.append(related.exists(_build(below, related.fields)))
    return found


def _build_one(condition: _Bound, fields: FieldSet) -> ColumnElement[bool]:
    if condition.comparison is None:
        return or_(*(and_(*_build(each, fields)) for each in condition.alternatives))
    comparison = condition.comparison
    column, _ = fields[condition.field]
    if comparison.values.category == "rows":
        return not_(column) if comparison.operator == "null" else column
    expanding = comparison.operator in _MANY
    type_ = unrounded(column.type)
    binds: list[BindParameter[Any]] = [bindparam(name, type_=type_, expanding=expanding) for name in condition.names]
    return _SQL[comparison.operator](column, *binds)


def unrounded(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Give a column's type for a parameter, without its scale, to which drivers would round: 1.505 is not 1.51."""
    own = type(type_).__module__.startswith("sqlalchemy.") and not getattr(type_, "_variant_mapping", None)
    return Numeric() if own and isinstance(type_, Numeric) and not isinstance(type_, Float) else type_

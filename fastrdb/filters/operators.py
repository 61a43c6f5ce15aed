"""What a filter may say of one field: the operators, and what each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeAlias, cast
from uuid import UUID

from fastrdb.errors import UnknownOperator, ValueRefused
from fastrdb.filters.conditions import Comparison, Conditions, any_of, escaped
from fastrdb.values import ColumnValues

MAX_VALUES = 30_000
"""Most values of one ``in``: a statement has 32 767 parameters on PostgreSQL, 32 766 on SQLite."""

_PLAIN = frozenset({int, str, UUID})

_Parse: TypeAlias = Callable[[str, ColumnValues, Any], Conditions]


def conditions_of(field: str, values: ColumnValues, given: object) -> Conditions:
    """Parse what was given for one field: a value, ``None``, a list of values, or a dict of operators.

    Args:
        field: Name of the field.
        values: What its column takes.
        given: The value of the keyword.

    Returns:
        Conditions that must all hold.

    Raises:
        UnknownOperator: The dict holds something else.
        ValueRefused: The column, or the operator, does not take the value.
    """
    if type(given) in _PLAIN:  # most are, and to ask whether they are mappings costs more than the rest
        return _equal(field, values, given)
    if isinstance(given, Mapping):
        return _operators(field, values, cast("Mapping[Any, object]", given))
    if isinstance(given, (list, tuple, set, frozenset)):
        return _contained(field, values, cast("Sequence[object]", given))
    return _equal(field, values, given)


def _operators(field: str, values: ColumnValues, given: Mapping[Any, object]) -> Conditions:
    if not given:
        raise ValueRefused(field, "at least one operator in a dict", given)
    found: Conditions = ()
    for name, operand in given.items():
        if name not in OPERATORS:
            raise UnknownOperator(field, str(name), OPERATORS)
        found += OPERATORS[name](field, values, operand)
    return found


def _equal(field: str, values: ColumnValues, operand: object) -> Conditions:
    if operand is None:
        return (Comparison(field, "null", (), values),)
    if values.category == "json":
        raise _json_refused(field, operand)
    return (Comparison(field, "=", (values.coerce(operand),), values),)


def _negated(name: str) -> _Parse:
    def parse(field: str, values: ColumnValues, operand: object) -> Conditions:
        if operand is None:
            return (Comparison(field, "not_null", (), values),)
        if values.category == "json":
            raise _json_refused(field, operand)
        return (Comparison(field, name, (values.coerce(operand),), values),)

    return parse


def _json_refused(field: str, operand: object) -> ValueRefused:
    return ValueRefused(field, "None only, because it is JSON (compare its parts with where=)", operand)


def _ordered(name: str) -> _Parse:
    def parse(field: str, values: ColumnValues, operand: object) -> Conditions:
        return (Comparison(field, name, (_orderable(field, name, values, operand),), values),)

    return parse


def _orderable(field: str, name: str, values: ColumnValues, operand: object) -> Any:
    if values.category in ("json", "array"):
        raise ValueRefused(field, f"no {name!r}, because its values have no order", operand)
    if operand is None:
        raise ValueRefused(field, f"{values.expected} for {name!r} (for NULL say 'is' or 'is_not')", operand)
    return values.coerce(operand)


def _between(field: str, values: ColumnValues, operand: Any) -> Conditions:
    if not isinstance(operand, (list, tuple)) or len(cast("list[object]", operand)) != 2:
        raise ValueRefused(field, "two values, [low, high], for 'between'", operand)
    low, high = (_orderable(field, "between", values, each) for each in cast("list[object]", operand))
    return (Comparison(field, "between", (low, high), values),)


def _contained(field: str, values: ColumnValues, operand: object) -> Conditions:
    listed, with_null = _listed(field, "in", values, operand)
    null = Comparison(field, "null", (), values)
    among = Comparison(field, "in", (listed,), values)
    if not with_null:
        return (among,)
    return any_of([(among,), (null,)], field) if listed else (null,)


def _not_contained(field: str, values: ColumnValues, operand: object) -> Conditions:
    """Parse ``not_in``; a ``None`` in the list excludes NULL, where plain SQL would find nothing at all."""
    listed, with_null = _listed(field, "not_in", values, operand)
    among = Comparison(field, "not_in", (listed,), values)
    return (among, Comparison(field, "not_null", (), values)) if with_null else (among,)


def _listed(field: str, name: str, values: ColumnValues, operand: object) -> tuple[list[Any], bool]:
    if isinstance(operand, (str, bytes, bytearray, memoryview)) or not isinstance(operand, (Sequence, Set)):
        raise ValueRefused(field, f"a list of values for {name!r}", operand)
    if values.category == "rows":
        raise ValueRefused(field, values.expected, operand)
    if values.category in ("json", "array"):
        raise ValueRefused(field, f"no {name!r} (one whole list is {{'=': […]}})", operand)
    given = cast("Sequence[object]", operand)
    if len(given) > MAX_VALUES:
        raise ValueRefused(field, f"at most {MAX_VALUES} values for {name!r}", f"{len(given)} of them")
    listed = [values.coerce(each) for each in given if each is not None]
    return listed, len(listed) < len(given)


def _pattern(name: str) -> _Parse:
    def parse(field: str, values: ColumnValues, operand: object) -> Conditions:
        return (Comparison(field, name, (_text(field, name, values, operand),), values),)

    return parse


def _text(field: str, name: str, values: ColumnValues, operand: object) -> str:
    if values.category not in ("text", "unknown"):
        raise ValueRefused(field, f"no {name!r}, because it is no text", operand)
    if not isinstance(operand, str):
        raise ValueRefused(field, f"text for {name!r}", operand)
    return str(values.coerce(operand))


def _literal(name: str, before: str, after: str) -> _Parse:
    """Parse a text that is to be found as it is: its ``%``, ``_`` and escape character are escaped."""

    def parse(field: str, values: ColumnValues, operand: object) -> Conditions:
        text = escaped(_text(field, name, values, operand))
        return (Comparison(field, "matches", (f"{before}{text}{after}",), values),)

    return parse


def _either(field: str, values: ColumnValues, operand: object) -> Conditions:
    if not isinstance(operand, (list, tuple)) or not operand:
        raise ValueRefused(field, "a list of at least one alternative for 'or'", operand)
    return any_of([conditions_of(field, values, each) for each in cast("list[object]", operand)], field)


OPERATORS: Mapping[str, _Parse] = {
    "=": _equal,
    "==": _equal,
    "!=": _negated("!="),
    **{name: _ordered(name) for name in (">", ">=", "<", "<=")},
    "in": _contained,
    "not_in": _not_contained,
    "between": _between,
    "is": _equal,
    "is_not": _negated("is_not"),
    **{name: _pattern(name) for name in ("like", "not_like", "ilike", "not_ilike")},
    "startswith": _literal("startswith", "", "%"),
    "endswith": _literal("endswith", "%", ""),
    "contains": _literal("contains", "%", "%"),
    "or": _either,
}
"""Every operator of a filter's dict, by name."""

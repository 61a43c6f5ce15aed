"""From keyword arguments to a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from fastrdb.errors import InputError
from fastrdb.filters.conditions import Comparison, Condition, Conditions, Filter, all_of, any_of
from fastrdb.filters.fields import FieldSet
from fastrdb.filters.operators import conditions_of

Filters: TypeAlias = "Mapping[str, Any] | Sequence[Mapping[str, Any]] | None"


def parse(
    fields: FieldSet, keywords: Mapping[str, Any], filters: Filters = None, *, exact: str | None = None
) -> Filter:
    """Parse the filters of a call.

    Args:
        fields: What can be filtered.
        keywords: Field -> value, ``None``, list of values, or dict of operators; all must hold.
        filters: The same as a mapping, for fields whose names are arguments of the call; or a list of such
            mappings, of which one must hold.
        exact: A keyword whose plain value must be equal in every character, whatever the collation.

    Raises:
        UnknownField: There is no such field.
        UnknownOperator: There is no such operator.
        ValueRefused: The column, or the operator, does not take the value.
        InputError: *filters* is something else, or says nothing where it would find every row.
    """
    conditions: list[Condition] = []
    for field, given in keywords.items():
        values = fields[field][1]
        if field == exact:
            conditions.append(Comparison(field, "exactly", (values.coerce(given),), values))
        else:
            conditions += conditions_of(field, values, given)
    if filters is not None:
        conditions += _further(fields, filters)
    return all_of(conditions)


def _further(fields: FieldSet, filters: object) -> Conditions:
    if isinstance(filters, Mapping):
        return _mapping(fields, cast("Mapping[str, object]", filters))
    if not isinstance(filters, (list, tuple)):
        raise InputError(f"filters= takes a dict of filters, or a list of alternatives, not {filters!r}")
    alternatives = cast("Sequence[object]", filters)
    if not alternatives:
        raise InputError("filters= is an empty list, which no row could match; leave it out to match every row")
    return any_of([_alternative(fields, each) for each in alternatives])


def _alternative(fields: FieldSet, given: object) -> Conditions:
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"each alternative of filters= is a dict of at least one filter, not {given!r}")
    return _mapping(fields, cast("Mapping[str, object]", given))


def _mapping(fields: FieldSet, given: Mapping[str, object]) -> Conditions:
    found: Conditions = ()
    for field, value in given.items():
        found += conditions_of(field, fields[field][1], value)
    return found

"""The keys that a call names rows by: of one kind, coerced, each once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MissingKeyField, UnknownField, UsageError, ValueRefused
from ..keys import Template
from ..values import ColumnValues
from .arguments import Unset
from .model import Model

Ident = tuple[Any, ...]
_IGNORED = re.compile(r"[^a-z1-9]")  # cases, blanks, punctuation, leading zeros


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of one kind, each once.

    Attributes:
        names: Their fields, in the order of the model's.
        wanted: The fields of each key, coerced.
        idents: What two equal keys have in common: of each field the value, or the canonical text of an inexact one.
        places: For each key that was given, its number here.
        given: The keys as they were given.
    """

    names: tuple[str, ...]
    wanted: list[dict[str, Any]]
    idents: list[Ident]
    places: list[int]
    given: list[Any]


def named_keys(
    model: Model, templates: Sequence[Template], keys: Iterable[Any] | Unset, besides: Collection[str] = ()
) -> Keys:
    """Read keys as they were given to a crud with these row templates.

    Args:
        besides: Fields that the call itself says, and the keys do not: whose rows they are.

    Raises:
        UsageError: They are of several kinds, or of none.
        UnknownField, MissingKeyField, ValueRefused: One of them is wrong.
    """
    if isinstance(keys, (Unset, str, bytes, Mapping)) or not hasattr(keys, "__iter__"):
        raise UsageError("keys: pass a list of values, or of mappings of the fields of a key")
    given = list(keys)
    mappings, tuples = (sum(isinstance(each, kind) for each in given) for kind in (Mapping, tuple))
    if not {mappings, tuples} <= {0, len(given)}:
        raise UsageError("keys: some are mappings or tuples, and some are not; pass keys of one kind")
    if not given:
        return Keys((), [], [], [], [])
    if tuples:
        names = _names_of_tuples(model, given, besides)
        return keys_of(model, names, list(zip(*given, strict=True)), given)
    kinds = [tuple(name for name in template.fields if name not in besides) for template in templates]
    names = _names_of(model, kinds, given) if mappings else (_single_field(model, kinds),)
    columns = [[each[name] for each in given] for name in names] if mappings else [given]
    return keys_of(model, names, columns, given)


def keys_of(model: Model, names: tuple[str, ...], columns: Sequence[Sequence[Any]], given: list[Any]) -> Keys:
    """Read keys by the columns of their values."""
    values = [model.values[name] for name in names]
    coerced = [list(map(each.coerce, column)) for each, column in zip(values, columns, strict=True)]
    for each, column in zip(values, coerced, strict=True):
        if None in column:
            raise ValueRefused(each.name, "a value in a key: NULL equals nothing", None)
    idents: list[Ident] = list(zip(*map(identified, values, coerced), strict=True))
    known: dict[Ident, int] = {}
    places = [known.setdefault(ident, len(known)) for ident in idents]
    rows = list(zip(*coerced, strict=True))
    if len(known) < len(rows):
        first: dict[int, tuple[Any, ...]] = {}
        for place, row in zip(places, rows, strict=True):
            first.setdefault(place, row)
        rows = list(first.values())
    return Keys(names, [dict(zip(names, row, strict=True)) for row in rows], list(known), places, given)


def _names_of(model: Model, templates: Sequence[tuple[str, ...]], keys: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Give the fields of keys that are mappings: the same for all, those of a template or of the primary key."""
    first = set(keys[0])
    for name in keys[0]:
        if name not in model.columns:
            raise UnknownField(name, model.name, model.columns)
    if any(set(key) != first for key in keys):
        raise UsageError("keys: not all mappings have the same fields; pass keys of one kind")
    kinds = [*templates, model.primary_key]
    for fields in kinds:
        if set(fields) == first:
            return tuple(fields)
    for fields in kinds:
        if first < set(fields):
            raise MissingKeyField(next(name for name in fields if name not in first), ", ".join(fields))
    takes = "; ".join(", ".join(fields) for fields in kinds)
    raise UsageError(f"keys: {', '.join(keys[0])} are not the fields of a key; pass those of one of: {takes}")


def _names_of_tuples(model: Model, keys: Sequence[tuple[Any, ...]], besides: Collection[str]) -> tuple[str, ...]:
    """Give the fields that tuples are values of: those of the primary key."""
    sizes, primary = set(map(len, keys)), model.primary_key
    for fields in (primary, tuple(name for name in primary if name not in besides)):
        if fields and sizes == {len(fields)}:
            return fields
    raise UsageError(f"keys: a tuple has the values of the primary key, {', '.join(primary)}, in this order")


def _single_field(model: Model, templates: Sequence[tuple[str, ...]]) -> str:
    """Give the field that bare values are values of."""
    single = [fields for fields in templates if len(fields) == 1]
    primary = model.primary_key
    if len(primary) == 1 and (primary in single or not single):
        return primary[0]
    if single:
        return single[0][0]
    fields = ", ".join(primary)
    raise UsageError(f"keys: no key of {model.name} is a single value; pass tuples of {fields}, or mappings of them")


def identified(values: ColumnValues, coerced: Sequence[Any]) -> Sequence[Any]:
    """Give what equal values of a column have in common: themselves, where the database compares as Python does."""
    return coerced if values.exact else list(map(values.text, coerced))


def folded_ident(ident: Ident) -> Ident | None:
    """Give what texts have in common that some collation takes for equal; ``None`` where that cannot be told."""
    texts = list(map(str, ident))
    if not all(text.isascii() for text in texts):
        return None
    return tuple([_IGNORED.sub("", text.lower()) for text in texts])

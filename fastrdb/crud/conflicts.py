"""What an upsert meets: the unique key that decides whether a row is there, and the fields that are then written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import InputError, RefusedRow, UnknownField, ValueRefused
from ..values import ColumnValues
from .model import Model


class Upsertion(NamedTuple):
    """What the SQL of an upsert depends on, in attributes.

    Attributes:
        given: What a new row gets.
        conflict: The unique key by which a row is found to be there.
        updated: What is then written; nothing: that row stays as it is.
    """

    given: tuple[str, ...]
    conflict: tuple[str, ...]
    updated: tuple[str, ...]


def conflict_key(model: Model, given: Collection[str], asked: Sequence[str] | None) -> tuple[str, ...]:
    """Give the unique key that decides, in the order of the columns.

    Args:
        model: The model.
        given: The attributes that every row gives a value.
        asked: ``conflict_fields``; ``None``: the primary key if it is given, else the only other key that is.

    Raises:
        InputError: There is no such unique key, or the rows do not give it.
    """
    keys = list(dict.fromkeys(model.unique))
    if asked is not None:
        return _asked_key(model, keys, given, asked)
    covered = [key for key in keys if key <= set(given)]
    if covered and covered[0] == keys[0]:
        return _ordered(model, covered[0])
    if len(covered) != 1:
        found = "cover none of its unique keys" if not covered else "cover several of its unique keys"
        raise InputError(f"conflict_fields: the values for {model.name} {found}; name one of {_listed(model, keys)}")
    return _ordered(model, covered[0])


def _asked_key(
    model: Model, keys: Sequence[frozenset[str]], given: Collection[str], asked: Sequence[str]
) -> tuple[str, ...]:
    if isinstance(asked, str):
        raise InputError(f"conflict_fields: {asked!r} is one text; pass a list of fields, [{asked!r}]")
    for name in asked:
        if name not in model.columns:
            raise UnknownField(name, model.name, model.columns)
    if frozenset(asked) not in keys:
        raise InputError(
            f"conflict_fields: {', '.join(asked) or 'an empty list'} is no unique key of {model.name} that holds for "
            f"all rows; it has {_listed(model, keys)} (partial, deferrable and expression indexes are none)"
        )
    for name in asked:
        if name not in given:
            raise ValueRefused(name, "a value in each row, because it is a conflict field", None)
    return _ordered(model, frozenset(asked))


def updated_fields(
    model: Model, given: Iterable[str], said: Collection[str], conflict: Sequence[str], asked: Sequence[str] | None
) -> tuple[str, ...]:
    """Give the fields that are written to a row that is there, in the order of *given*.

    Args:
        model: The model.
        given: What a new row gets.
        said: What the caller has set, as opposed to the schema's defaults.
        conflict: The key that decides.
        asked: ``update_fields``; ``None``: what was set, besides the conflict fields, the primary key and the version.

    Raises:
        InputError: *asked* names the primary key, or a field that the rows do not give.
    """
    apart = {*conflict, *model.primary_key, model.version}
    if asked is None:
        return tuple(name for name in given if name in said and name not in apart)
    if isinstance(asked, str):
        raise InputError(f"update_fields: {asked!r} is one text; pass a list of fields, [{asked!r}]")
    known = set(given)
    for name in asked:
        if name not in model.columns:
            raise UnknownField(name, model.name, model.columns)
        if name in model.primary_key and name not in conflict:
            raise InputError(f"update_fields: {name} is the primary key, which an upsert leaves alone; use update")
        if name not in known:
            raise ValueRefused(name, "a value in each row, because update_fields names it", None)
    return tuple(name for name in given if name in asked and name not in apart)


def same_keys(values: Sequence[ColumnValues], keys: Sequence[tuple[Any, ...]]) -> list[RefusedRow]:
    """Find the rows whose keys are equal; that the database may take more for equal, it has to say itself."""
    texts = [tuple(each.text(part) for each, part in zip(values, key, strict=True)) for key in keys]
    return equal_rows([each.name for each in values], texts)


def in_order(indexes: list[int], keys: Sequence[Sequence[Any]]) -> list[int]:
    """Sort rows by their keys, given by columns; as they are where the keys have no order."""
    columns = list(zip(*keys, strict=True)) if len(keys) > 1 else keys[0]
    try:
        return sorted(indexes, key=columns.__getitem__)
    except TypeError:  # values that have no order, or are not of one type
        return indexes


def null_keys(conflict: Sequence[str], keys: Sequence[tuple[Any, ...]]) -> list[RefusedRow]:
    """Find the rows that have no key: NULL equals no other NULL, so that each call would make a row."""
    said = "None; a conflict field needs a value, because NULL equals no other NULL"
    return [
        RefusedRow(index, name, said)
        for index, key in enumerate(keys)
        for name, part in zip(conflict, key, strict=True)
        if part is None
    ]


def folded(keys: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Bring keys to what databases without regard for case and spaces compare: a guess, to name rows in an error."""
    return [tuple(str(part).casefold().rstrip() for part in key) for key in keys]


def equal_rows(names: Sequence[str], keys: Sequence[tuple[Any, ...]]) -> list[RefusedRow]:
    """Describe each row that has the key of another one."""
    places: dict[tuple[Any, ...], list[int]] = {}
    for index, key in enumerate(keys):
        places.setdefault(key, []).append(index)
    several = [indexes for indexes in places.values() if len(indexes) > 1]
    found = [
        RefusedRow(index, ", ".join(names), f"the same key as {_others(index, indexes)}")
        for indexes in several
        for index in indexes
    ]
    return sorted(found, key=lambda row: row.index)


def _others(index: int, indexes: Sequence[int]) -> str:
    rest = [str(other) for other in indexes if other != index]
    return f"row {rest[0]}" if len(rest) == 1 else f"rows {', '.join(rest[:10])}{' …' if len(rest) > 10 else ''}"


def check_key(conflict: Sequence[str], values: Mapping[str, Any]) -> None:
    """Refuse NULL in a key: it equals nothing, so that each call would make a row.

    Raises:
        ValueRefused: A conflict field is ``None``.
    """
    for name in conflict:
        if values[name] is None:
            raise ValueRefused(name, "a value, because it is a conflict field, and NULL equals no other NULL", None)


def _ordered(model: Model, key: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in model.columns if name in key)


def _listed(model: Model, keys: Iterable[frozenset[str]]) -> str:
    primary, *others = [list(_ordered(model, key)) for key in keys]
    return ", ".join(map(str, [primary, *sorted(others)]))

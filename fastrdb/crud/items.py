"""Many create schemas, brought to columns; all that is wrong with any of them is named before anything is sent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any

from pydantic import BaseModel, TypeAdapter

from ..errors import BatchRefused, EmptyInput, InputError, RefusedRow, UnknownField, UsageError, ValueRefused
from .arguments import Unset
from .arrays import Batch
from .changes import Changes
from .core import C, M, R, U
from .plain_schemas import says_its_attributes

_AS_PYTHON_HAS_IT = (list, dt.time, type(None))  # types whose values databases compare in another way, or not at all


class Items(Changes[M, C, U, R]):
    """What the writes of many rows ask about what they were given."""

    def _batches(self, instances: Sequence[Any], tenant: Any = None) -> list[Batch]:
        """Bring create schemas to columns; rows that leave other columns to their defaults make another batch.

        Args:
            tenant: Whose rows they are, where the call says it.

        Raises:
            BatchRefused: Items are wrong.
        """
        refused = self._no_schemas(instances, 0)
        if refused:
            raise BatchRefused("instances", refused)
        at_once = self._attributes(instances)
        if at_once is not None:
            batches = [self._batch(at_once, list(range(len(instances))), refused)]
        else:
            given = self._completed_rows(self._dumped(instances), tenant, refused)
            batches = [self._batch(columns, indexes, refused) for indexes, columns in alike(given)]
        if not refused and not self._triggers:
            refused = self._repeated(batches)
        if refused:
            raise BatchRefused("instances", sorted(refused, key=lambda row: row.index))
        return batches

    def _no_schemas(self, items: Sequence[object], kind: int) -> list[RefusedRow]:
        """Name the items that are no instances of the create (0) or update (1) schema."""
        schema = self._schema(kind) or BaseModel
        if all(issubclass(each, schema) for each in set(map(type, items))):
            return []
        wanted = f"the {'update' if kind else 'create'} schema{f', {schema.__name__}' * (schema is not BaseModel)}"
        return [
            RefusedRow(index, None, f"{_described(item)}; pass an instance of {wanted}")
            for index, item in enumerate(items)
            if not isinstance(item, schema)
        ]

    def _attributes(self, instances: Sequence[BaseModel]) -> dict[str, Sequence[Any]] | None:
        """Give what create schemas say, by columns, where their attributes are that; ``None`` where more is to do.

        That is as good as always, and takes a third of the time.
        """
        kind = type(instances[0])
        if self._adds or set(map(type, instances)) != {kind}:
            return None
        plain: bool = self._kept(("plain", kind), lambda: says_its_attributes(kind))
        if not plain:
            return None
        try:
            found: dict[str, Sequence[Any]] = {n: list(map(attrgetter(n), instances)) for n in kind.model_fields}
        except AttributeError:  # it was built by model_construct
            return None
        left_out = any(None in found[name] for name in self._filled & found.keys())
        return None if left_out else found

    @property
    def _adds(self) -> bool:
        """Whether rows get more than their schemas say."""
        return self._tenancy is not None or bool(self._model.factories or self._model.identity)

    def _dumped(self, instances: Sequence[BaseModel]) -> list[dict[str, Any]]:
        """Give what create schemas say, as ``_sent`` does of each."""
        given = self._dumped_at_once(instances)
        if given is None:
            return [self._sent(each) for each in instances]
        kind = type(instances[0])
        shown = kind.model_fields.keys() | kind.model_computed_fields.keys()
        for name in self._filled if kind.model_config.get("extra") == "allow" else self._filled & shown:
            if not _has_none(name, given):
                continue
            for row, instance in zip(given, instances, strict=True):
                if row.get(name, instance) is None and self._leaves_default(instance, name):
                    del row[name]
        return given

    def _dumped_at_once(self, instances: Sequence[BaseModel], *, set_only: bool = False) -> list[dict[str, Any]] | None:
        """Give what schemas say by one call of pydantic; ``None`` where they are several, or say it in their own way.

        Args:
            set_only: Only fields that were set.
        """
        kind = type(instances[0])
        if set(map(type, instances)) != {kind} or kind.model_dump is not BaseModel.model_dump:
            return None
        dumps: TypeAdapter[Any] = self._kept(("dump", kind), lambda: TypeAdapter(list[kind]))  # type: ignore[valid-type]
        found: list[dict[str, Any]] = dumps.dump_python(instances, by_alias=False, exclude_unset=set_only)
        return found

    def _completed_rows(
        self, rows: list[dict[str, Any]], tenant: Any, refused: list[RefusedRow]
    ) -> list[dict[str, Any]]:
        if not self._adds:
            return rows
        complete = partial(self._completed, tenant=tenant)
        try:
            return [complete(row) for row in rows]
        except InputError:
            for index, row in enumerate(rows):
                try:
                    complete(row)
                except InputError as error:
                    refused.append(refusal(index, error))
            if not refused:
                raise
            return rows

    def _batch(self, given: Mapping[str, Sequence[Any]], indexes: list[int], refused: list[RefusedRow]) -> Batch:
        columns = {}
        for name, values in given.items():
            if name not in self._model.columns:
                unknown = UnknownField(name, self._model.name, self._model.columns)
                refused += [refusal(index, unknown) for index in indexes]
                continue
            columns[self._model.columns[name].key] = self._coerced_all(name, indexes, values, refused)
        return Batch(indexes, columns)

    def _coerced_all(
        self, name: str, indexes: Sequence[int], values: Sequence[Any], refused: list[RefusedRow]
    ) -> Sequence[Any]:
        """Bring values to the type of a column; those that it cannot hold are named."""
        column = self._model.values[name]
        try:
            return column.stored_all(values)
        except ValueRefused:
            for index, value in zip(indexes, values, strict=True):
                try:
                    column.stored(value)
                except ValueRefused as error:
                    refused.append(refusal(index, error))
            return values

    # -- what cannot be all unique

    def _repeated(self, batches: Iterable[Batch]) -> list[RefusedRow]:
        """Name the rows whose unique key an earlier one of the batch has: values that are equal in Python are in SQL.

        What is equal in the database alone, by a collation say, its constraint finds.
        """
        found: list[RefusedRow] = []
        for names in dict.fromkeys(self._model.unique):
            if any(self._model.values[name].python_type in _AS_PYTHON_HAS_IT for name in names):
                continue
            ordered = [name for name in self._model.columns if name in names]
            keys = [self._model.columns[name].key for name in ordered]
            given = [batch for batch in batches if batch.columns.keys() >= set(keys)]
            if all(_all_differ(batch, keys) for batch in given) and len(given) < 2:
                continue
            found += _repeats(given, keys, ordered)
        return found


def listed_items(items: Iterable[Any] | Unset, argument: str, method: str) -> list[Any]:
    """Give the items of a batch as a list.

    Raises:
        UsageError: They are none.
        EmptyInput: There are none.
    """
    of = " of instances of the create schema" if argument == "instances" else ""
    if isinstance(items, (Unset, BaseModel, str, bytes)) or not hasattr(items, "__iter__"):
        raise UsageError(f"{argument}: {_described(items)}; pass a list{of}")
    found = list(items)
    if not found:
        raise EmptyInput(argument, f"pass at least one row, or do not call {method}")
    return found


def alike(rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], dict[str, Sequence[Any]]]]:
    """Put rows with the same fields together, by columns, with their places."""
    same = _columns(rows, tuple(rows[0]))
    if same is not None:
        return [(list(range(len(rows))), same)]
    places: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        places.setdefault(tuple(row), []).append(index)
    return [(indexes, _columns([rows[at] for at in indexes], names) or {}) for names, indexes in places.items()]


def _columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Sequence[Any]] | None:
    """Bring rows to columns; ``None`` if some have other fields."""
    if set(map(len, rows)) != {len(names)}:
        return None
    try:
        return {name: list(map(itemgetter(name), rows)) for name in names}
    except KeyError:
        return None


def _has_none(name: str, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether a row may have ``None`` for a field, or not have it."""
    try:
        return None in map(itemgetter(name), rows)
    except KeyError:
        return True


def _all_differ(batch: Batch, keys: Sequence[str]) -> bool:
    if len(keys) != 1:
        return False
    values = batch.columns[keys[0]]
    return len(set(values)) == len(values)


def _repeats(batches: Iterable[Batch], keys: Sequence[str], names: Sequence[str]) -> list[RefusedRow]:
    first: dict[tuple[Any, ...], int] = {}
    places = {
        index: key
        for batch in batches
        for index, key in zip(batch.indexes, zip(*(batch.columns[key] for key in keys), strict=True), strict=True)
    }
    found = []
    for index in sorted(places):
        key = places[index]
        if None not in key and (before := first.setdefault(key, index)) != index:
            reason = f"{', '.join(names)}: the same as in [{before}], where it has to be unique"
            found.append(RefusedRow(index, names[0], reason))
    return found


def refusal(index: int, error: InputError) -> RefusedRow:
    """Name an item, and the error that it would raise alone."""
    return RefusedRow(index, getattr(error, "field", None), str(error))


def _described(item: object) -> str:
    return "nothing" if isinstance(item, Unset) else type(item).__name__

"""Many rows for upsert_multi, brought to columns and keys; what is wrong with them is named before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import itemgetter
from typing import Any

from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError

from ..errors import BatchRefused, InputError, RefusedRow, UsageError
from .arguments import Unset
from .arrays import Batch
from .conflicts import Upsertion, conflict_key, equal_rows, folded, in_order, null_keys, same_keys, updated_fields
from .core import C, M, R, U
from .items import listed_items, refusal
from .meeting import Meeting

_TWICE = "21000"  # PostgreSQL's cardinality_violation: a row would be updated a second time


class UpsertBatches(Meeting[M, C, U, R]):
    """What upsert_multi asks about what it was given."""

    def _upserts_of(
        self,
        instances: Sequence[BaseModel],
        whose: Mapping[str, Any],
        conflict_fields: Sequence[str] | None,
        update_fields: Sequence[str] | None,
    ) -> list[tuple[Upsertion, Batch]]:
        """Bring instances to columns; nothing else of them has to be kept while the statements run."""
        rows = self._upserted_rows(instances, self._tenancy.named(whose) if self._tenancy is not None else None)
        conflict = conflict_key(self._model, self._common_fields(rows, conflict_fields), conflict_fields)
        said = [instance.model_fields_set for instance in instances]
        return self._upserts_alike(rows, said, conflict, update_fields)

    def _upserted_rows(self, instances: Sequence[BaseModel], tenant: Any) -> list[dict[str, Any]]:
        """Give what each instance says of a row, not yet brought to the columns' types.

        Raises:
            BatchRefused: Some have fields that are no columns.
        """
        rows = [self._completed(self._sent(instance), tenant) for instance in instances]
        known = self._model.columns.keys()
        if all(row.keys() <= known for row in rows):
            return rows
        raise self._refused_batch(rows)

    def _refused_batch(self, rows: Sequence[Mapping[str, Any]]) -> BatchRefused:
        """Find every value that its column does not take, or cannot hold."""
        wrong = []
        for index, row in enumerate(rows):
            for name, value in row.items():
                try:
                    self._stored(name, value)
                except InputError as error:
                    wrong.append(refusal(index, error))
        return BatchRefused("instances", wrong)

    def _common_fields(self, rows: Sequence[Mapping[str, Any]], conflict_fields: Sequence[str] | None) -> set[str]:
        """Give the attributes that every row gives; where a key is looked for, with a value."""
        names = set(rows[0]).intersection(*rows)
        if conflict_fields is None:
            keyed = names & frozenset[str]().union(*self._model.unique)
            names -= {name for name in keyed if any(row[name] is None for row in rows)}
        return names

    def _upserts_alike(
        self,
        rows: Sequence[dict[str, Any]],
        said: Sequence[set[str]],
        conflict: tuple[str, ...],
        update_fields: Sequence[str] | None,
    ) -> list[tuple[Upsertion, Batch]]:
        """Bring rows to columns; those for which the SQL is another one make another batch."""
        alike: dict[tuple[tuple[str, ...], frozenset[str]], list[int]] = {}
        for index, row in enumerate(rows):
            by = frozenset(said[index]) if update_fields is None else frozenset[str]()
            alike.setdefault((tuple(row), by), []).append(index)
        merged: dict[Upsertion, list[int]] = {}
        for (names, by), indexes in alike.items():
            updated = self._updated_fields(names, by, conflict, update_fields)
            merged.setdefault(Upsertion(names, conflict, updated), []).extend(indexes)
        try:
            return [(wanted, self._upsert_batch(wanted, indexes, rows)) for wanted, indexes in merged.items()]
        except InputError:
            raise self._refused_batch(rows) from None

    def _upsert_batch(self, wanted: Upsertion, indexes: list[int], rows: Sequence[dict[str, Any]]) -> Batch:
        """Bring rows to the columns' types, in the order of their keys, in which batches of others lock them, too."""
        indexes = in_order(indexes, [[row[name] for row in rows] for name in wanted.conflict])
        chosen = [rows[index] for index in indexes]
        columns: dict[str, Sequence[Any]] = {}
        for name in wanted.given:
            stored = self._taking(name).stored
            columns[self._model.columns[name].key] = list(map(stored, map(itemgetter(name), chosen)))
        return Batch(indexes, columns)

    def _check_conflict_keys(self, groups: Sequence[tuple[Upsertion, Batch]]) -> None:
        """Refuse keys that are ``None``, and equal ones.

        Raises:
            BatchRefused: There are such keys.
        """
        conflict = groups[0][0].conflict
        keyed = [self._key_columns(wanted, batch) for wanted, batch in groups]
        whole = not any(None in values for columns in keyed for values in columns)
        if whole and len({key for columns in keyed for key in zip(*columns, strict=True)}) == sum(
            len(columns[0]) for columns in keyed
        ):
            return
        keys = self._conflict_keys(groups)
        wrong = null_keys(conflict, keys) or same_keys([self._model.values[name] for name in conflict], keys)
        if wrong:
            raise BatchRefused("instances", wrong)

    def _key_columns(self, wanted: Upsertion, batch: Batch) -> list[Sequence[Any]]:
        return [batch.columns[self._model.columns[name].key] for name in wanted.conflict]

    def _conflict_keys(self, groups: Sequence[tuple[Upsertion, Batch]]) -> list[tuple[Any, ...]]:
        """Give the keys, in the order of the rows."""
        found: dict[int, tuple[Any, ...]] = {}
        for wanted, batch in groups:
            found.update(zip(batch.indexes, zip(*self._key_columns(wanted, batch), strict=True), strict=True))
        return [found[index] for index in range(len(found))]

    def _updated_fields(
        self,
        given: Iterable[str],
        said: Collection[str],
        conflict: Sequence[str],
        update_fields: Sequence[str] | None,
    ) -> tuple[str, ...]:
        """Give the fields that are written to a row that is there, which stays its tenant's."""
        found = updated_fields(self._model, given, said, conflict, update_fields)
        return found if self._tenancy is None else tuple(name for name in found if name != self._tenancy.field)


class SaidTwice(AbstractContextManager[None]):
    """Names the rows, where PostgreSQL says only that two of them are one."""

    def __init__(
        self,
        groups: Sequence[tuple[Upsertion, Batch]],
        keys: Callable[[Sequence[tuple[Upsertion, Batch]]], list[tuple[Any, ...]]],
    ) -> None:
        self._groups, self._keys = groups, keys

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _TWICE:
            conflict = self._groups[0][0].conflict
            rows = equal_rows(conflict, folded(self._keys(self._groups)))
            one = RefusedRow(0, ", ".join(conflict), "the database takes the keys of two rows of the batch for one")
            raise BatchRefused("instances", rows or [one]) from error.orig


def instances_of(given: Sequence[Any] | Unset) -> list[BaseModel]:
    """Give the instances of a call.

    Raises:
        UsageError: They are no list, or one of them is no instance of a schema.
        EmptyInput: There are none.
    """
    found = listed_items(given, "instances", "upsert_multi")
    for each in found:
        if not isinstance(each, BaseModel):
            raise UsageError(f"instances: an item is {type(each).__name__}; pass instances of the create schema")
    return found

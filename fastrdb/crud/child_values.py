"""What the calls about children were given, brought to values that can be written."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Column, ForeignKey
from sqlalchemy.exc import NoReferencedTableError

from ..errors import EmptyInput, InputError, KeyMismatch, TenantMismatch, UsageError, ValueRefused
from .arguments import UNSET, Unset
from .changes import Changes
from .child_items import Item, Parent, Sorted, by_lists, by_sign, fields_of, listed, validated
from .core import C, M, R, U


class ChildUpdate(NamedTuple):
    """A child to change.

    Attributes:
        key: Its key, by attributes.
        values: What is set.
        seen: The version that the caller saw, by its attribute, if one was named.
    """

    key: dict[str, Any]
    values: dict[str, Any]
    seen: Mapping[str, Any]


class ChildValues(Changes[M, C, U, R]):
    """How the writes of children read their arguments."""

    def _parent(self, fk_field: str | Unset, fk_value: Any, whose: Mapping[str, Any]) -> Parent:
        tables = len(self._model.table.metadata.tables)  # the parent may be defined later
        keys: dict[str, Column[Any]] = self._kept(("foreign keys", tables), self._foreign_keys)
        if not isinstance(fk_field, str) or fk_field not in keys:
            valid = ", ".join(sorted(keys)) or "none"
            raise InputError(f"fk_field: {fk_field!r} is no foreign key of one column of {self._model.name}: {valid}")
        value = None if fk_value is UNSET else self._coerced(fk_field, fk_value)
        if value is None:
            raise ValueRefused(fk_field, "the key of the parent, as fk_value", fk_value)
        if fk_field in whose and self._coerced(fk_field, whose[fk_field]) != value:
            raise TenantMismatch(fk_field, fk_value, whose[fk_field])
        column = keys[fk_field]
        mappers = self._model.mapper.registry.mappers
        name = next((m.class_.__name__ for m in mappers if m.local_table is column.table), column.table.fullname)
        return Parent(fk_field, value, column, name, whose)

    def _foreign_keys(self) -> dict[str, Column[Any]]:
        """Give the attributes that refer to one column of another table, or of the same one, and that column."""
        found = {}
        for name, column in self._model.columns.items():
            for key in column.foreign_keys:
                alone = key.constraint is None or len(key.constraint.columns) == 1
                if alone and (referred := _referred(key)) is not None:
                    found[name] = referred
        return found

    def _sorted(self, data: Any, create: Iterable[Any], update: Iterable[Any], delete: Iterable[Any]) -> Sorted:
        if data is not UNSET and (create or update or delete):
            raise UsageError("data: pass it alone, or create=, update= and delete= instead of it")
        if data is not UNSET:
            found = by_sign(self._model, listed("data", data), self._coerced)
        else:
            lists = listed("create", create), listed("update", update), listed("delete", delete)
            found = by_lists(self._model, *lists, self._coerced)
        if not any(found):
            raise EmptyInput("data", "pass at least one child to create, change or delete")
        return found

    def _child_values(self, given: Any, parent: Parent, *, numbered: bool) -> dict[str, Any]:
        """Give the values of a row to insert, by attributes.

        Args:
            numbered: Its id says only that it is new.
        """
        schema = self._schema(0)
        key = self._model.primary_key[0] if numbered else None
        if schema is None or not isinstance(given, schema):
            fields = {name: value for name, value in self._own_fields(given, parent).items() if name != key}
            if schema is not None and parent.field in schema.model_fields:
                fields[parent.field] = parent.value
            given = validated(schema, "create", fields, self._model.name)
        sent = {name: value for name, value in self._sent(given).items() if name != key}
        self._compare_parent(sent, parent)
        values = {name: self._stored(name, value) for name, value in sent.items()}
        tenant = self._tenancy.named(parent.whose) if self._tenancy is not None else None
        return self._completed({**values, parent.field: parent.value}, tenant)

    def _own_fields(self, given: Any, parent: Parent) -> dict[str, Any]:
        """Give the fields of an item without that of the parent, which may be there if it is the same."""
        fields = fields_of(given)
        self._compare_parent(fields, parent)
        fields.pop(parent.field, None)
        return fields

    def _compare_parent(self, fields: Mapping[str, Any], parent: Parent) -> None:
        other = fields.get(parent.field)
        if other is not None and self._coerced(parent.field, other) != parent.value:
            raise KeyMismatch(parent.field, parent.value, other)

    def _updating(self, parent: Parent, asked_for: Sorted) -> Callable[[Item], ChildUpdate]:
        keys = {item.at: key for item, key in asked_for.updates}
        schema = self._schema(1)
        known: Container[str] = schema.model_fields if schema is not None else ()

        def updating(item: Item) -> ChildUpdate:
            key, fields = keys[item.at], self._own_fields(item.given, parent)
            # The key may be a field of the schema, even a required one; else it is only the item's name.
            fields = {name: value for name, value in fields.items() if name in known or name not in key}
            if schema is not None and parent.field in known and schema.model_fields[parent.field].is_required():
                fields[parent.field] = parent.value
            values = self._update_values(validated(schema, "update", fields, self._model.name), parent.whose)
            for name in (*key, parent.field):
                values.pop(name, None)
            seen = self._seen_version(key, values)
            if not values:
                raise EmptyInput("the item", "set at least one field besides its key")
            return ChildUpdate(key, values, seen)

        return updating


def _referred(key: ForeignKey) -> Column[Any] | None:
    try:
        return key.column
    except NoReferencedTableError:
        return None

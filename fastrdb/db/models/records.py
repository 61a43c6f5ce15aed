"""Mapped instances as dicts, and dicts as mapped instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeAlias, TypeVar

from sqlalchemy import inspect
from sqlalchemy.orm import ColumnProperty

from ...errors import UnknownField
from ...values import column_values

Self = TypeVar("Self", bound="Record")
Values: TypeAlias = dict[str, Any]  # a method below is called ``dict``


class Record:
    """What instances of every model can do."""

    _UNCHANGED: ClassVar[frozenset[str]] = frozenset({"id", "created_at"})

    def to_dict(self, exclude: Iterable[str] = ()) -> Values:
        """Give attribute name -> value, of all columns but the excluded, as Python has them.

        Deferred columns that were not loaded are left out. Relationships are no columns.
        """
        unloaded, left_out = inspect(self).unloaded, frozenset(exclude)
        return {
            name: getattr(self, name)
            for name, column in _columns(type(self)).items()
            if name not in left_out and not (column.deferred and name in unloaded)
        }

    def dict(self, exclude: Iterable[str] = ()) -> Values:
        """Give what ``to_dict`` gives."""
        return self.to_dict(exclude)

    @classmethod
    def from_dict(cls: type[Self], data: Mapping[str, Any]) -> Self:
        """Make a new instance, not yet in any session; text is brought to the column's type, as from JSON.

        Raises:
            UnknownField: A name is no column; the message names those that are.
            ValueRefused: A value does not fit its column.
        """
        return cls(**_adapted(cls, data))

    def update_from_dict(self, data: Mapping[str, Any], exclude: Iterable[str] = _UNCHANGED) -> None:
        """Set attributes; those excluded, ``id`` and ``created_at`` by default, stay as they are.

        Raises:
            UnknownField, ValueRefused: As in ``from_dict``; nothing is set.
        """
        left_out = frozenset(exclude)
        given = _adapted(type(self), {name: value for name, value in data.items() if name not in left_out})
        for name, value in given.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        state = inspect(self)
        loaded = state.dict  # the instance's own values: nothing is loaded for a repr
        names = [state.mapper.get_property_by_column(column).key for column in state.mapper.primary_key]
        known = dict(zip(names, state.identity or [None] * len(names), strict=True))
        key = ", ".join(f"{name}={loaded.get(name, known[name])!r}" for name in names)
        return f"<{type(self).__name__} {key}>"


def _columns(cls: type[Any]) -> Values:
    attributes: Iterable[ColumnProperty[Any]] = inspect(cls).column_attrs
    return {attribute.key: attribute for attribute in attributes}


def _adapted(cls: type[Any], data: Mapping[str, Any]) -> Values:
    columns = _columns(cls)
    found = {}
    for name, value in data.items():
        if name not in columns:
            raise UnknownField(name, cls.__name__, columns)
        found[name] = column_values(name, columns[name].columns[0].type).coerce(value)
    return found

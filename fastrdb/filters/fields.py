"""The fields that can be filtered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement

from fastrdb.errors import UnknownField
from fastrdb.values import ColumnValues


class FieldSet:
    """The fields of a model or a table: names, their SQL, and the values they take.

    Attributes:
        owner: Name of the model or table, for errors.
    """

    __slots__ = ("_fields", "owner")

    def __init__(self, owner: str, fields: Mapping[str, tuple[ColumnElement[Any], ColumnValues]]) -> None:
        """Take over the fields; they are copied.

        Args:
            owner: Name of the model or table, for errors.
            fields: Name -> SQL expression (columns, hybrids, any other) and its values.
        """
        self.owner, self._fields = owner, dict(fields)

    @property
    def names(self) -> Iterable[str]:
        """Give the names, in the order of the model."""
        return self._fields.keys()

    def __getitem__(self, name: str) -> tuple[ColumnElement[Any], ColumnValues]:
        try:
            return self._fields[name]
        except KeyError:
            raise UnknownField(str(name), self.owner, self._fields) from None

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __repr__(self) -> str:
        return f"FieldSet({self.owner!r}, {', '.join(self._fields)})"

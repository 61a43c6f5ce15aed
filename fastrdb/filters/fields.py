"""The fields that can be filtered, of a model and of the models it is related to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, NoReturn, Protocol

from sqlalchemy import ColumnElement

from fastrdb.errors import InputError, UnknownField
from fastrdb.values import ColumnValues

MAX_HOPS: Final = 3
"""Most relationships that one filter goes through: ``city.country.continent.name``."""


class Related(Protocol):
    """The rows that a relationship leads to."""

    @property
    def fields(self) -> FieldSet:
        """Give what can be filtered of them."""
        ...

    def exists(self, conditions: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
        """Give the condition that there is one which satisfies them all."""
        ...


_NONE: Final[Mapping[str, Related]] = MappingProxyType({})


class FieldSet:
    """The fields of a model or a table: names, their SQL, and the values they take.

    A dotted name is a field of related rows. ``"country"`` alone is the condition that there is a related row, of
    which one can say that it holds (``{"is_not": None}``) or does not (``None``).

    Attributes:
        owner: Name of the model or table, for errors.
    """

    __slots__ = ("_fields", "_reached", "_related", "owner")

    def __init__(
        self,
        owner: str,
        fields: Mapping[str, tuple[ColumnElement[Any], ColumnValues]],
        related: Mapping[str, Related] = _NONE,
    ) -> None:
        """Take over the fields; they are copied.

        Args:
            owner: Name of the model or table, for errors.
            fields: Name -> SQL expression (columns, hybrids, any other) and its values.
            related: Name of a relationship -> its rows; asked only when a filter names one.
        """
        self.owner, self._fields, self._related = owner, dict(fields), related
        self._reached: dict[str, tuple[ColumnElement[Any], ColumnValues]] = {}

    @property
    def names(self) -> Iterable[str]:
        """Give the names, in the order of the model."""
        return self._fields.keys()

    def related(self, name: str) -> Related:
        """Give the rows that a relationship leads to, which a filter has named before."""
        return self._related[name]

    def split(self, name: str) -> tuple[tuple[str, ...], str]:
        """Give the relationships that lead to a field, and its name there."""
        if name in self._fields:
            return (), name
        *path, last = name.split(".")
        return tuple(path), last

    def __getitem__(self, name: str) -> tuple[ColumnElement[Any], ColumnValues]:
        try:
            return self._fields[name]
        except KeyError:
            found = self._reached.get(name)
        if found is None:
            found = self._reached[name] = self._reach(str(name))
        return found

    def _reach(self, name: str) -> tuple[ColumnElement[Any], ColumnValues]:
        first, dotted, rest = name.partition(".")
        if first not in self._related:
            raise UnknownField(name, self.owner, self._valid(bool(dotted)))
        if name.count(".") > MAX_HOPS:
            raise InputError(f"{name!r} goes through more than {MAX_HOPS} relationships; say it with where= instead")
        related = self._related[first]
        if not dotted:
            return related.exists(()), _presence(name)
        try:
            column, values = related.fields[rest]
        except UnknownField as error:
            raise UnknownField(name, self.owner, [f"{first}.{valid}" for valid in error.valid]) from None
        return column, replace(values, name=name)

    def _valid(self, dotted: bool) -> list[str]:
        through = [f"{name}.…" for name in self._related] if dotted else [*self._related]
        return through if dotted and through else [*self._fields, *through]

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __repr__(self) -> str:
        return f"FieldSet({self.owner!r}, {', '.join(self._fields)})"


def _presence(name: str) -> ColumnValues:
    expected = f"None, for no such row, or {{'is_not': None}}; filter its columns by {name + '.…'!r}"
    return ColumnValues(name, None, False, "rows", expected, _no_value, str)


def _no_value(value: object) -> NoReturn:
    raise ValueError

"""What one column takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.types import TypeEngine

from fastrdb.errors import ValueRefused
from fastrdb.values.kind import Adapt, Category, Settled, Stored, Text
from fastrdb.values.types import kind_of

_NONE = type(None)
_TEXT_IS_VALUE = (int, str, UUID)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ColumnValues:
    """What one column takes, and how its values are written in keys.

    Attributes:
        name: Name of the attribute, for errors.
        python_type: Type of the column's values; ``None`` where it is unknown: values then pass as they are.
        exact: The database finds just those rows whose values equal, in Python, the one asked for.
        category: ``"text"`` takes any string, and patterns; ``"plain"`` is any other scalar, which can be
            ordered; ``"array"``, ``"json"`` and ``"unknown"`` are what they say; ``"rows"`` are those of a
            relationship, of which one can ask whether there are any.
        expected: What the column takes, in words.
    """

    name: str
    python_type: type | None
    exact: bool
    category: Category
    expected: str
    _adapt: Adapt
    _text: Text
    _settled: Settled | None = None
    _stored: Stored | None = None

    @property
    def as_equal(self) -> bool:
        """Whether texts of coerced values are equal just if the values are; databases give them as they coerce."""
        return self._text is str and self.python_type in _TEXT_IS_VALUE

    def coerce(self, value: object) -> Any:
        """Give the value in the column's Python type; ``None`` stays ``None``.

        Strings are read as a query string has them: ``"1"`` for an integer, ISO 8601 for dates and times, the
        stored label, the name or the value for an Enum. In a column with a time zone, a datetime without one
        counts as UTC, and the result is UTC. Nothing is rounded or cut.

        Raises:
            ValueRefused: The column does not take the value.
        """
        if value is None:
            return None
        try:
            return self._adapt(value)
        except (ValueError, TypeError, LookupError, ArithmeticError):
            raise ValueRefused(self.name, self.expected, value) from None

    def coerce_all(self, values: Sequence[object]) -> Sequence[Any]:
        """Give many values as ``coerce`` gives each, much faster where they are in the column's type already.

        Raises:
            ValueRefused: The column does not take one of them.
        """
        kinds = set(map(type, values))
        known = self._settled is not None and kinds <= {self.python_type, _NONE}
        if known and self._settled is not None:
            present = [value for value in values if value is not None] if _NONE in kinds else values
            if not present or self._settled(present):
                return values
        return list(map(self.coerce, values))

    def stored(self, value: object) -> Any:
        """Give what is written for the value: what ``coerce`` gives, if there is room for it.

        For ``None`` in a JSON column that is SQL's NULL, where the column takes it.

        Raises:
            ValueRefused: The column does not take the value, or cannot hold it.
        """
        coerced = self.coerce(value)
        if self._stored is None:
            return coerced
        if coerced is None:
            return self._stored.null
        try:
            return self._stored.adapt(coerced)
        except (ValueError, TypeError):
            raise ValueRefused(self.name, self._stored.expected, value) from None

    def stored_all(self, values: Sequence[object]) -> Sequence[Any]:
        """Give for many values what ``stored`` gives for each, much faster where they are in the column's type already.

        Raises:
            ValueRefused: The column does not take one of them, or cannot hold it.
        """
        coerced = self.coerce_all(values)
        if self._stored is None:
            return coerced
        if self._stored.settled is not None:
            present = [value for value in coerced if value is not None]
            if not present or self._stored.settled(present):
                return coerced
        return list(map(self.stored, coerced))

    def text(self, value: object) -> str:
        """Give the canonical text of a coerced value other than ``None``, equal in every process.

        Raises:
            ValueRefused: The column's type is unknown, and the value has no stable ``repr``.
        """
        try:
            return self._text(value)
        except TypeError:
            expected = f"{self.expected} with a repr that is the same in every process"
            raise ValueRefused(self.name, expected, value) from None

    def __repr__(self) -> str:
        return f"ColumnValues({self.name!r}, {self.expected}{', exact' if self.exact else ''})"


def column_values(name: str, type_: TypeEngine[Any], *, nullable: bool = True) -> ColumnValues:
    """Describe the values of a column.

    Args:
        name: Name of the attribute, for errors.
        type_: The column's type. Decorators without hooks are looked through, variants are looked into: where
            their Python types differ, the type is unknown.
        nullable: It takes NULL; one of JSON that does not still has JSON's own ``null``.
    """
    kind = kind_of(type_)
    stored = kind.stored if nullable or kind.stored is None else kind.stored._replace(null=None)
    return ColumnValues(
        name, kind.python_type, kind.exact, kind.category, kind.expected, kind.adapt, kind.text, kind.settled, stored
    )

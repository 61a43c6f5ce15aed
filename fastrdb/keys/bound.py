"""Templates bound to the columns of a model: the keys of entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, cast

from fastrdb.errors import MissingKeyField, TemplateError, ValueRefused
from fastrdb.keys.encoding import encode, is_clean
from fastrdb.keys.template import RESERVED, Template
from fastrdb.values import ColumnValues

_Encoder: TypeAlias = Callable[[Any], str]


class BoundTemplate:
    """A template whose placeholders are columns of a model, or ``page`` and ``limit``.

    Attributes:
        template: The template.
        columns: Those of its fields that are columns, in order.
        exact: Equality of all its columns is exact (``ColumnValues.exact``).
    """

    __slots__ = ("_head", "_pieces", "_prefix", "columns", "exact", "template")

    def __init__(self, template: Template, values: Mapping[str, ColumnValues], prefix: str = "") -> None:
        """Bind a template.

        Args:
            template: The template.
            values: The fields of the model that may stand in keys.
            prefix: Written before every key as it is.

        Raises:
            TemplateError: A placeholder is no field, or its values cannot stand in a key.
        """
        self.template = template
        self.columns = tuple(field for field in template.fields if field not in RESERVED)
        self._prefix = prefix
        for column in self.columns:
            _check_column(template.text, column, values)
        self.exact = all(values[column].exact for column in self.columns)
        # The text before each value, and at last the text after them all.
        self._head, *tails = _literals(template, prefix)
        encoders = (_encoder(field, values.get(field)) for field in template.fields)
        self._pieces = tuple(zip(template.fields, encoders, tails, strict=True))

    def key(self, given: Mapping[str, Any], /) -> bytes:
        """Format the key of an entry.

        Args:
            given: A value for each placeholder, as callers write it; more names do no harm.

        Raises:
            MissingKeyField: A placeholder has no value.
            ValueRefused: A value is not one plain value of its column.
        """
        key = self._head
        for field, encoder, tail in self._pieces:
            try:
                value = given[field]
            except KeyError:
                raise MissingKeyField(field, self.template.text) from None
            key += encoder(value) + tail
        return key.encode()

    def __repr__(self) -> str:
        return f"BoundTemplate({self._prefix + self.template.text!r})"


def _check_column(text: str, column: str, values: Mapping[str, ColumnValues]) -> None:
    if column not in values:
        valid = ", ".join(sorted({*values, *RESERVED}))
        raise TemplateError(text, f"placeholder '{{{column}}}' is no field; valid: {valid}")
    if values[column].category in ("array", "json"):
        problem = f"'{{{column}}}' takes {values[column].expected}, which cannot stand in a key"
        raise TemplateError(text, problem)


def _literals(template: Template, prefix: str) -> Iterator[str]:
    text = prefix
    for index, (before, field, after) in enumerate(template.segments):
        text += f":{before}" if index else before
        if field is not None:
            yield text
            text = after
    yield text


def _encoder(field: str, values: ColumnValues | None) -> _Encoder:
    if values is None or field in RESERVED:
        return _number_encoder(field)
    if values.category == "text":
        return _text_encoder(values)
    return _integer_encoder(values) if values.python_type is int else _value_encoder(values)


def _number_encoder(field: str) -> _Encoder:
    def encoder(value: Any) -> str:
        if type(value) is not int or value < 0:
            raise ValueRefused(field, "a whole number", value)
        return str(value)

    return encoder


def _value_encoder(values: ColumnValues) -> _Encoder:
    coerce, text = values.coerce, values.text

    def encoder(value: Any) -> str:
        if isinstance(value, (list, tuple, set, frozenset, dict)):
            raise ValueRefused(values.name, f"one plain value in a key, {values.expected}", cast("object", value))
        coerced = coerce(value)
        return encode(None if coerced is None else text(coerced))

    return encoder


def _integer_encoder(values: ColumnValues) -> _Encoder:
    coerce, slow = values.coerce, _value_encoder(values)

    def encoder(value: Any) -> str:
        return str(coerce(value)) if type(value) is int else slow(value)

    return encoder


def _text_encoder(values: ColumnValues) -> _Encoder:
    slow = _value_encoder(values)

    def encoder(value: Any) -> str:
        return value if type(value) is str and is_clean(value) is not None else slow(value)

    return encoder

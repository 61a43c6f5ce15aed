"""Values that are not of a response, as JSON: each as its column's canonical text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..errors import ValueRefused
from ..values import ColumnValues


def dump(rows: Sequence[Sequence[Any]], columns: Sequence[ColumnValues]) -> bytes | None:
    """Give the JSON of rows; ``None`` if reading it would not give equal values of the same types."""
    try:
        raw = json.dumps([[_text(*each) for each in zip(row, columns, strict=True)] for row in rows]).encode()
        again = load(raw, columns)
    except (ValueRefused, TypeError, ValueError):
        return None
    return raw if all(_same(one, two) for one, two in zip(rows, again, strict=True)) else None


def load(raw: bytes, columns: Sequence[ColumnValues]) -> list[tuple[Any, ...]]:
    """Give the rows back."""
    return [tuple(_value(*each) for each in zip(row, columns, strict=True)) for row in json.loads(raw)]


def _text(value: Any, column: ColumnValues) -> str | None:
    return None if value is None else column.text(value)


def _value(text: str | None, column: ColumnValues) -> Any:
    return bytes.fromhex(text) if text is not None and column.python_type is bytes else column.coerce(text)


def _same(one: Sequence[Any], two: Sequence[Any]) -> bool:
    return all(_alike(a, b) and a == b for a, b in zip(one, two, strict=True))


def _alike(one: Any, two: Any) -> bool:
    # asyncpg gives UUIDs of a subclass of its own; and True is a number that equals 1.
    return isinstance(one, type(two)) and isinstance(one, bool) == isinstance(two, bool)

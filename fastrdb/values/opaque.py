"""Values that fastrdb does not look into: JSON, and types that it does not know."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import sqlalchemy as sa

from fastrdb.values.kind import Kind

_TAG = "\0"


def document(_: object) -> Kind:
    """Describe JSON."""

    def text(value: Any) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    return Kind(None, "JSON", _as_it_is, text, category="json")


def unknown(_: object = None) -> Kind:
    """Describe values of an unknown type: anything but SQL expressions."""

    def adapt(value: Any) -> Any:
        if isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__"):
            raise TypeError
        return value

    return Kind(None, "a value (SQL expressions go into where=)", adapt, _tagged, category="unknown")


def _as_it_is(value: Any) -> Any:
    return value


def _tagged(value: object) -> str:
    """Tell values of any type apart: a string is itself, all others are tagged with their type's name."""
    if type(value) is str and not value.startswith(_TAG) and _encodable(value):
        return value
    return f"{_TAG}{type(value).__qualname__}:{_stable_repr(value)}"


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stable_repr(value: object) -> str:
    kind = type(value).__qualname__
    if isinstance(value, enum.Enum):
        return f"{kind}.{value.name}"
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        pairs = sorted(f"{_stable_repr(key)}:{_stable_repr(item)}" for key, item in items)
        return f"{kind}({','.join(pairs)})"
    if isinstance(value, (list, tuple, set, frozenset)):
        shown = list(map(_stable_repr, cast("Iterable[object]", value)))
        return f"{kind}({','.join(sorted(shown) if isinstance(value, (set, frozenset)) else shown)})"
    text = ascii(value)
    # A secret's is the same for all, an array's leaves out its middle.
    if " at 0x" in text or hasattr(value, "get_secret_value") or hasattr(value, "__array__"):
        raise TypeError
    return text

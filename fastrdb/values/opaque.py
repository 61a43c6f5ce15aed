"""Values that fastrdb does not look into: JSON, and types that it does not know."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import sqlalchemy as sa
from pydantic_core import to_jsonable_python
from sqlalchemy.types import TypeEngine

from fastrdb.values.kind import Kind, Stored

_TAG = "\0"


def document(type_: TypeEngine[Any]) -> Kind:
    """Describe JSON; what has no form in it is written as pydantic's JSON mode has it, and ``None`` as NULL."""

    def text(value: Any) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    null = None if getattr(type_, "none_as_null", False) else sa.null()
    stored = Stored("JSON, or what pydantic writes as JSON", _json_form, null)
    return Kind(None, "JSON", _as_it_is, text, category="json", stored=stored)


def unknown(_: object = None) -> Kind:
    """Describe values of an unknown type: anything but SQL expressions."""

    def adapt(value: Any) -> Any:
        if isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__"):
            raise TypeError
        return value

    return Kind(None, "a value (SQL expressions go into where=)", adapt, _tagged, category="unknown")


def _as_it_is(value: Any) -> Any:
    return value


def _json_form(value: Any) -> Any:
    """Give a value that JSON has, and others in the form that pydantic gives them."""
    if value is sa.JSON.NULL or isinstance(value, sa.ClauseElement):
        return value
    try:
        json.dumps(value, allow_nan=False)
    except TypeError:
        value = _plain(value)
        json.dumps(value, allow_nan=False)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {key if isinstance(key, str) else _written_key(key): _plain(item) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(map(_plain, cast("Iterable[object]", value)))
    if hasattr(value, "get_secret_value"):  # of which pydantic writes asterisks
        raise TypeError
    return to_jsonable_python(value, inf_nan_mode="constants")


def _written_key(key: object) -> str:
    (written,) = to_jsonable_python({key: None})
    return str(written)


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

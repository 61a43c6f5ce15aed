"""Which schemas say just what their attributes are: their instances need not be dumped to be known."""

from __future__ import annotations

import datetime as dt
import types
from decimal import Decimal
from typing import Any, Final, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from pydantic.fields import FieldInfo

# Pydantic dumps each of these as it is, in Python's mode.
_PLAIN: Final = frozenset(
    {str, int, float, bool, bytes, Decimal, UUID, dt.date, dt.datetime, dt.time, dt.timedelta, type(None)}
)


def says_its_attributes(kind: type[BaseModel]) -> bool:
    """Tell whether ``model_dump(by_alias=False)`` gives the attributes of the fields; what is not certain is False."""
    decorators = kind.__pydantic_decorators__
    return (
        kind.model_dump is BaseModel.model_dump
        and kind.model_config.get("extra") != "allow"
        and not (decorators.field_serializers or decorators.model_serializers or kind.model_computed_fields)
        and "__get_pydantic_core_schema__" not in {name for base in _own_bases(kind) for name in vars(base)}
        and bool(kind.model_fields)
        and all(map(_is_plain, kind.model_fields.values()))
    )


def _own_bases(kind: type[BaseModel]) -> tuple[type, ...]:
    return kind.__mro__[: kind.__mro__.index(BaseModel)]


def _is_plain(field: FieldInfo) -> bool:
    kinds = _kinds(field.annotation)
    if field.exclude or getattr(field, "exclude_if", None) is not None or not kinds <= _PLAIN:
        return False
    return not any(hasattr(each, "__get_pydantic_core_schema__") for each in field.metadata)  # serializers, say


def _kinds(annotation: Any) -> frozenset[Any]:
    union = get_origin(annotation) in (Union, types.UnionType)
    return frozenset(get_args(annotation) if union else (annotation,))

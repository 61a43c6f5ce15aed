"""From SQLAlchemy's types to kinds of values."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator, TypeEngine

from fastrdb.values import numeric, opaque, temporal, textual
from fastrdb.values.kind import Kind, Stored

_HOOKS = (
    *("process_bind_param", "process_result_value", "process_literal_param", "bind_processor"),
    *("result_processor", "bind_expression", "column_expression"),
)


def kind_of(type_: TypeEngine[Any]) -> Kind:
    """Give the kind of a type and of its variants together."""
    variants = getattr(type_, "_variant_mapping", {}).values()  # SQLAlchemy has no public way to ask
    kinds = [_single(each) for each in (type_, *variants)]
    if len({(kind.python_type, kind.category) for kind in kinds}) > 1:
        return opaque.unknown()
    widest = max(kinds, key=lambda kind: kind.bits)
    return widest._replace(exact=all(kind.exact for kind in kinds), stored=_roomiest(kinds))


def _roomiest(kinds: Sequence[Kind]) -> Stored | None:
    """Give what all variants together ask of what is written; ``None``: one of them asks nothing."""
    stored = [kind.stored for kind in kinds if kind.stored is not None]
    return max(stored, key=lambda each: each.room) if len(stored) == len(kinds) else None


def _single(type_: TypeEngine[Any]) -> Kind:
    like = getattr(type_, "values_like", None)
    if isinstance(like, TypeEngine):  # a decorator that says which type its values are those of, hooks or not
        return kind_of(like)
    if isinstance(type_, TypeDecorator) and not isinstance(type_, sa.Interval):
        return opaque.unknown() if _has_hooks(type_) else kind_of(type_.impl_instance)._replace(exact=False)
    by_class = (build for class_, build in _BY_CLASS if isinstance(type_, class_))
    build = next(by_class, None) or _BY_PYTHON_TYPE.get(_python_type(type_), opaque.unknown)
    kind = build(type_)
    # A subclass of a user may compare, and write, as it likes.
    return kind if type(type_).__module__.startswith("sqlalchemy.") else kind._replace(exact=False, stored=None)


def _python_type(type_: TypeEngine[Any]) -> type:
    try:
        return type_.python_type
    except NotImplementedError:  # SQLAlchemy 2.0 raises where 2.1 says object
        return object


def _has_hooks(type_: TypeDecorator[Any]) -> bool:
    return any(getattr(type(type_), hook) is not getattr(TypeDecorator, hook) for hook in _HOOKS)


def _array(type_: TypeEngine[Any]) -> Kind:
    item = kind_of(cast("sa.ARRAY[Any]", type_).item_type)

    def adapt(value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise TypeError
        return [each if each is None else nested(each) for each in cast("list[object]", value)]

    def nested(value: Any) -> Any:
        return adapt(value) if isinstance(value, (list, tuple)) else item.adapt(value)

    def texts(value: Any) -> Any:
        if isinstance(value, list):
            return [texts(each) for each in cast("list[object]", value)]
        return value if value is None else item.text(value)

    def text(value: Any) -> str:
        return json.dumps(texts(value))

    return Kind(list, f"a list, each item {item.expected}", adapt, text, category="array")


_BY_CLASS: tuple[tuple[type[Any], Callable[[TypeEngine[Any]], Kind]], ...] = (
    (sa.JSON, opaque.document),
    (sa.ARRAY, _array),
    (sa.Enum, textual.enumeration),
    (sa.Uuid, textual.identifier),
)
_BY_PYTHON_TYPE: dict[type, Callable[[TypeEngine[Any]], Kind]] = {
    int: numeric.integer,
    bool: numeric.boolean,
    float: numeric.floating,
    Decimal: numeric.decimal,
    str: textual.string,
    bytes: textual.octets,
    dt.datetime: temporal.moment,
    dt.date: temporal.date,
    dt.time: temporal.time,
    dt.timedelta: temporal.duration,
}

"""Numbers and truth values."""

from __future__ import annotations

import enum
import math
from collections.abc import Collection
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.types import TypeEngine

from fastrdb.values.kind import Kind, Stored, any_is, passing

_INT: TypeAdapter[int] = TypeAdapter(int)
_FLOAT: TypeAdapter[float] = TypeAdapter(float)
_BOOL: TypeAdapter[bool] = TypeAdapter(bool)
_DECIMAL: TypeAdapter[Decimal] = TypeAdapter(Decimal)

# PostgreSQL's limits for numeric; beyond them the text of a short exponent could fill the memory.
_DIGITS_BEFORE, _DIGITS_AFTER = 131_072, 16_383


def integer(type_: TypeEngine[Any]) -> Kind:
    """Describe integers; their range is PostgreSQL's (MySQL's where unsigned), on SQLite, too."""
    bits = 64 if isinstance(type_, sa.BigInteger) else 16 if isinstance(type_, sa.SmallInteger) else 32
    unsigned = bool(getattr(type_, "unsigned", False))
    low, high = -(1 << bits - 1), (1 << bits - (not unsigned)) - 1

    def adapt(value: Any) -> int:
        number: int = value if type(value) is int else _INT.validate_python(_number(value))
        if not low <= number <= high:
            raise ValueError
        return number

    def settled(values: Collection[int]) -> bool:
        return low <= min(values) and max(values) <= high

    return Kind(int, f"a whole number from {low} to {high}", adapt, str, True, bits=bits, settled=settled)


def boolean(_: TypeEngine[Any]) -> Kind:
    """Describe truth values."""

    def text(value: bool) -> str:
        return "true" if value else "false"

    return Kind(bool, "true or false", passing(bool, _BOOL.validate_python), text, True, settled=any_is)


def floating(type_: TypeEngine[Any]) -> Kind:
    """Describe floats; infinities are taken, NaN is not: it equals itself in some databases only."""

    def adapt(value: Any) -> float:
        number = value if type(value) is float else _FLOAT.validate_python(_number(value))
        if math.isnan(number):
            raise ValueError
        return number

    def text(value: float) -> str:
        return repr(value + 0.0)  # -0.0 + 0.0 is 0.0

    def settled(values: Collection[float]) -> bool:
        return not any(map(math.isnan, values))

    return Kind(float, "a number, not NaN", adapt, text, settled=settled, stored=_digits(type_))


def decimal(type_: TypeEngine[Any]) -> Kind:
    """Describe decimals; their text has at least as many digits after the point as the column."""
    scale: int = getattr(type_, "scale", None) or 0

    def adapt(value: Any) -> Decimal:
        number = value if type(value) is Decimal else _DECIMAL.validate_python(_number(value))
        exponent = number.as_tuple().exponent
        if isinstance(exponent, str) or exponent < -_DIGITS_AFTER or number.adjusted() > _DIGITS_BEFORE:
            raise ValueError
        return number

    def text(value: Decimal) -> str:
        whole, _, fraction = f"{value or abs(value):f}".partition(".")  # abs: -0 is 0
        fraction = fraction.rstrip("0").ljust(scale, "0")  # digits beyond the scale stay: nothing is rounded
        return f"{whole}.{fraction}" if fraction else whole

    return Kind(Decimal, "a finite decimal number", adapt, text, stored=_digits(type_))


def _digits(type_: TypeEngine[Any]) -> Stored | None:
    """Give how large a number may be that is written, rounded as databases do; also for SQLite, which takes any."""
    if not isinstance(type_, sa.Numeric) or isinstance(type_, sa.Float) or type_.precision is None:
        return None
    precision, scale = type_.precision, type_.scale or 0
    beyond = Decimal((0, (9,) * precision + (5,), -scale - 1))  # which is rounded up to one digit too many

    def adapt(value: Any) -> Any:
        if not -beyond < value < beyond:
            raise ValueError
        return value

    def settled(values: Collection[Any]) -> bool:
        return bool(-beyond < min(values) and max(values) < beyond)

    room = precision - scale
    return Stored(f"a number of at most {room} digits before the point", adapt, room=room, settled=settled)


def _number(value: Any) -> Any:
    """Refuse what Python takes for a number, and a database does not."""
    if isinstance(value, (bool, bytes)):
        raise TypeError
    return value.value if isinstance(value, enum.Enum) else value

"""Cursors as text: where a page ended, for the next call to go on from. No I/O, and no SQL.

A cursor is URL-safe base64 of four bytes of checksum and a JSON list: the version, the digest of the list that it
belongs to, the direction, and the values that one row of the list has in the columns of the order. It gives no right to
anything: which rows may be seen is decided by the call that it is passed to.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from uuid import UUID

from ..errors import CursorRefused, OrderRefused

MAX_CURSOR: Final = 16_384  # characters
_VERSION: Final = 1
_CHECKSUM: Final = 4  # bytes: against copies that are cut or mistyped, not against forgers
_MICROSECOND = dt.timedelta(microseconds=1)


class Position(NamedTuple):
    """A place between two rows of a list.

    Attributes:
        values: What a row has, or had, in the columns of the order, as the driver gives it.
        forward: The page begins here and goes on; otherwise it ends here.
        inclusive: The row itself is on the page, if it is still there.
    """

    values: tuple[Any, ...]
    forward: bool
    inclusive: bool = False


def digest(*parts: object) -> str:
    """Give the short name of a list: what JSON can say of its model, its order and its filters, hashed."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=8).hexdigest()


def encode(position: Position, listed: str, fields: Sequence[str]) -> str:
    """Write a cursor.

    Args:
        position: Where it stands.
        listed: The digest of its list.
        fields: The attributes that the values belong to, for errors.

    Raises:
        OrderRefused: A value has no form in a cursor, or is too long for one.
    """
    values = [_written(value, field) for value, field in zip(position.values, fields, strict=True)]
    content = [_VERSION, listed, int(position.forward), int(position.inclusive), values]
    raw = json.dumps(content, separators=(",", ":")).encode()
    text = urlsafe_b64encode(_checksum(raw) + raw).decode().rstrip("=")
    if len(text) > MAX_CURSOR:
        longest = max(fields, key=lambda field: len(str(position.values[fields.index(field)])))
        raise OrderRefused(longest, "its values are too long for a cursor; order by another attribute, or use page()")
    return text


def decode(text: object, listed: str, width: int) -> Position:
    """Read a cursor.

    Args:
        text: What the caller was given.
        listed: The digest of the list that it is used for.
        width: Number of values that a position in that list has.

    Raises:
        CursorRefused: It is damaged, or one of another list.
    """
    version, whose, forward, inclusive, written = _content(text)
    if version != _VERSION:
        raise CursorRefused("another version of fastrdb wrote it")
    if whose != listed:
        raise CursorRefused(
            "it belongs to another list: pass the crud, the filters, the order and the options that it came from"
        )
    if type(written) is not list or len(written) != width or forward not in (0, 1) or inclusive not in (0, 1):
        raise _damaged()
    try:
        values = tuple(map(_read, written))
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise _damaged() from error
    return Position(values, bool(forward), bool(inclusive))


def _content(text: object) -> list[Any]:
    if not isinstance(text, str) or not text.isascii() or not text:
        raise _damaged()
    if len(text) > MAX_CURSOR:
        raise CursorRefused(f"it is longer than {MAX_CURSOR} characters, so none of ours")
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        content = json.loads(raw[_CHECKSUM:]) if raw[:_CHECKSUM] == _checksum(raw[_CHECKSUM:]) else None
    except (ValueError, RecursionError) as error:
        raise _damaged() from error
    if type(content) is not list or len(content) != 5:
        raise _damaged()
    return content


def _damaged() -> CursorRefused:
    return CursorRefused("it is damaged, or none of ours")


def _checksum(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=_CHECKSUM).digest()


# Values. What JSON has is written as it is; all others as a list of a tag and a text from which they come back equal.


class _Form(NamedTuple):
    type: type
    tag: str
    write: Callable[[Any], str]
    read: Callable[[str], Any]


_FORMS: Final = (
    _Form(float, "float", repr, float),  # the shortest text that gives the same bits; -0.0, inf and nan, too
    _Form(Decimal, "decimal", str, Decimal),
    _Form(UUID, "uuid", str, UUID),
    _Form(dt.datetime, "datetime", dt.datetime.isoformat, dt.datetime.fromisoformat),  # before date, its base
    _Form(dt.date, "date", dt.date.isoformat, dt.date.fromisoformat),
    _Form(dt.time, "time", dt.time.isoformat, dt.time.fromisoformat),
    _Form(dt.timedelta, "us", lambda value: str(value // _MICROSECOND), lambda text: int(text) * _MICROSECOND),
    _Form(bytes, "bytes", bytes.hex, bytes.fromhex),
)
_BY_TAG: Final[Mapping[str, _Form]] = {form.tag: form for form in _FORMS}


def _written(value: object, field: str) -> object:
    if value is None or type(value) in (bool, int, str):
        return value
    for form in _FORMS:
        if isinstance(value, form.type):
            return [form.tag, form.write(value)]
    raise OrderRefused(
        field, f"a {type(value).__name__} has no form in a cursor; order by another attribute, or use page()"
    )


def _read(written: Any) -> Any:
    if type(written) is not list:
        if type(written) is float or type(written) is dict:
            raise TypeError
        return written
    tag, text = written
    if type(text) is not str:
        raise TypeError
    return _BY_TAG[tag].read(text)


def is_finite(value: object) -> bool:
    """Tell whether a value is no infinity and no NaN."""
    return not isinstance(value, float) or math.isfinite(value)

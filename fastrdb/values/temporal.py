"""Dates, times and durations. Numbers are refused: nobody can tell their unit."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.types import TypeEngine

from fastrdb.values.kind import Kind, any_is

_DURATION: TypeAdapter[dt.timedelta] = TypeAdapter(dt.timedelta)
_MICROSECOND = dt.timedelta(microseconds=1)


def date(_: TypeEngine[Any]) -> Kind:
    """Describe dates; a datetime is taken for one at midnight without a time zone only."""

    def adapt(value: Any) -> dt.date:
        if isinstance(value, dt.datetime):
            if value.time() != dt.time() or value.tzinfo:
                raise ValueError
            return value.date()
        return value if isinstance(value, dt.date) else dt.date.fromisoformat(value)

    return Kind(dt.date, "a date, or its ISO 8601 text", adapt, dt.date.isoformat, True, settled=any_is)


def moment(type_: TypeEngine[Any]) -> Kind:
    """Describe datetimes; with a time zone they are brought to UTC."""
    zoned = bool(getattr(type_, "timezone", False))

    def adapt(value: Any) -> dt.datetime:
        at = _parse(value)
        if zoned:  # one without: what SQLite gives back; asyncpg would take the zone of the process
            return at.replace(tzinfo=dt.UTC) if at.utcoffset() is None else at.astimezone(dt.UTC)
        if at.utcoffset() is not None:
            raise ValueError
        return at

    expected = f"a datetime {'with' if zoned else 'without'} time zone, or its ISO 8601 text"
    return Kind(dt.datetime, expected, adapt, dt.datetime.isoformat)


def _parse(value: Any) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return value
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day)
    return dt.datetime.fromisoformat(value)


def time(type_: TypeEngine[Any]) -> Kind:
    """Describe times of day."""
    zoned = bool(getattr(type_, "timezone", False))

    def adapt(value: Any) -> dt.time:
        at = value if isinstance(value, dt.time) else dt.time.fromisoformat(value)
        if at.tzinfo and not zoned:
            raise ValueError
        return at

    expected = f"a time of day{'' if zoned else ' without time zone'}, or its ISO 8601 text"
    return Kind(dt.time, expected, adapt, dt.time.isoformat)


def duration(_: TypeEngine[Any]) -> Kind:
    """Describe timedeltas; their text is in microseconds."""

    def adapt(value: Any) -> dt.timedelta:
        if not isinstance(value, (dt.timedelta, str)):
            raise TypeError
        return _DURATION.validate_python(value)

    def text(value: dt.timedelta) -> str:
        return f"{value // _MICROSECOND}us"

    return Kind(dt.timedelta, "a timedelta, or its ISO 8601 text", adapt, text)

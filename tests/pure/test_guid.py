"""UUIDs as keys, and points in time."""

import uuid
from datetime import UTC, datetime, timedelta, timezone
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Uuid
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateTable

from fastrdb.db import GUID, UTCDateTime, utc_now, uuid7
from fastrdb.values import column_values

TABLE = Table(
    "things",
    MetaData(),
    Column("id", GUID(), primary_key=True),
    Column("at", UTCDateTime(), server_default=utc_now(), nullable=False),
)
KEY = uuid.UUID("01234567-89ab-7def-8123-456789abcdef")


def at_times(monkeypatch: pytest.MonkeyPatch, *nanoseconds: int) -> list[uuid.UUID]:
    """The keys that are made at these times."""
    clock = iter(nanoseconds)
    monkeypatch.setattr("fastrdb.db.models.guid.time", SimpleNamespace(time_ns=lambda: next(clock)))
    return [uuid7() for _ in nanoseconds]


def test_uuid7_is_what_the_rfc_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version and variant are those of RFC 9562; the time is that of its example, and half of a millisecond."""
    (key,) = at_times(monkeypatch, 0x017F22E279B0 * 1_000_000 + 500_000)
    assert (key.version, key.variant) == (7, uuid.RFC_4122)
    assert str(key).startswith("017f22e2-79b0-7800-")


def test_uuid7_sorts_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are made 250 ns apart sort so, as UUIDs and as text, within a millisecond and across."""
    keys = at_times(monkeypatch, *range(1_700_000_000_000_000_000, 1_700_000_000_002_000_000, 250))
    assert keys == sorted(keys)
    assert list(map(str, keys)) == sorted(map(str, keys))


def test_uuid7_is_random_besides() -> None:
    """No two are the same, at any speed."""
    assert len({uuid7() for _ in range(50_000)}) == 50_000


@pytest.mark.parametrize(
    ("dialect", "key", "moment"),
    [
        (postgresql.dialect(), "UUID", "TIMESTAMP WITH TIME ZONE DEFAULT now()"),
        (sqlite.dialect(), "CHAR(36)", "DATETIME DEFAULT (strftime("),
        (mysql.dialect(), "CHAR(36)", "DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6))"),
    ],
    ids=["postgresql", "sqlite", "mysql"],
)
def test_types_of_the_databases(dialect: Any, key: str, moment: str) -> None:
    """Each database gets its own types, and a clock that has fractions of a second."""
    text = str(CreateTable(TABLE).compile(dialect=dialect))
    assert f"id {key} NOT NULL" in text
    assert f"at {moment}" in text


def test_types_are_written_down_as_they_are_imported() -> None:
    """What a migration writes of a type is what it can import and call."""
    for type_ in (GUID(), UTCDateTime()):
        written = f"{type(type_).__module__}.{type_!r}"
        assert type(eval(written, {"fastrdb": import_module("fastrdb")})) is type(type_)


def test_text_is_taken_for_a_uuid() -> None:
    """A UUID that is given as text is brought to its usual form."""
    bind = GUID().process_bind_param
    assert bind(KEY.hex.upper(), sqlite.dialect()) == str(KEY)
    assert bind(str(KEY), postgresql.dialect()) == KEY
    assert bind(None, sqlite.dialect()) is None


def test_moments_are_kept_in_utc() -> None:
    """A zone is brought to UTC before a database drops it, and none counts as UTC."""
    type_, at = UTCDateTime(), datetime(2026, 3, 1, 12, tzinfo=UTC)
    for given in (at, at.astimezone(timezone(timedelta(hours=5))), at.replace(tzinfo=None)):
        assert type_.process_bind_param(given, sqlite.dialect()) == at.replace(tzinfo=None)
        assert type_.process_bind_param(given, postgresql.dialect()) == at
    assert type_.process_result_value(at.replace(tzinfo=None), sqlite.dialect()) == at


def test_moments_and_durations_add_up() -> None:
    """A timedelta beside such a column is a timedelta."""
    compiled = (TABLE.c.at > TABLE.c.at - timedelta(hours=1)).compile(dialect=postgresql.dialect())
    assert list(compiled.params.values()) == [timedelta(hours=1)]
    assert not isinstance(next(iter(compiled.binds.values())).type, UTCDateTime)


@pytest.mark.parametrize(("mine", "plain"), [(GUID(), Uuid()), (UTCDateTime(), DateTime(timezone=True))])
def test_crud_knows_their_values(mine: Any, plain: Any) -> None:
    """To filters and keys the types are what they stand for, though they have hooks of their own."""
    found, expected = column_values("x", mine), column_values("x", plain)
    assert found.expected == expected.expected
    assert (found.python_type, found.category, found.exact) == (
        expected.python_type,
        expected.category,
        expected.exact,
    )
    assert column_values("x", Integer()).python_type is int

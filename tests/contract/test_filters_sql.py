"""What filters find, on SQLite and on PostgreSQL, beside the same conditions in Python."""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from fastrdb.filters import OPERATORS, FieldSet, Filter, parse
from fastrdb.values import column_values


class Mood(enum.Enum):
    GOOD = "g"
    BAD = "b"


METADATA = sa.MetaData()
PEOPLE = sa.Table(
    "people",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("age", sa.Integer),
    sa.Column("name", sa.String(50)),
    sa.Column("mood", sa.Enum(Mood)),
    sa.Column("price", sa.Numeric(10, 2)),
    sa.Column("owner", sa.Uuid),
    sa.Column("token", sa.Uuid(as_uuid=False)),
    sa.Column("born", sa.Date),
    sa.Column("seen", sa.DateTime),
    sa.Column("at", sa.DateTime(timezone=True)),
    sa.Column("wakes", sa.Time),
    sa.Column("sleeps", sa.Interval),
    sa.Column("active", sa.Boolean),
    sa.Column("weight", sa.Float),
    sa.Column("face", sa.LargeBinary),
    sa.Column("extra", sa.JSON(none_as_null=True)),
)
FIELDS = FieldSet("Person", {c.name: (c, column_values(c.name, c.type)) for c in PEOPLE.c})
NOON = dt.datetime(2024, 5, 1, 12)
FULL: dict[str, Any] = {
    "age": 30,
    "name": "50%_of/it",
    "mood": Mood.GOOD,
    "price": Decimal("1.50"),
    "owner": uuid.UUID(int=1),
    "token": str(uuid.UUID(int=0xAB)),
    "born": dt.date(2024, 5, 1),
    "seen": NOON,
    "at": NOON.replace(tzinfo=dt.UTC),
    "wakes": dt.time(7),
    "sleeps": dt.timedelta(hours=8),
    "active": True,
    "weight": 1.5,
    "face": b"\x00\xff",
    "extra": {"a": 1},
}
EMPTY: dict[str, Any] = dict.fromkeys(FULL)
OTHER: dict[str, Any] = {
    "age": 40,
    "name": "50xof it",
    "mood": Mood.BAD,
    "price": Decimal("2.25"),
    "owner": uuid.UUID(int=2),
    "token": str(uuid.UUID(int=0xCD)),
    "born": dt.date(2025, 1, 1),
    "seen": NOON + dt.timedelta(days=1),
    "at": NOON.replace(tzinfo=dt.UTC) + dt.timedelta(days=1),
    "wakes": dt.time(8),
    "sleeps": dt.timedelta(hours=9),
    "active": False,
    "weight": 2.5,
    "face": b"\x01",
    "extra": {"a": 2},
}
ROWS = [{"id": 1, **FULL}, {"id": 2, **OTHER}, {"id": 3, **EMPTY}]


Cases = list[tuple[object, list[int]]]  # what is given for a field, and the rows that it finds


def equality(one: object, two: object) -> Cases:
    """What every kind of column takes; row 1 has *one*, row 2 *two*, row 3 nothing."""
    return [
        (one, [1]),
        (None, [3]),
        ({"=": one}, [1]),
        ({"==": None}, [3]),
        ([one, two], [1, 2]),
        ([one, None], [1, 3]),
        ([None], [3]),
        ([], []),
        ({"in": [two]}, [2]),
        ({"!=": one}, [2]),
        ({"!=": None}, [1, 2]),
        ({"not_in": [one]}, [2]),
        ({"not_in": [one, None]}, [2]),
        ({"not_in": [None]}, [1, 2]),
        ({"not_in": []}, [1, 2, 3]),
        ({"is": one}, [1]),
        ({"is": None}, [3]),
        ({"is_not": one}, [2, 3]),
        ({"is_not": None}, [1, 2]),
        ({"or": [two, None]}, [2, 3]),
        ({"or": [[one], {"!=": one}]}, [1, 2]),
    ]


def order(one: Any, two: Any) -> Cases:
    """What ordered columns take besides."""
    low, high, lower, higher = (one, two, [1], [2]) if one < two else (two, one, [2], [1])
    return [
        ({">": low}, higher),
        ({">=": low}, [1, 2]),
        ({"<": high}, lower),
        ({"<=": low}, lower),
        ({"between": [low, high]}, [1, 2]),
        ({"between": [high, low]}, []),
        ({">=": low, "<": high}, lower),
    ]


TEXT: Cases = [
    ({"like": "50%"}, [1, 2]),
    ({"like": "50__of_it"}, [1]),
    ({"not_like": "50x%"}, [1]),
    ({"ilike": "%OF%"}, [1, 2]),
    ({"not_ilike": "%OF/%"}, [2]),
    ({"startswith": "50%"}, [1]),
    ({"startswith": "50"}, [1, 2]),
    ({"endswith": "/it"}, [1]),
    ({"endswith": "_it"}, []),
    ({"contains": "_of/"}, [1]),
    ({"contains": "%_of/i"}, [1]),
    ({"contains": ""}, [1, 2]),
]
WRITTEN: dict[str, object] = {
    "age": "30",
    "mood": "g",
    "price": "1.5",
    "owner": FULL["owner"].hex,
    "token": FULL["token"].replace("-", ""),
    "born": "2024-05-01",
    "seen": "2024-05-01T12:00",
    "at": "2024-05-01T14:00:00+02:00",
    "wakes": "07:00",
    "sleeps": "PT8H",
    "active": "true",
    "weight": "1.5",
}


def cases(field: str) -> Cases:
    """Everything that can be asked of a field."""
    if field == "extra":
        return [(None, [3]), ({"is": None}, [3]), ({"!=": None}, [1, 2]), ({"is_not": None}, [1, 2])]
    found = equality(FULL[field], OTHER[field])
    if field != "mood":  # PostgreSQL orders members as they are declared, SQLite by name
        found += order(FULL[field], OTHER[field])
    if field == "name":
        found += TEXT
    if field in WRITTEN:
        found += [(WRITTEN[field], [1]), ({"in": [WRITTEN[field]]}, [1]), ({"is_not": WRITTEN[field]}, [2, 3])]
    return found


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return "sqlite+aiosqlite://"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def connection(url: str) -> AsyncIterator[AsyncConnection]:
    """A connection to a database that holds ``ROWS``."""
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(METADATA.create_all)
            await connection.execute(PEOPLE.insert(), ROWS)
            yield connection
    finally:
        await engine.dispose()


def query(parsed: Filter) -> sa.Select[int]:
    """The ids of the rows that a filter finds."""
    return sa.select(PEOPLE.c.id).where(*parsed.build(FIELDS)).order_by(PEOPLE.c.id)


@pytest.mark.parametrize("field", FULL)
async def test_every_operator_finds_what_it_says(connection: AsyncConnection, field: str) -> None:
    """Each operator finds the same rows of each kind of column on both databases, those that its docs say."""
    for given_value, expected in cases(field):
        parsed = parse(FIELDS, {field: given_value})
        rows = await connection.execute(query(parsed), parsed.params)
        assert (given_value, rows.scalars().all()) == (given_value, expected)


async def test_a_decimal_is_compared_unrounded(connection: AsyncConnection) -> None:
    """A value with more digits than the column is not rounded to one that is there."""
    for given_value, expected in [("1.504", []), ("1.496", []), ({">": "1.499"}, [1, 2]), ({">": "1.501"}, [2])]:
        parsed = parse(FIELDS, {"price": given_value})
        rows = await connection.execute(query(parsed), parsed.params)
        assert (given_value, rows.scalars().all()) == (given_value, expected)


async def test_alternatives_are_joined_as_written(connection: AsyncConnection) -> None:
    """A list of filters binds weaker than what each of them says, and stronger than the keywords."""
    parsed = parse(FIELDS, {"id": {">": 1}}, [{"age": 30}, {"age": None, "name": None}, {"age": 40, "id": 1}])
    rows = await connection.execute(query(parsed), parsed.params)
    assert rows.scalars().all() == [3]


def test_every_operator_is_tried() -> None:
    """No operator is left out above."""
    asked = [given_value for field in FULL for given_value, _ in cases(field) if isinstance(given_value, dict)]
    assert {name for given_value in asked for name in given_value} == set(OPERATORS)


number = st.integers(0, 4)
nullable = st.none() | number
COMPARED: dict[str, st.SearchStrategy[Any]] = {
    "=": nullable,
    "!=": nullable,
    "is": nullable,
    "is_not": nullable,
    ">": number,
    "<=": number,
    "in": st.lists(nullable, max_size=3),
    "not_in": st.lists(nullable, max_size=3),
    "between": st.tuples(number, number),
}
plain_asked = nullable | st.lists(nullable, max_size=3) | st.fixed_dictionaries({}, optional=COMPARED).filter(bool)
asked = st.recursive(
    plain_asked,
    lambda inner: st.fixed_dictionaries(
        {"or": st.lists(inner, min_size=1, max_size=3)}, optional={">": number, "!=": nullable}
    ),
    max_leaves=4,
)
keywords = st.dictionaries(st.sampled_from(["age", "other"]), asked, max_size=2)
alternative = st.dictionaries(st.sampled_from(["age", "other"]), asked, min_size=1, max_size=2)
further = st.none() | keywords | st.lists(alternative, min_size=1, max_size=3)

NUMBERS = sa.Table("numbers", sa.MetaData(), sa.Column("age", sa.Integer), sa.Column("other", sa.Integer))
NUMBER_FIELDS = FieldSet("Number", {c.name: (c, column_values(c.name, c.type)) for c in NUMBERS.c})
PAIRS = [(age, other) for age in (None, 0, 1, 2, 3) for other in (None, 0, 2)]


def holds(value: int | None, given_value: Any) -> bool:
    """What a filter means, in Python."""
    if isinstance(given_value, dict):
        return all(compare(value, name, operand) for name, operand in given_value.items())
    return value in given_value if isinstance(given_value, list) else value == given_value


def compare(value: int | None, name: str, operand: Any) -> bool:
    if name == "or":
        return any(holds(value, each) for each in operand)
    if name in ("=", "is", "in"):
        return holds(value, operand)
    if name == "is_not":
        return value != operand
    if name == "not_in" and not operand:
        return True
    if value is None:
        return False  # the rest does not find NULL
    if name == "between":
        return bool(operand[0] <= value <= operand[1])
    return {
        "!=": lambda: value != operand,
        "not_in": lambda: value not in operand,
        ">": lambda: value > operand,
        "<=": lambda: value <= operand,
    }[name]()


@pytest.fixture(scope="module")
def numbers() -> Iterator[sa.Connection]:
    """A SQLite database with all pairs of a few numbers."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        NUMBERS.metadata.create_all(connection)
        connection.execute(NUMBERS.insert(), [{"age": age, "other": other} for age, other in PAIRS])
        yield connection
    engine.dispose()


@given(keywords, further)
def test_filters_mean_what_they_mean_in_python(numbers: sa.Connection, given_keywords: Any, filters: Any) -> None:
    """Any combination of filters finds the rows for which it holds in Python."""
    parsed = parse(NUMBER_FIELDS, given_keywords, filters)
    rows = numbers.execute(sa.select(NUMBERS).where(*parsed.build(NUMBER_FIELDS)), parsed.params).all()

    def matches(row: dict[str, int | None], mapping: dict[str, Any]) -> bool:
        return all(holds(row[field], given_value) for field, given_value in mapping.items())

    alternatives = filters if isinstance(filters, list) else [filters or {}]
    expected = [
        (age, other)
        for age, other in PAIRS
        if matches(row := {"age": age, "other": other}, given_keywords)
        and any(matches(row, each) for each in alternatives)
    ]
    assert sorted(map(tuple, rows), key=str) == sorted(expected, key=str)


few = st.integers(0, 1) | st.none()
similar = (
    few | st.lists(few, max_size=2) | st.dictionaries(st.sampled_from(["=", "is", "!=", "is_not"]), few, min_size=1)
)


@given(st.lists(similar | st.fixed_dictionaries({"or": st.lists(similar, min_size=1, max_size=2)}), max_size=12))
def test_equal_canonical_forms_find_equal_rows(numbers: sa.Connection, several: list[Any]) -> None:
    """Filters with one canonical form, which share a key, find the same rows."""
    found: dict[str, Any] = {}
    for given_value in several:
        parsed = parse(NUMBER_FIELDS, {"age": given_value})
        rows = numbers.execute(sa.select(NUMBERS).where(*parsed.build(NUMBER_FIELDS)), parsed.params).all()
        assert found.setdefault(json.dumps(parsed.canonical), rows) == rows

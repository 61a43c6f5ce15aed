"""Values of columns: what is taken, what is refused, and the canonical text."""

from __future__ import annotations

import datetime as dt
import enum
import subprocess
import sys
import uuid
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

from fastrdb.errors import ValueRefused
from fastrdb.values import ColumnValues, column_values


class Colour(enum.Enum):
    RED = "r"
    CRIMSON = "r"  # noqa: PIE796  # an alias, on purpose
    BLUE = "b"


class Swapped(enum.Enum):
    ONE = "TWO"
    TWO = "ONE"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    HELLO = "hello"


class Alias(TypeDecorator[str]):
    impl = sa.String
    cache_ok = True


class Lowered(TypeDecorator[str]):
    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return value and value.lower()


class OwnInteger(sa.Integer):
    pass


def values(type_: TypeEngine[Any]) -> ColumnValues:
    return column_values("field", type_)


UTC = dt.UTC
PLUS_TWO = dt.timezone(dt.timedelta(hours=2))
NOON = dt.datetime(2024, 5, 1, 12)
A_UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("type_", "given_value", "expected"),
    [
        (sa.Integer(), "1", 1),
        (sa.Integer(), 1.0, 1),
        (sa.Integer(), Decimal(3), 3),
        (sa.Integer(), Level.LOW, 1),
        (sa.Integer(), -(2**31), -(2**31)),
        (sa.BigInteger(), str(2**63 - 1), 2**63 - 1),
        (mysql.INTEGER(unsigned=True), 2**32 - 1, 2**32 - 1),
        (sa.Boolean(), "true", True),
        (sa.Boolean(), 0, False),
        (sa.Float(), "1.5", 1.5),
        (sa.Float(), 2, 2.0),
        (sa.Float(asdecimal=True), "1.5", Decimal("1.5")),
        (sa.Numeric(10, 2), 1.1, Decimal("1.1")),
        (sa.Numeric(10, 2), "1.505", Decimal("1.505")),
        (sa.Numeric(asdecimal=False), "1.5", 1.5),
        (sa.String(), "a", "a"),
        (sa.String(), Word.HELLO, "hello"),
        (sa.String(), "é\u0301", "é\u0301"),
        (sa.LargeBinary(), bytearray(b"a"), b"a"),
        (sa.Uuid(), str(A_UUID), A_UUID),
        (sa.UUID(), A_UUID.hex, A_UUID),
        (sa.Uuid(as_uuid=False), A_UUID, str(A_UUID)),
        (sa.Uuid(as_uuid=False), A_UUID.hex, str(A_UUID)),
        (sa.Date(), "2024-05-01", dt.date(2024, 5, 1)),
        (sa.Date(), dt.datetime(2024, 5, 1), dt.date(2024, 5, 1)),
        (sa.DateTime(), "2024-05-01T12:00:00", NOON),
        (sa.DateTime(), dt.date(2024, 5, 1), dt.datetime(2024, 5, 1)),
        (sa.DateTime(timezone=True), "2024-05-01T12:00:00Z", NOON.replace(tzinfo=UTC)),
        (sa.DateTime(timezone=True), NOON.replace(tzinfo=PLUS_TWO), NOON.replace(hour=10, tzinfo=UTC)),
        (sa.DateTime(timezone=True), NOON, NOON.replace(tzinfo=UTC)),
        (sa.Time(), "12:30", dt.time(12, 30)),
        (sa.Interval(), "PT1H", dt.timedelta(hours=1)),
        (sa.Enum(Colour), "RED", Colour.RED),
        (sa.Enum(Colour), "r", Colour.RED),
        (sa.Enum(Colour), "CRIMSON", Colour.RED),
        (sa.Enum(Swapped), "ONE", Swapped.ONE),
        (sa.Enum(Swapped, values_callable=lambda e: [m.value for m in e]), "ONE", Swapped.TWO),
        (sa.Enum("a", "b"), "a", "a"),
        (sa.ARRAY(sa.Integer), ("1", 2, None), [1, 2, None]),
        (Alias(), Word.HELLO, "hello"),
        (Lowered(), "JOHN", "JOHN"),
        (sa.Integer().with_variant(sa.BigInteger(), "postgresql"), 2**40, 2**40),
        (sa.BigInteger().with_variant(sa.Integer(), "sqlite"), 2**40, 2**40),
        (sa.Uuid().with_variant(sa.String(36), "sqlite"), "anything", "anything"),
    ],
)
def test_a_value_is_brought_to_the_columns_type(type_: TypeEngine[Any], given_value: object, expected: object) -> None:
    """What means a value of the column becomes that value, of just the column's Python type."""
    coerced = values(type_).coerce(given_value)
    assert coerced == expected
    assert type(coerced) is type(expected)
    assert getattr(coerced, "tzinfo", None) == getattr(expected, "tzinfo", None)


@pytest.mark.parametrize(
    ("type_", "given_value"),
    [
        (sa.Integer(), True),
        (sa.Integer(), 1.5),
        (sa.Integer(), "x"),
        (sa.Integer(), 2**31),
        (sa.Integer(), [1]),
        (sa.Integer(), b"1"),
        (sa.SmallInteger(), 2**15),
        (sa.BigInteger(), 2**63),
        (sa.BigInteger(), "9" * 5000),
        (sa.Integer(), sa.column("x")),
        (sa.Boolean(), 2),
        (sa.Float(), float("nan")),
        (sa.Float(), True),
        (sa.Float(), 10**400),
        (sa.Numeric(), Decimal("NaN")),
        (sa.Numeric(), Decimal("Infinity")),
        (sa.Numeric(), Decimal("1E+999999")),
        (sa.Numeric(), Decimal("1E-999999")),
        (sa.Numeric(), False),
        (sa.String(), "a\0b"),
        (sa.String(), "\ud800"),
        (sa.String(), 1),
        (sa.String(), b"a"),
        (sa.String(), Level.LOW),
        (sa.LargeBinary(), "a"),
        (sa.Uuid(), "x"),
        (sa.Uuid(as_uuid=False), "x"),
        (sa.Uuid(as_uuid=False), "1_" * 16),
        (sa.Date(), NOON),
        (sa.Date(), 5),
        (sa.DateTime(), NOON.replace(tzinfo=UTC)),
        (sa.DateTime(), 1_700_000_000),
        (sa.DateTime(), "yesterday"),
        (sa.DateTime(timezone=True), dt.datetime.min.replace(tzinfo=PLUS_TWO)),
        (sa.Time(), dt.time(12, tzinfo=UTC)),
        (sa.Time(), 12),
        (sa.Interval(), "an hour"),
        (sa.Enum(Colour), "GREEN"),
        (sa.Enum(Colour), []),
        (sa.Enum("a", "b"), "c"),
        (sa.ARRAY(sa.Integer), 1),
        (sa.ARRAY(sa.Integer), ["x"]),
        (Lowered(), sa.column("x")),
    ],
)
def test_a_value_that_the_column_cannot_hold_is_refused(type_: TypeEngine[Any], given_value: object) -> None:
    """A refusal names the field."""
    with pytest.raises(ValueRefused, match=r"^'field' takes ") as caught:
        values(type_).coerce(given_value)
    assert caught.value.field == "field"
    assert caught.value.given is given_value


@pytest.mark.parametrize(
    ("type_", "most", "too_much"),
    [
        (sa.String(3), "äöü", "abcd"),
        (sa.CHAR(3), "abc", "abc "),
        (sa.String(3).with_variant(mysql.VARCHAR(5), "mysql"), "abcde", "abcdef"),
        (sa.Numeric(4, 1), Decimal("-999.94"), Decimal("999.95")),
        (sa.Numeric(3), Decimal("999.4"), Decimal("-999.5")),
        (sa.Numeric(2, -2), Decimal(9949), Decimal(9950)),
        (sa.Numeric(40, 2), Decimal("9" * 38 + ".99"), Decimal("1E+38")),
        (sa.Numeric(4, 1, asdecimal=False), 999.94, float("inf")),
    ],
)
def test_what_is_written_has_to_have_room(type_: TypeEngine[Any], most: Any, too_much: Any) -> None:
    """What the column holds is stored as it is; more is refused, and may still be asked for."""
    column = values(type_)
    assert column.stored(most) == most
    assert list(column.stored_all([most, None, most])) == [most, None, most]
    assert column.coerce(too_much) == too_much
    for refused in (lambda: column.stored(too_much), lambda: column.stored_all([most, None, too_much])):
        with pytest.raises(ValueRefused, match=r"at most \d+"):
            refused()


@pytest.mark.parametrize(
    "type_",
    [sa.Text(), sa.Text(3), sa.String(), sa.String(3).with_variant(sa.Text(), "postgresql"), postgresql.CITEXT()],
)
def test_a_text_without_a_length_may_be_any(type_: TypeEngine[Any]) -> None:
    """A type of text without a limit, or with one for some databases only, takes a long text."""
    assert values(type_).stored("a" * 1000) == "a" * 1000


@pytest.mark.parametrize("type_", [sa.Numeric(), sa.Numeric(scale=2), sa.Float(3), sa.Float(3, asdecimal=True)])
def test_a_number_without_digits_may_be_any(type_: TypeEngine[Any]) -> None:
    """A type of numbers without a precision in decimal digits takes a large number."""
    assert values(type_).stored(10**22) == 10**22


def test_a_secret_is_not_written_into_json() -> None:
    """What pydantic writes as asterisks is refused, not lost."""
    with pytest.raises(ValueRefused):
        values(sa.JSON()).stored({"password": SecretStr("x"), "at": NOON})


def test_a_refusal_can_be_shown_whatever_was_given() -> None:
    """A number that Python itself refuses to write does not break the message."""
    with pytest.raises(ValueRefused, match="very many digits"):
        values(sa.Integer()).coerce(10**5000)


@pytest.mark.parametrize("type_", [sa.Integer(), sa.String(), sa.Enum(Colour), sa.JSON(), Lowered()])
def test_none_is_none_in_every_column(type_: TypeEngine[Any]) -> None:
    """``None`` passes."""
    assert values(type_).coerce(None) is None


@pytest.mark.parametrize(
    ("type_", "given_value", "text"),
    [
        (sa.Integer(), -5, "-5"),
        (sa.Boolean(), True, "true"),
        (sa.Float(), -0.0, "0.0"),
        (sa.Float(), 1e300, "1e+300"),
        (sa.Numeric(10, 2), Decimal("1.5"), "1.50"),
        (sa.Numeric(10, 2), Decimal("1.500"), "1.50"),
        (sa.Numeric(10, 2), Decimal("1.505"), "1.505"),
        (sa.Numeric(), Decimal("1.50"), "1.5"),
        (sa.Numeric(), Decimal("-0.00"), "0"),
        (sa.Numeric(), Decimal("1E+3"), "1000"),
        (sa.Numeric(), Decimal("123456789012345678901234567890.1"), "123456789012345678901234567890.1"),
        (sa.String(), "John ", "John "),
        (sa.LargeBinary(), b"\x00\xff", "00ff"),
        (sa.Uuid(), A_UUID, str(A_UUID)),
        (sa.Date(), dt.date(2024, 5, 1), "2024-05-01"),
        (sa.DateTime(), NOON, "2024-05-01T12:00:00"),
        (sa.DateTime(timezone=True), NOON.replace(tzinfo=UTC), "2024-05-01T12:00:00+00:00"),
        (sa.Time(), dt.time(12, 30), "12:30:00"),
        (sa.Interval(), dt.timedelta(hours=1), "3600000000us"),
        (sa.Enum(Colour), Colour.CRIMSON, "RED"),
        (sa.Enum("a", "b"), "a", "a"),
        (sa.ARRAY(sa.Integer), [1, None], '["1", null]'),
        (sa.JSON(), {"b": 1, "a": 2}, '{"a":2,"b":1}'),
        (Lowered(), "JOHN", "JOHN"),
    ],
)
def test_canonical_texts(type_: TypeEngine[Any], given_value: object, text: str) -> None:
    """The text of a value is part of the wire format and does not change."""
    column = values(type_)
    assert column.text(column.coerce(given_value)) == text


@pytest.mark.parametrize(
    ("type_", "exact"),
    [
        (sa.Integer(), True),
        (sa.Uuid(), True),
        (sa.Boolean(), True),
        (sa.Date(), True),
        (sa.LargeBinary(), True),
        (sa.Enum(Colour), True),
        (sa.Enum("a", "A"), False),
        (sa.Enum("e", "é"), False),
        (sa.String(), False),
        (sa.String(collation="C"), True),
        (sa.String(collation="BINARY"), True),
        (sa.CHAR(5, collation="C"), False),
        (mysql.VARCHAR(20, collation="utf8mb4_bin"), False),
        (mysql.VARCHAR(20, collation="utf8mb4_0900_bin"), True),
        (sa.String(collation="NOCASE"), False),
        (postgresql.CITEXT(), False),
        (sa.Uuid(as_uuid=False), False),
        (sa.Float(), False),
        (sa.Numeric(10, 2), False),
        (sa.DateTime(), False),
        (sa.Time(), False),
        (sa.JSON(), False),
        (OwnInteger(), False),
        (Alias(), False),
        (Lowered(), False),
        (sa.Integer().with_variant(sa.BigInteger(), "postgresql"), True),
        (sa.String(collation="C").with_variant(postgresql.CITEXT(), "postgresql"), False),
    ],
)
def test_exact_where_databases_compare_as_python_does(type_: TypeEngine[Any], exact: bool) -> None:
    """Equality counts as exact only where every database agrees with Python."""
    assert values(type_).exact is exact


@pytest.mark.parametrize(
    ("type_", "python_type", "category"),
    [
        (sa.Text(), str, "text"),
        (postgresql.CITEXT(), str, "text"),
        (Alias(), str, "text"),
        (sa.Enum("a"), str, "plain"),
        (sa.Uuid(as_uuid=False), str, "plain"),
        (sa.Enum(Colour), Colour, "plain"),
        (postgresql.INTERVAL(), dt.timedelta, "plain"),
        (postgresql.JSONB(), None, "json"),
        (postgresql.ARRAY(sa.Text), list, "array"),
        (Lowered(), None, "unknown"),
        (sa.PickleType(), None, "unknown"),
        (postgresql.INET(), None, "unknown"),
        (sa.Uuid().with_variant(sa.String(36), "sqlite"), None, "unknown"),
    ],
)
def test_python_types_are_seen_through_wrappers(
    type_: TypeEngine[Any], python_type: type | None, category: str
) -> None:
    """Decorators without hooks and variants of one Python type are what they wrap; all else is unknown."""
    column = values(type_)
    assert (column.python_type, column.category) == (python_type, category)


COLUMNS = [
    (values(sa.BigInteger()), st.integers(-(2**63), 2**63 - 1)),
    (values(sa.Float()), st.floats(allow_nan=False)),
    (values(sa.Numeric(12, 3)), st.decimals(allow_nan=False, allow_infinity=False, places=4)),
    (values(sa.Numeric()), st.decimals(allow_nan=False, allow_infinity=False)),
    (values(sa.String()), st.text(st.characters(exclude_characters="\0", codec="utf-8"))),
    (values(sa.LargeBinary()), st.binary()),
    (values(sa.Uuid()), st.uuids()),
    (values(sa.Boolean()), st.booleans()),
    (values(sa.Date()), st.dates()),
    (values(sa.DateTime()), st.datetimes()),
    (
        values(sa.DateTime(timezone=True)),
        st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1), timezones=st.just(UTC) | st.just(PLUS_TWO)),
    ),
    (values(sa.Interval()), st.timedeltas()),
    (values(sa.Enum(Colour)), st.sampled_from(Colour)),
    (values(sa.ARRAY(sa.String)), st.lists(st.sampled_from(["", "a", '"', "[", None]), max_size=3)),
    (
        values(Lowered()),
        st.text() | st.integers() | st.sampled_from(["\0int:1", "\0"]) | st.frozensets(st.text(max_size=2)),
    ),
]


@given(data=st.data(), index=st.integers(0, len(COLUMNS) - 1))
def test_texts_are_equal_exactly_when_values_are(data: st.DataObject, index: int) -> None:
    """Two values of a column share their text if and only if they are equal."""
    column, strategy = COLUMNS[index]
    one, two = column.coerce(data.draw(strategy)), column.coerce(data.draw(strategy))
    assert (column.text(one) == column.text(two)) == (one == two)


@given(data=st.data(), index=st.integers(0, len(COLUMNS) - 1))
def test_coercing_again_changes_nothing(data: st.DataObject, index: int) -> None:
    """A coerced value is one that the column takes, and stays as it is."""
    column, strategy = COLUMNS[index]
    once = column.coerce(data.draw(strategy))
    assert column.coerce(once) == once
    assert column.text(column.coerce(once)) == column.text(once)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("1", 1),
        (1, True),
        (1, 1.0),
        (None, "None"),
        ("\0int:1", 1),
        ([1], (1,)),
        ([1], "[1]"),
        ({"a": 1}, {"a": "1"}),
    ],
)
def test_values_of_an_unknown_type_never_share_a_text(one: object, two: object) -> None:
    """Where the type is unknown, values of two Python types have two texts."""
    column = values(Lowered())
    assert column.text(one) != column.text(two)


@pytest.mark.parametrize("value", [object(), test_canonical_texts, [object()]])
def test_a_repr_that_is_an_address_is_refused(value: object) -> None:
    """A value whose text would differ in another process has none."""
    with pytest.raises(ValueRefused, match="the same in every process"):
        values(Lowered()).text(value)


def test_texts_of_sets_are_the_same_in_every_process() -> None:
    """The order of a set's items, which differs between processes, does not show."""
    code = (
        "from sqlalchemy.types import PickleType; from fastrdb.values import column_values;"
        "print(column_values('f', PickleType()).text({'a', 'b', 'c', ('d',)}))"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert b"'a'" in outputs.pop()


def test_repr_says_what_the_column_takes() -> None:
    """A column's values show themselves in words."""
    assert repr(values(sa.Uuid())) == "ColumnValues('field', a UUID, exact)"

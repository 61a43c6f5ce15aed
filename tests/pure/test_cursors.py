"""Cursors as text: every value comes back as it was, and what is no cursor of the list is refused."""

import datetime as dt
import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrdb import CursorRefused, InputError, OrderRefused
from fastrdb.crud.cursors import MAX_CURSOR, Position, _checksum, decode, digest, encode

LISTED = digest("Thing", [["age", False, None]])
ZONES = st.timezones() | st.none()
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.text(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.binary(max_size=50),
    st.dates(),
    st.times(),
    st.datetimes(timezones=ZONES).map(lambda at: at if at.tzinfo is None else at.astimezone(dt.UTC)),
    st.timedeltas(),
)


def written(*values: Any) -> str:
    """A cursor after a row with these values."""
    return encode(Position(values, True), LISTED, ["field"] * len(values))


def forged(content: Any) -> str:
    """A cursor with a right checksum."""
    raw = json.dumps(content).encode()
    return urlsafe_b64encode(_checksum(raw) + raw).decode()


@given(st.lists(VALUES, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_values_survive(values: list[Any], forward: bool, inclusive: bool) -> None:
    """A cursor gives back the values it was made of, with their types, the direction, and nothing else."""
    position = Position(tuple(values), forward, inclusive)
    text = encode(position, LISTED, ["field"] * len(values))
    found = decode(text, LISTED, len(values))
    assert found == position
    assert list(map(type, found.values)) == list(map(type, values))


@pytest.mark.parametrize(
    "value",
    [0.1, -0.0, math.inf, -math.inf, 5e-324, Decimal("1.50"), Decimal("-0"), Decimal("NaN"), 0, 0.0, "", b"", False,
     dt.datetime(2024, 1, 1, 2, 3, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))), "\0", "\udc80",
     dt.timedelta(microseconds=-1), UUID(int=1), dt.datetime.max, dt.date.min],
    ids=repr,
)  # fmt: skip
def test_exact_values(value: object) -> None:
    """Values whose text is easily another one, or which Python takes for nothing, survive to the last bit."""
    (found,) = decode(written(value), LISTED, 1).values
    assert repr(found) == repr(value)


def test_nan_survives() -> None:
    """PostgreSQL's NaN, which is larger than all numbers there, survives."""
    (found,) = decode(written(math.nan), LISTED, 1).values
    assert math.isnan(found)


@given(st.text(max_size=100) | st.binary(max_size=80).map(lambda raw: urlsafe_b64encode(raw).decode()))
def test_nonsense_is_refused(text: str) -> None:
    """Any text that is no cursor raises CursorRefused, and nothing else."""
    with pytest.raises(CursorRefused):
        decode(text, LISTED, 1)


@given(st.data())
def test_damage_is_noticed(data: st.DataObject) -> None:
    """A cursor with one character changed, cut or added is refused, or is what it was."""
    text = written(7, "ann")
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from(["", "A", "-", "_", "9", "=", " ", "AA"]))
    changed = text[:at] + put + text[at + 1 :]
    if _bytes(changed) == _bytes(text):  # base64 has spare bits at its end
        return
    with pytest.raises(CursorRefused):
        decode(changed, LISTED, 2)


def _bytes(text: str) -> bytes | None:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None


@pytest.mark.parametrize("cursor", [0, "", b"abc", 5, False, ["x"], {}, 1.5], ids=repr)
def test_no_text_is_refused(cursor: object) -> None:
    """What is no text, or empty, is refused: it does not stand for the first page."""
    with pytest.raises(CursorRefused, match="begin again without a cursor") as caught:
        decode(cursor, LISTED, 1)
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    "content",
    [None, [], {}, "x", [1, LISTED, 1, 0], [1, LISTED, 1, 0, [1, 2]], [1, LISTED, 2, 0, [1]], [1, LISTED, 1, "x", [1]],
     [1, LISTED, 1, 0, {"a": 1}], [1, LISTED, 1, 0, [1.5]], [1, LISTED, 1, 0, [{}]], [1, LISTED, 1, 0, [[]]],
     [1, LISTED, 1, 0, [["float", "x"]]], [1, LISTED, 1, 0, [["float", 5]]], [1, LISTED, 1, 0, [["code", "x"]]],
     [1, LISTED, 1, 0, [["decimal", "x"]]], [1, LISTED, 1, 0, [["us", "9" * 5000]]],
     [1, LISTED, 1, 0, [["us", "9" * 40]]],
     [1, LISTED, 1, 0, [["date", "2024-13-01"]]], [1, LISTED, 1, 0, [["bytes", "x"]]], [1, LISTED, 1, 0, [[[], "x"]]]],
    ids=repr,
)  # fmt: skip
def test_forgeries_are_refused(content: object) -> None:
    """A cursor that somebody made up, with a right checksum, is refused where it says nothing."""
    with pytest.raises(CursorRefused):
        decode(forged(content), LISTED, 1)


def test_deep_nesting_is_refused() -> None:
    """A cursor made to exhaust the stack is refused."""
    raw = b"[" * 10_000
    with pytest.raises(CursorRefused):
        decode(urlsafe_b64encode(_checksum(raw) + raw).decode(), LISTED, 1)


def test_another_list() -> None:
    """A cursor of another list is told apart from a damaged one."""
    with pytest.raises(CursorRefused, match="another list"):
        decode(written(7), digest("Thing", None), 1)


def test_another_version() -> None:
    """A cursor in the format of another release is refused, and says so."""
    with pytest.raises(CursorRefused, match="another version"):
        decode(forged([2, LISTED, 1, 0, [1]]), LISTED, 1)


def test_urls_take_it() -> None:
    """A cursor has only characters that stand for themselves in a URL."""
    assert set(written("é?&=/+ ", b"\xff" * 9)) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
    )


def test_size_has_a_limit() -> None:
    """A value that makes a cursor too long raises when it is written, and such a cursor when it is read."""
    with pytest.raises(OrderRefused, match="too long") as caught:
        encode(Position(("x" * MAX_CURSOR, 1), True), LISTED, ["text", "id"])
    assert caught.value.field == "text"
    with pytest.raises(CursorRefused, match="longer than"):
        decode("A" * (MAX_CURSOR + 1), LISTED, 1)


def test_values_without_a_form() -> None:
    """A value of a type that cursors cannot hold raises, and names the attribute."""
    with pytest.raises(OrderRefused, match="a list has no form in a cursor") as caught:
        encode(Position(([1],), True), LISTED, ["tags"])
    assert caught.value.field == "tags"

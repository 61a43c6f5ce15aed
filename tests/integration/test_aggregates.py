"""Aggregates: exact figures by groups, cached where counts are."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from fastrdb import InputError, OutOfRange, UnknownField, UnknownOperator, UsageError, ValueRefused
from tests.shop import Loose, Order, Shop


async def test_figures_of_all_rows(shop: Shop) -> None:
    """Without groups there is one dict; each function gives its exact value and type, cached, too."""
    functions: dict[str, Any] = {
        "n": "count", "rows": ("count", "*"), "rated": ("count", "stars"), "kinds": ("count_distinct", "stars"),
        "stars": ("sum", "stars"), "mean": ("avg", "stars"), "total": ("sum", "amount"), "price": ("avg", "amount"),
        "weight": ("sum", "weight"), "load": ("avg", "weight"), "first": ("min", "day"), "last": ("max", "status"),
        "dear": ("max", "amount"), "light": ("min", "weight"),
    }  # fmt: skip
    expected = {
        "n": 4, "rows": 4, "rated": 3, "kinds": 2, "stars": 11, "mean": 11 / 3, "total": Decimal("100.29"),
        "price": Decimal("33.43"), "weight": 2.0, "load": 1.0, "first": dt.date(2024, 1, 1), "last": "sent",
        "dear": Decimal("99.99"), "light": 0.5,
    }  # fmt: skip
    for redis in (None, shop.cache, shop.cache):
        (found,) = await shop.orders.aggregate(shop.db, redis, functions)
        assert found == expected
        assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in expected.items()}


async def test_figures_of_no_rows(shop: Shop) -> None:
    """Nothing has the number 0, and no sum, mean or largest; as groups there are none."""
    functions: dict[str, Any] = {
        "n": "count",
        "total": ("sum", "amount"),
        "mean": ("avg", "stars"),
        "p": ("avg", "amount"),
    }
    nothing = {"n": 0, "total": None, "mean": None, "p": None}
    assert await shop.orders.aggregate(**shop.given, functions=functions, id=99) == [nothing]
    assert await shop.orders.aggregate(**shop.given, functions=functions, group_by="status", id=99) == []


async def test_groups(shop: Shop) -> None:
    """A dict for each group, in the order of the groups, None last; filters, having, order and limit hold."""
    aggregate = shop.orders.aggregate
    functions: dict[str, Any] = {"n": "count", "total": ("sum", "amount")}
    open_, sent, lost = (
        {"status": "open", "n": 2, "total": Decimal("100.09")},
        {"status": "sent", "n": 1, "total": Decimal("0.20")},
        {"status": "lost", "n": 1, "total": None},
    )
    given: dict[str, Any] = {**shop.given, "functions": functions, "group_by": "status"}
    for _ in range(2):
        assert await aggregate(**given) == [lost, open_, sent]
        assert await aggregate(**given, order_by="total") == [sent, open_, lost]
        assert await aggregate(**given, order_by=["n", "total"], ascending=False) == [open_, sent, lost]
        assert await aggregate(**given, order_by="total", limit=1) == [sent]
        assert await aggregate(**given, having={"n": {">": 1}}) == [open_]
        assert await aggregate(**given, having={"total": "0.20"}) == [sent]
        assert await aggregate(**given, having={"total": None}) == [lost]
        assert await aggregate(**given, having={"n": {"or": [2, 3]}, "total": {"<": 1000}}) == [open_]
        assert await aggregate(**given, status=["sent", "lost"], having={"n": 1}) == [lost, sent]
        assert await aggregate(**given, **{"person.name": "Cid"}) == [lost]
        fives = await aggregate(**given, where=Order.stars == 5, having={"n": 1}, order_by="status", ascending=False)
        assert fives == [sent, {**open_, "n": 1, "total": Decimal("99.99")}]
    by_two = await aggregate(shop.db, shop.cache, {"n": ("count", "id")}, group_by=["person_id", "stars"])
    assert [tuple(each.values()) for each in by_two] == [(1, 1, 1), (1, 5, 1), (2, 5, 1), (3, None, 1)]
    by_expression = await aggregate(shop.db, shop.cache, {"n": "count"}, group_by="is_dear", having={"n": {">=": 1}})
    assert [(bool(each["is_dear"]), each["n"]) for each in by_expression] == [(False, 3), (True, 1)]


async def test_sums_and_means_of_decimals_are_exact(shop: Shop) -> None:
    """A thousand dimes are a hundred, to the cent, on each database; a mean has the digits of the division."""
    rows = [{"person_id": 4, "status": "dime", "amount": Decimal("0.10")} for _ in range(1_000)]
    async with shop.engine.begin() as connection:
        await connection.execute(Order.__table__.insert(), [*rows, {**rows[0], "amount": Decimal("1234567.89")}])
    functions: dict[str, Any] = {"total": ("sum", "amount"), "mean": ("avg", "amount")}
    (found,) = await shop.orders.aggregate(shop.db, None, functions, status="dime")
    assert found == {"total": Decimal("1234667.89"), "mean": Decimal("1234667.89") / 1001}
    kept = await shop.orders.aggregate(shop.db, None, functions, status="dime", having={"total": Decimal("1234667.89")})
    assert kept == [found]


async def test_figures_are_cached_until_a_write(shop: Shop) -> None:
    """A second call sends nothing; a write is seen at once, in a transaction by its own session."""
    read = lambda db: shop.orders.aggregate(db, shop.cache, {"n": "count", "total": ("sum", "amount")})  # noqa: E731
    assert await read(shop.db) == [{"n": 4, "total": Decimal("100.29")}]
    before = len(shop.sent)
    assert await read(shop.db) == [{"n": 4, "total": Decimal("100.29")}]
    assert len(shop.sent) == before
    await shop.orders.update(**shop.given, obj_in=Loose(amount=Decimal("1.00")), id=4)
    assert await read(shop.db) == [{"n": 4, "total": Decimal("101.29")}]
    async with shop.db() as session:
        await session.begin()
        await shop.orders.delete(session, shop.cache, id=4)
        assert await read(session) == [{"n": 3, "total": Decimal("100.29")}]
        await session.rollback()
        assert await read(shop.db) == [{"n": 4, "total": Decimal("101.29")}]
        await session.begin()
        await shop.orders.delete(session, shop.cache, id=4)
        await session.commit()
    assert await read(shop.db) == [{"n": 3, "total": Decimal("100.29")}]


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, UsageError, "functions"),
    ({"functions": {}}, UsageError, "functions"),
    ({"functions": {"n": ("median", "stars")}}, InputError, "count_distinct"),
    ({"functions": {"n": "sum"}}, InputError, "needs a field"),
    ({"functions": {"n": ("sum", "*")}}, InputError, "needs a field"),
    ({"functions": {"n": ("sum", "status")}}, InputError, "numbers"),
    ({"functions": {"n": ("avg", "day")}}, InputError, "numbers"),
    ({"functions": {"n": ("min", "notes")}}, InputError, "times"),
    ({"functions": {"n": ("count_distinct", "notes")}}, InputError, "JSON"),
    ({"functions": {"n": ("sum", "amout")}}, UnknownField, "did you mean 'amount'"),
    ({"functions": {"n": ("sum",)}}, InputError, "pass 'count'"),
    ({"functions": {"status": "count"}, "group_by": "status"}, InputError, "another one"),
    ({"functions": {"n": "count"}, "group_by": "state"}, UnknownField, "status"),
    ({"functions": {"n": "count"}, "group_by": "notes"}, InputError, "JSON"),
    ({"functions": {"n": "count"}, "having": {"m": 1}}, UnknownField, "valid: n"),
    ({"functions": {"n": "count"}, "having": {"n": "x"}}, ValueRefused, "n"),
    ({"functions": {"n": "count"}, "having": {"n": {"near": 1}}}, UnknownOperator, "between"),
    ({"functions": {"n": "count"}, "order_by": "m"}, UnknownField, "valid: n"),
    ({"functions": {"n": "count"}, "limit": 0}, OutOfRange, "limit"),
    ({"functions": {"n": "count"}, "state": 1}, UnknownField, "status"),
]


async def test_what_is_wrong_is_said(shop: Shop) -> None:
    """A function, field, group, condition or order that there is not, or a type has not, is refused unsent."""
    await shop.orders.count(**shop.given)
    before = len(shop.sent)
    for given, error, said in REFUSED:
        with pytest.raises(error) as raised:
            await shop.orders.aggregate(**shop.given, **given)
        assert said in str(raised.value), given
    assert shop.sent[before:] == []

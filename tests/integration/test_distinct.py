"""Distinct values of one attribute, cached where counts are."""

import datetime as dt
import enum
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Enum, LargeBinary, Numeric, String
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Cache, Crud, InputError, OutOfRange, UnknownField, UsageError
from tests.shop import Loose, Named, Order, OrderOut, Shop, crud_of


async def test_values_come_once_in_order(shop: Shop) -> None:
    """Each value once, NULL once and last, in either direction, of the rows that match."""
    distinct = shop.orders.distinct
    for _ in range(2):
        assert await distinct(**shop.given, field="status") == ["lost", "open", "sent"]
        assert await distinct(shop.db, shop.cache, "status", ascending=False) == ["sent", "open", "lost"]
        assert await distinct(shop.db, shop.cache, "stars") == [1, 5, None]
        assert await distinct(shop.db, shop.cache, "stars", ascending=False) == [5, 1, None]
        assert await distinct(shop.db, shop.cache, "stars", limit=1) == [1]
        assert await distinct(shop.db, shop.cache, "stars", status="open", person_id=2) == [5]
        assert await distinct(shop.db, shop.cache, "status", **{"person.name": "Ann Lee"}) == ["open", "sent"]
        assert await distinct(shop.db, shop.cache, "status", where=Order.stars > 1) == ["open", "sent"]
        assert await distinct(shop.db, shop.cache, "amount") == [*map(Decimal, ("0.10", "0.20", "99.99")), None]
        assert await distinct(shop.db, shop.cache, "day") == [dt.date(2024, 1, 1), dt.date(2024, 1, 2), None]
        assert [*map(bool, await distinct(shop.db, shop.cache, "is_dear"))] == [False, True]
        assert await shop.people.distinct(shop.db, shop.cache, "order_count") == [0, 1, 2]


async def test_values_are_cached_until_a_write(shop: Shop) -> None:
    """A second call sends nothing; a write of the table, or of one that the attribute reads, is seen at once."""
    read = lambda: shop.orders.distinct(shop.db, shop.cache, "status")  # noqa: E731
    counts = lambda: shop.people.distinct(shop.db, shop.cache, "order_count")  # noqa: E731
    assert (await read(), await counts()) == (["lost", "open", "sent"], [0, 1, 2])
    before = len(shop.sent)
    assert (await read(), await counts()) == (["lost", "open", "sent"], [0, 1, 2])
    assert len(shop.sent) == before
    await shop.orders.create(**shop.given, obj_in=Loose(person_id=1, status="new"))
    assert (await read(), await counts()) == (["lost", "new", "open", "sent"], [0, 1, 3])
    async with shop.db() as session:
        await session.begin()
        await shop.orders.update(session, shop.cache, Loose(status="old"), id=3)
        assert "old" in await shop.orders.distinct(session, shop.cache, "status"), "the writer sees its own"
        await session.rollback()
        assert await read() == ["lost", "new", "open", "sent"]
        await session.begin()
        await shop.orders.delete(session, shop.cache, id=4)
        await session.commit()
    assert await read() == ["new", "open", "sent"]


async def test_values_of_one_directory_age_with_it(shop: Shop) -> None:
    """Where the list template has columns, values lie below them, and need them given to be cached."""
    crud: Crud[Any, Loose, Loose, Any] = crud_of(Order, OrderOut, list_pattern="orders:{person_id}:{page}:{limit}")
    read = lambda person: crud.distinct(shop.db, shop.cache, "status", person_id=person)  # noqa: E731
    assert (await read(1), await read(2)) == (["open", "sent"], ["open"])
    await crud.update(**shop.given, obj_in=Loose(person_id=2), id=2)
    before = len(shop.sent)
    assert (await read(1), await read(2)) == (["open"], ["open", "sent"])
    assert len(shop.sent_since(before, "select")) == 2
    assert await crud.distinct(shop.db, shop.cache, "status") == ["lost", "open", "sent"]


async def test_what_is_wrong_is_said(shop: Shop) -> None:
    """No field, an unknown one, JSON and a limit below 1 are refused before anything is sent."""
    with pytest.raises(UsageError, match="field"):
        await shop.orders.distinct(shop.db, shop.cache)
    with pytest.raises(UnknownField, match="status"):
        await shop.orders.distinct(shop.db, shop.cache, "state")
    with pytest.raises(InputError, match="JSON"):
        await shop.orders.distinct(shop.db, shop.cache, "notes")
    for limit in (0, -1, True, "1"):
        with pytest.raises(OutOfRange, match="limit"):
            await shop.orders.distinct(shop.db, shop.cache, "status", limit=limit)  # type: ignore[arg-type]
    assert shop.sent == []


class Base(DeclarativeBase):
    """A table of every kind of value."""


class Colour(enum.Enum):
    """Stored by name."""

    RED = 1
    BLUE = 2


class Kinds(Base):
    """One column for each kind."""

    __tablename__ = "kinds"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(20))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 4))
    ratio: Mapped[float]
    flag: Mapped[bool]
    day: Mapped[dt.date]
    at: Mapped[dt.datetime]
    hour: Mapped[dt.time]
    key: Mapped[uuid.UUID]
    colour: Mapped[Colour]
    label: Mapped[str] = mapped_column(Enum("a", "b", name="labels"))
    raw: Mapped[bytes] = mapped_column(LargeBinary(20))


@asynccontextmanager
async def engine_of(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine of a database with the table."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield engine
    finally:
        await engine.dispose()


async def test_hits_equal_misses_for_every_kind_of_value(database_url: str) -> None:
    """What the cache gives back is equal to what SQL gave, of the same type, for each kind of column."""
    row = {
        "text": "a:\u20ac", "amount": Decimal("1.5000"), "ratio": 0.1, "flag": True, "day": dt.date(2024, 2, 29),
        "at": dt.datetime(2024, 2, 29, 12, 30), "hour": dt.time(12, 30), "key": uuid.UUID(int=7),
        "colour": Colour.BLUE, "label": "b", "raw": b"\x00\xff",
    }  # fmt: skip
    crud: Crud[Any, Loose, Loose, Any] = crud_of(Kinds, Named)
    async with engine_of(database_url) as engine, Cache.from_url("memory://") as cache:
        async with engine.begin() as connection:
            await connection.execute(Kinds.__table__.insert(), [row, {**row, "text": "b"}])
        db = async_sessionmaker(engine)
        for name, value in row.items():
            first = await crud.distinct(db, cache, name, text=row["text"])
            hits = cache.stats.hits
            again = await crud.distinct(db, cache, name, text=row["text"])
            assert (first, again, type(again[0])) == ([value], [value], type(value)), name
            assert cache.stats.hits == hits + 1, name

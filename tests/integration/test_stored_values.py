"""Values that a filter may ask for, and a column cannot hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import BatchRefused, Cache, Crud, ValueRefused


class Base(DeclarativeBase):
    """The table of this module."""


class Offer(Base):
    __tablename__ = "offers"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(sa.String(5), unique=True)
    price: Mapped[Decimal] = mapped_column(sa.Numeric(5, 2))
    meta: Mapped[Any | None] = mapped_column(sa.JSON)
    body: Mapped[Any] = mapped_column(sa.JSON)


class OfferIn(BaseModel):
    code: str = "a"
    price: Decimal = Decimal(1)
    meta: Any = None
    body: Any = 0


class Bare(BaseModel):
    body: Any = 0


class OfferChange(BaseModel):
    code: str | None = None
    price: Decimal | None = None
    meta: Any = None


class OfferOut(BaseModel):
    code: str
    price: Decimal
    meta: Any


offers = Crud[Offer, OfferIn, OfferChange, OfferOut](Offer, OfferOut, "offer:{code}", "offers:{page}:{limit}")
PLAIN = {"code": "a", "price": 1}
Write = Callable[[dict[str, Any], dict[str, Any]], Awaitable[Any]]

ONE: dict[str, Write] = {
    "create": lambda given, new: offers.create(**given, obj_in=OfferIn(**new)),
    "create by a keyword": lambda given, new: offers.create(**given, obj_in=Bare(), **{**PLAIN, **new}),
    "update": lambda given, new: offers.update(**given, obj_in=OfferChange(**new), code="there"),
    "update_where": lambda given, new: offers.update_where(**given, obj_in=OfferChange(**new), code="there"),
    "upsert": lambda given, new: offers.upsert(
        **given, obj_in=OfferIn(**{"code": "there", **new}), conflict_fields=["code"]
    ),
}
MANY: dict[str, Write] = {
    "create_multi": lambda given, new: offers.create_multi(**given, instances=[OfferIn(code="b"), OfferIn(**new)]),
    "update_multi": lambda given, new: offers.update_multi(**given, items=[(1, OfferChange(**new))]),
    "upsert_multi": lambda given, new: offers.upsert_multi(
        **given, instances=[OfferIn(), OfferIn(**{"code": "there", **new})], conflict_fields=["code"]
    ),
}


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """Every database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def db(url: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """A factory of the database, with one offer."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        factory = async_sessionmaker(engine)
        await offers.create(db=factory, redis=None, obj_in=OfferIn(code="there", price=Decimal("999.99")))
        yield factory
    finally:
        await engine.dispose()


@pytest.fixture
async def given(db: Any) -> AsyncIterator[dict[str, Any]]:
    """What every call needs."""
    async with Cache.from_url("memory://") as cache:
        yield {"db": db, "redis": cache}


@pytest.mark.parametrize("new", [{"code": "longer"}, {"price": Decimal(1000)}, {"price": Decimal("-999.995")}])
async def test_what_a_column_cannot_hold_is_not_written(given: dict[str, Any], new: dict[str, Any]) -> None:
    """A text that is too long and a number with too many digits are refused on every database, by every write."""
    (field,) = new
    for write in ONE.values():
        with pytest.raises(ValueRefused, match=f"'{field}' takes .* at most"):
            await write(given, new)
    for name, write in MANY.items():
        with pytest.raises(BatchRefused, match=f"'{field}' takes .* at most") as caught:
            await write(given, new)
        assert caught.value.indexes == (0 if name == "update_multi" else 1,)
    assert [(each.code, each.price) for each in await offers.get_multi(**given)] == [("there", Decimal("999.99"))]


async def test_a_filter_may_ask_for_more_than_a_column_holds(given: dict[str, Any]) -> None:
    """A longer text and a larger number are looked for, and not found."""
    assert await offers.get_or_none(**given, code="there, or longer") is None
    assert await offers.count(**given, price={">": 1000}) == 0
    assert await offers.count(**given, price={"<": 1000}) == 1

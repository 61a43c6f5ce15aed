"""Values that a filter may ask for, and a column cannot hold; and those that JSON has in another form, or not."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

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


class Terms(BaseModel):
    until: dt.date
    rate: Decimal
    by: UUID
    days: dict[dt.date, int] = {}


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


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """A factory of the database, with one offer."""
    engine = create_async_engine(database_url)
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


@pytest.mark.parametrize("write", [*ONE, *MANY])
async def test_json_is_written_as_pydantic_writes_it(given: dict[str, Any], write: str) -> None:
    """A date, a Decimal and a UUID in JSON, and in its keys, are stored in the form of pydantic's JSON mode."""
    terms = Terms(until=dt.date(2026, 1, 2), rate=Decimal("1.50"), by=UUID(int=1), days={dt.date(2026, 1, 2): 1})
    await (ONE | MANY)[write](given, {"meta": {"terms": terms, "also": [dt.date(2026, 1, 2)]}})
    (found,) = [each.meta for each in await offers.get_multi(**given) if each.meta]
    assert found == {"terms": terms.model_dump(mode="json"), "also": ["2026-01-02"]}


@pytest.mark.parametrize("new", [float("nan"), {"a": [float("inf")]}, object(), {"when": object()}])
async def test_what_has_no_form_in_json_is_refused(given: dict[str, Any], new: Any) -> None:
    """NaN and objects that pydantic cannot write are refused with the field's name, before anything is sent."""
    for write in ONE.values():
        with pytest.raises(ValueRefused, match="'meta' takes JSON"):
            await write(given, {"meta": new})
    for write in MANY.values():
        with pytest.raises(BatchRefused, match="'meta' takes JSON"):
            await write(given, {"meta": new})


@pytest.mark.parametrize("write", [*ONE, *MANY])
async def test_none_in_json_is_null(given: dict[str, Any], write: str) -> None:
    """``None`` is written as SQL's NULL into JSON, so that a filter with ``None`` finds it."""
    await offers.update(**given, obj_in=OfferChange(meta=1), code="there")
    await (ONE | MANY)[write](given, {"meta": None})
    assert await offers.count(**given, meta={"is_not": None}) == (1 if write.startswith("create") else 0)
    assert await offers.count(**given, meta=None) == {"create_multi": 2, "upsert_multi": 2}.get(write, 1)


async def test_a_patch_compares_what_is_stored(given: dict[str, Any]) -> None:
    """``patch`` leaves JSON alone that is NULL, or has the given form, already."""
    for meta, changes in (
        (None, False),
        ({"on": dt.date(2026, 1, 2)}, True),
        ({"on": "2026-01-02"}, False),
        (None, True),
    ):
        patched = await offers.patch(**given, obj_in=OfferChange(meta=meta), code="there")
        assert bool(patched.changed) is changes, meta
    assert await offers.count(**given, meta=None) == 1


async def test_none_in_json_is_null_where_rows_are_copied(given: dict[str, Any]) -> None:
    """Rows that need not come back, and so go by COPY where there is one, have SQL's NULL, too."""
    rows = [OfferIn(code=str(at), meta=dt.date(2026, 1, 2) if at else None) for at in range(300)]
    assert await offers.create_multi(**given, instances=rows, returning=False) == 300
    assert await offers.count(**given, meta=None) == 2
    assert (await offers.get(**given, code="299")).meta == "2026-01-02"


async def test_none_in_json_that_is_never_null_is_its_own_null(given: dict[str, Any]) -> None:
    """A JSON column that does not take NULL takes ``None`` as JSON's own null."""
    await offers.create(**given, obj_in=OfferIn(code="b", body=None))
    assert await offers.count(**given, body={"is_not": None}) == 2

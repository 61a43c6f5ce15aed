"""Shops and their goods, cruds whose values are cached, and a factory of sessions that is watched."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Column, ForeignKey, String, Table, event, insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastrdb import Cache, Crud, watch


class Base(DeclarativeBase):
    """Shops, their goods, and the labels on these."""


LABELLED = Table(
    "labelled",
    Base.metadata,
    Column("ware_id", ForeignKey("wares.id", ondelete="CASCADE"), primary_key=True),
    Column("label_id", ForeignKey("labels.id", ondelete="CASCADE"), primary_key=True),
)


class Shop(Base):
    """Goods go with it."""

    __tablename__ = "shops"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(10), unique=True)
    name: Mapped[str] = mapped_column(String(20), default="shop")
    wares: Mapped[list["Ware"]] = relationship(back_populates="shop", cascade="all, delete-orphan")


class Ware(Base):
    """In a shop."""

    __tablename__ = "wares"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop_id: Mapped[int] = mapped_column(ForeignKey("shops.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(20))
    shop: Mapped[Shop] = relationship(back_populates="wares")
    labels: Mapped[list["Label"]] = relationship(secondary=LABELLED)


class Label(Base):
    """On goods."""

    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(20))


class Loose(BaseModel):
    """Any columns: what is written."""

    model_config = ConfigDict(extra="allow")


class ShopOut(BaseModel):
    """A shop."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    code: str
    name: str


class WareOut(BaseModel):
    """A ware."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    shop_id: int
    name: str


class Market(NamedTuple):
    """Two shops with two wares in the first, and cruds whose values are cached."""

    engine: AsyncEngine
    plain: async_sessionmaker[AsyncSession]
    factory: async_sessionmaker[AsyncSession]
    cache: Cache
    shops: Any
    wares: Any
    sent: list[str]

    async def ware(self, id: int) -> str | None:
        """Its name, as a reader gets it."""
        found = await self.wares.get_or_none(self.plain, self.cache, id=id)
        return found and str(found.name)

    async def listed(self, shop_id: int) -> list[str]:
        """The names of a shop's wares, as a reader gets them; their number is right, too."""
        found = await self.wares.get_multi(self.plain, self.cache, shop_id=shop_id)
        assert await self.wares.count(self.plain, self.cache, shop_id=shop_id) == len(found)
        return [each.name for each in found]

    async def shop(self, code: str) -> str | None:
        """Its name, by its code."""
        found = await self.shops.get_or_none(self.plain, self.cache, code=code)
        return found and str(found.name)

    async def warm(self) -> None:
        """Cache all of it, and be sure."""
        for _ in range(2):
            for id in (1, 2, 3):
                await self.ware(id)
            for id in (1, 2):
                await self.listed(id)
            for code in ("red", "blue", "green"):
                await self.shop(code)

    async def is_hit(self, read: Any) -> bool:
        """Whether a read needs no SQL."""
        before = len(self.sent)
        await read
        return len(self.sent) == before


@asynccontextmanager
async def market_in(database_url: str, valkey_url: str) -> AsyncIterator[Market]:
    """Give a market whose second factory is watched."""
    engine = create_async_engine(database_url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(insert(Shop), [{"code": "red", "name": "Red"}, {"code": "blue", "name": "Blue"}])
            await connection.execute(insert(Ware), [{"shop_id": 1, "name": "apple"}, {"shop_id": 1, "name": "pear"}])
        sent: list[str] = []
        async with Cache.from_url(valkey_url) as cache:
            factory = async_sessionmaker(engine, expire_on_commit=False)
            watch(factory, cache, Base.metadata)
            shops = Crud[Shop, Loose, Loose, ShopOut](Shop, ShopOut, pattern=("shop:{id}", "shop:code:{code}"))
            wares = Crud[Ware, Loose, Loose, WareOut](
                Ware, WareOut, pattern="ware:{id}", list_pattern="wares:{shop_id}:page:{page}:limit:{limit}"
            )
            found = Market(engine, async_sessionmaker(engine), factory, cache, shops, wares, sent)
            await found.warm()
            event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
            yield found
    finally:
        await engine.dispose()

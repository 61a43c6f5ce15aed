"""Flushes of watched sessions: what is sent around one and within it, and rows that the session never saw so."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import String, event, func, insert, update
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, object_session

from fastrdb import Cache, Crud, watch
from tests.market import Loose, Market, Shop, Ware


class Papers(DeclarativeBase):
    """Papers."""


class Paper(Papers):
    """Each flush counts its version."""

    __tablename__ = "papers"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    name: Mapped[str] = mapped_column(String(20))
    __mapper_args__ = {"version_id_col": version}


class PaperOut(BaseModel):
    """A paper."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    version: int
    name: str


@pytest.mark.parametrize("how", ["expunged", "refused"])
async def test_a_flush_that_wrote_nothing_says_nothing(market: Market, how: str) -> None:
    """After a flush that a listener emptied or stopped, a statement drops its table."""
    added = Ware(id=3, shop_id=1, name="plum")

    def listen(session: Session, *_: object) -> None:
        if how == "refused":
            raise ValueError(how)
        session.expunge(added)

    async with market.factory() as session:
        session.add(added)
        event.listen(session.sync_session, "before_flush", listen)
        if how == "refused":
            with pytest.raises(ValueError, match=how):
                await session.flush()
            session.expunge(added)
        else:
            await session.flush()
        await session.execute(update(Ware).values(name="quince"))
        await session.commit()
    assert await market.ware(1) == "quince"


@pytest.mark.parametrize("where", ["before_flush", "after_update"])
async def test_what_a_listener_sends_drops_its_table(market: Market, where: str) -> None:
    """A statement that a listener sends is no row of the flush, even of the same table: all of that is dropped."""
    statement = update(Ware).where(Ware.id == 2).values(name="melon")

    def of_session(session: Session, *_: object) -> None:
        session.execute(statement, execution_options={"synchronize_session": False})

    def of_mapper(mapper: Any, connection: Any, target: Any) -> None:
        connection.execute(statement)

    async with market.factory() as session:
        (await session.get_one(Ware, 1)).name = "quince"
        target, listener = (Ware, of_mapper) if where == "after_update" else (session.sync_session, of_session)
        event.listen(target, where, listener)
        try:
            await session.commit()
        finally:
            event.remove(target, where, listener)
    assert await market.listed(1) == ["quince", "melon"]
    assert (await market.ware(1), await market.ware(2)) == ("quince", "melon")


async def test_a_savepoint_within_a_flush(market: Market) -> None:
    """A savepoint that a listener rolls back within a flush leaves it what the flush has sent before."""
    async with market.factory() as session:
        ware = await session.get_one(Ware, 1)
        ware.name = "quince"
        event.listen(Ware, "after_update", roll_back_to_savepoint)
        try:
            await session.commit()
        finally:
            event.remove(Ware, "after_update", roll_back_to_savepoint)
    assert await market.ware(1) == "quince"


def roll_back_to_savepoint(mapper: Any, connection: Any, target: Any) -> None:
    """Begin a savepoint, and take it back."""
    session = object_session(target)
    assert session is not None
    session.begin_nested().rollback()


@pytest.mark.parametrize("column", ["code", "shop_id"])
async def test_a_value_in_sql_leaves_the_old_key(market: Market, column: str) -> None:
    """An attribute set to an SQL expression moves its row, whose old value the session forgets, out of its key."""
    async with market.factory.begin() as session:
        if column == "code":
            (await session.get_one(Shop, 1)).code = func.upper(Shop.code)
        else:
            (await session.get_one(Ware, 1)).shop_id = Ware.shop_id + 1
    if column == "code":
        found = await market.shops.get_or_none(market.plain, market.cache, code="red")  # MariaDB ignores the case
        assert found is None or found.code == "RED"
    else:
        assert (await market.listed(1), await market.listed(2)) == (["pear"], ["apple"])


async def test_a_row_that_a_new_object_takes_over(market: Market) -> None:
    """An object deleted and another added with its key are one UPDATE: the row leaves its list, and its old key."""
    async with market.factory.begin() as session:
        for old in (await session.get_one(Ware, 1), await session.get_one(Shop, 2)):
            await session.delete(old)
        session.add_all([Ware(id=1, shop_id=2, name="quince"), Shop(id=2, code="green", name="Green")])
    assert (await market.ware(1), await market.listed(1), await market.listed(2)) == ("quince", ["pear"], ["quince"])
    assert (await market.shop("blue"), await market.shop("green")) == (None, "Green")


async def test_a_version_that_the_session_counts(database_url: str, valkey_url: str) -> None:
    """A row whose key holds the version that a flush counts up is not found under the version before."""
    engine = create_async_engine(database_url)
    papers = Crud[Paper, Loose, Loose, PaperOut](Paper, PaperOut, pattern="paper:{id}:{version}")
    factory = async_sessionmaker(engine)
    async with engine.begin() as connection:
        await connection.run_sync(Papers.metadata.create_all)
        await connection.execute(insert(Paper), [{"id": 1, "version": 1, "name": "draft"}])
    async with Cache.from_url(valkey_url) as cache:
        watch(factory, cache)
        for _ in range(2):
            assert (await papers.get(factory, cache, id=1, version=1)).name == "draft"
        async with factory.begin() as session:
            (await session.get_one(Paper, 1)).name = "final"
        assert await papers.get_or_none(factory, cache, id=1, version=1) is None
        assert (await papers.get(factory, cache, id=1, version=2)).name == "final"
    await engine.dispose()

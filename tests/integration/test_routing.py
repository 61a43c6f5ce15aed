"""Routed sessions: what goes to a replica, what to the primary, and for how long."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import String, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fastrdb import Cache, Crud
from fastrdb.db import (
    DatabaseDependencies,
    create_async_engine,
    create_async_sessionmaker,
    create_routing_sessionmaker,
    read_only_sessionmaker,
)
from fastrdb.errors import ConfigurationError, SettingRefused
from tests.servers.postgres import PostgresServer


class Base(DeclarativeBase):
    """The models of these tests."""


class Place(Base):
    """A row that says in which database it lies."""

    __tablename__ = "places"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))


class PlaceOut(BaseModel):
    """What is read of a place."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


class PlaceIn(BaseModel):
    """What is written of a place."""

    name: str


class Pair(NamedTuple):
    """A primary and a replica that lags for ever."""

    primary: AsyncEngine
    replica: AsyncEngine

    def sessions(self, **options: Any) -> async_sessionmaker[AsyncSession]:
        """Routed sessions on both."""
        return create_routing_sessionmaker(self.primary, [self.replica], **options)


@pytest.fixture(params=["postgresql", "sqlite"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    """Two databases whose one row says which it is."""
    if request.param == "sqlite":
        pairs = Pair(*(create_async_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("primary", "replica")))
        async with prepared(pairs):
            yield pairs
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as primary, server.database() as replica:
        pairs = Pair(create_async_engine(primary), create_async_engine(replica))
        async with prepared(pairs):
            yield pairs


class prepared:
    """Create the tables of a pair, and dispose of its engines at the end."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    async def __aenter__(self) -> None:
        for name, engine in self.pair._asdict().items():
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
                await connection.execute(insert(Place).values(id=1, name=name))

    async def __aexit__(self, *exc: object) -> None:
        for engine in self.pair:
            await engine.dispose()


WHERE = select(Place.name).where(Place.id == 1)


async def in_its_own_context(work: Coroutine[Any, Any, Any]) -> Any:
    """Run work as a request would: in a context that nobody else has."""
    return await asyncio.create_task(work, context=contextvars.Context())


async def place_of_read(sessions: async_sessionmaker[AsyncSession]) -> str | None:
    """Where a plain SELECT of a session of its own ends up."""
    async with sessions() as session:
        return await session.scalar(WHERE)


async def test_reads_go_to_a_replica_until_a_write(pair: Pair) -> None:
    """SELECTs ask the replica; after the first write of a session they ask the primary, after its COMMIT as well."""
    async with pair.sessions()() as session:
        assert await session.scalar(WHERE) == "replica"
        assert (await session.get_one(Place, 1)).name == "replica"
        session.add(Place(id=2, name="new"))
        await session.flush()
        assert await session.scalar(WHERE) == "primary"
        await session.commit()
        assert await session.scalar(WHERE) == "primary"
    async with AsyncSession(pair.primary) as session:
        assert (await session.get_one(Place, 2)).name == "new"
    async with AsyncSession(pair.replica) as session:
        assert await session.get(Place, 2) is None


@pytest.mark.parametrize(
    "statement",
    [
        update(Place).values(name=Place.name),
        insert(Place).values(id=7, name="x"),
        text("SELECT name FROM places"),
        select(Place).with_for_update(),
        select(select(Place).with_for_update().subquery()),
        select(func.abs(1)),
    ],
    ids=["update", "insert", "text", "for update", "for update within", "no table"],
)
async def test_anything_else_goes_to_the_primary(pair: Pair, statement: Any) -> None:
    """What is no plain SELECT of tables is sent to the primary, and takes the session there."""
    async with pair.sessions()() as session:
        await session.execute(statement)
        assert await session.scalar(WHERE) == "primary"


async def test_writing_cte_goes_to_the_primary(postgres: PostgresServer) -> None:
    """A SELECT from an INSERT … RETURNING is a write."""
    with postgres.database() as primary, postgres.database() as replica:
        pair = Pair(create_async_engine(primary), create_async_engine(replica))
        async with prepared(pair), pair.sessions()() as session:
            written = insert(Place).values(id=9, name="cte").returning(Place.id).cte()
            assert await session.scalar(select(written.c.id)) == 9
            assert (await session.get_one(Place, 9)).name == "cte"


async def test_connection_of_a_session_is_the_primarys(pair: Pair) -> None:
    """Who asks for a connection may write with it."""
    async with pair.sessions()() as session:
        assert (await session.connection()).engine.url == pair.primary.url


async def test_context_reads_its_own_writes(pair: Pair) -> None:
    """For ``read_your_writes_s`` after a COMMIT the same context reads the primary, and another one a replica."""
    sessions = pair.sessions(read_your_writes_s=3600)

    async def request() -> tuple[str | None, str | None, str | None]:
        before = await place_of_read(sessions)
        async with sessions.begin() as session:
            session.add(Place(id=3, name="new"))
        return before, await place_of_read(sessions), await asyncio.create_task(place_of_read(sessions))

    assert await in_its_own_context(request()) == ("replica", "primary", "primary")
    assert await in_its_own_context(place_of_read(sessions)) == "replica"


async def test_rolled_back_write_leaves_no_trace(pair: Pair) -> None:
    """A context whose write was rolled back, or that has no time to wait for, reads the replica."""
    for sessions, commits in ((pair.sessions(read_your_writes_s=3600), False), (pair.sessions(), True)):

        async def request(sessions: async_sessionmaker[AsyncSession], commits: bool) -> str | None:
            async with sessions() as session:
                session.add(Place(id=4, name="new"))
                await session.flush()
                await (session.commit() if commits else session.rollback())
            return await place_of_read(sessions)

        assert await in_its_own_context(request(sessions, commits)) == "replica"


async def test_dependencies_of_routed_sessions(pair: Pair) -> None:
    """A read dependency asks the replica and cannot write anywhere; a write dependency asks the primary."""
    dependencies = DatabaseDependencies(pair.sessions())
    async with dependencies.get_read_session() as session:
        assert await session.scalar(WHERE) == "replica"
        with pytest.raises(DBAPIError, match=r"read-only|readonly"):
            await session.execute(update(Place).values(name="lost"))
    async with dependencies.get_db() as session:
        assert await session.scalar(WHERE) == "replica"
    async with dependencies.get_write_session() as session:
        assert await session.scalar(WHERE) == "primary"


async def test_read_source_of_dependencies(pair: Pair) -> None:
    """Dependencies with a factory for readers of its own read there, and write to the other."""
    replica = create_async_sessionmaker(pair.replica)
    dependencies = DatabaseDependencies(create_async_sessionmaker(pair.primary), replica)
    async with dependencies.get_read_session() as reader, dependencies.get_db() as writer:
        assert (await reader.scalar(WHERE), await writer.scalar(WHERE)) == ("replica", "primary")


async def test_crud_with_routed_sessions_is_never_stale(pair: Pair, valkey_url: str) -> None:
    """A crud reads and fills from the primary, by factory and by session, and a replica never fills the cache."""
    sessions = pair.sessions()
    async with Cache.from_url(valkey_url) as cache:
        crud = Crud[Place, PlaceIn, PlaceIn, PlaceOut](Place, PlaceOut, pattern="place:{id}")
        assert (await crud.get(db=sessions, redis=cache, id=1)).name == "primary"
        assert (await crud.explain(cache, sessions, id=1)).state == "hit"
        async with sessions() as session:
            assert await session.scalar(WHERE) == "replica"
            assert (await crud.get(db=session, redis=None, id=1)).name == "primary"
            await crud.update(db=session, redis=cache, obj_in=PlaceIn(name="changed"), id=1)
            assert await session.scalar(WHERE) == "changed"
        assert (await crud.get(db=sessions, redis=cache, id=1)).name == "changed"
        readers = read_only_sessionmaker(sessions)
        assert (await crud.get(db=readers, redis=cache, id=1)).name == "changed"
        assert (await crud.get(db=readers, redis=None, id=1)).name == "changed"


async def test_context_reads_what_its_crud_wrote(pair: Pair, valkey_url: str) -> None:
    """A write of a crud keeps its context at the primary, as one of a session does."""
    sessions = pair.sessions(read_your_writes_s=3600)
    crud = Crud[Place, PlaceIn, PlaceIn, PlaceOut](Place, PlaceOut, pattern="place:{id}")

    async def request() -> tuple[str | None, str | None]:
        async with Cache.from_url(valkey_url) as cache:
            before = await place_of_read(sessions)
            await crud.update(db=sessions, redis=cache, obj_in=PlaceIn(name="changed"), id=1)
            return before, await place_of_read(sessions)

    assert await in_its_own_context(request()) == ("replica", "changed")


async def test_wrong_routing_is_refused(pair: Pair) -> None:
    """No replicas, or a negative time, is refused, and so is limiting a session class that nobody here knows."""
    with pytest.raises(SettingRefused, match="replicas"):
        create_routing_sessionmaker(pair.primary, [])
    with pytest.raises(SettingRefused, match="read_your_writes_s"):
        pair.sessions(read_your_writes_s=-1)

    class Own(Session):
        def get_bind(self, *args: Any, **kwargs: Any) -> Any:
            return pair.primary.sync_engine

    with pytest.raises(ConfigurationError, match="Own chooses its engine itself"):
        read_only_sessionmaker(async_sessionmaker(sync_session_class=Own))

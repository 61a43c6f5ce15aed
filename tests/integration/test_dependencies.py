"""Sessions and clients for requests: ``Depends`` and ``async with`` over the same object."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from httpx import ASGITransport, AsyncClient
from redis.asyncio import Redis
from sqlalchemy import Engine, event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastrdb import SessionRefused
from fastrdb.db import Dependency, async_get_db, get_redis


class Base(DeclarativeBase):
    """The models of these tests."""


class Note(Base):
    """A row to lose or to keep."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@pytest.fixture
async def engine(sqlite_url: str) -> AsyncIterator[AsyncEngine]:
    """A SQLite file with an empty table of notes."""
    engine = create_async_engine(sqlite_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
def factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Makes sessions on it."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def rows(factory: async_sessionmaker[AsyncSession]) -> int:
    """How many notes a session of its own sees."""
    async with factory() as session:
        return (await session.execute(select(func.count()).select_from(Note))).scalar_one()


def sent_to(engine: AsyncEngine) -> list[str]:
    """A list that grows by each statement, COMMIT and ROLLBACK of the engine."""
    sent: list[str] = []
    sync: Engine = engine.sync_engine
    event.listen(sync, "before_cursor_execute", lambda *args: sent.append(args[2].split()[0]))
    event.listen(sync, "commit", lambda _: sent.append("COMMIT"))
    event.listen(sync, "rollback", lambda _: sent.append("ROLLBACK"))
    return sent


def app_with(get_db: Dependency[AsyncSession]) -> FastAPI:
    """An app that adds notes, and fails on demand."""
    app = FastAPI()

    @app.post("/notes/{text}")
    async def add(text: str, db: Annotated[AsyncSession, Depends(get_db)]) -> str:
        db.add(Note(text=text))
        if text == "bad":
            await db.flush()
            raise HTTPException(409)
        return text

    @app.get("/same")
    async def same(
        first: Annotated[AsyncSession, Depends(get_db)], second: Annotated[AsyncSession, Depends(get_db)]
    ) -> bool:
        return first is second

    return app


def talking_to(app: FastAPI) -> AsyncClient:
    """A client of an app in this process."""
    return AsyncClient(transport=ASGITransport(app), base_url="http://app")


async def test_row_added_in_a_handler_is_committed(factory: async_sessionmaker[AsyncSession]) -> None:
    """What a handler adds to its session is in the database when the request is over."""
    async with talking_to(app_with(async_get_db(factory))) as client:
        assert (await client.post("/notes/good")).json() == "good"
    assert await rows(factory) == 1


async def test_failed_handler_leaves_nothing(factory: async_sessionmaker[AsyncSession]) -> None:
    """What a handler flushed before it raised is rolled back."""
    async with talking_to(app_with(async_get_db(factory))) as client:
        assert (await client.post("/notes/bad")).status_code == 409
    assert await rows(factory) == 0


async def test_fastapi_sees_no_parameters(factory: async_sessionmaker[AsyncSession]) -> None:
    """A dependency asks nothing of the request, and one request has one session."""
    app = app_with(async_get_db(factory))
    operation: dict[str, Any] = app.openapi()["paths"]["/same"]["get"]
    assert "parameters" not in operation
    assert "requestBody" not in operation
    async with talking_to(app) as client:
        assert (await client.get("/same")).json() is True


async def test_block_commits_at_its_end(factory: async_sessionmaker[AsyncSession], engine: AsyncEngine) -> None:
    """``async with`` gives the session, sends nothing before it is used, and commits once, at the end."""
    get_db, sent = async_get_db(factory), sent_to(engine)
    async with get_db() as session:
        assert not session.in_transaction()
        assert sent == []
        session.add(Note(text="good"))
    assert sent == ["INSERT", "COMMIT"]
    assert not session.in_transaction()


async def test_failed_block_rolls_back(factory: async_sessionmaker[AsyncSession], engine: AsyncEngine) -> None:
    """An exception leaves the block as it is, and takes the work with it."""
    sent = sent_to(engine)

    async def fail() -> None:
        async with async_get_db(factory)() as session:
            session.add(Note(text="bad"))
            await session.flush()
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fail()
    assert sent == ["INSERT", "ROLLBACK"]
    assert await rows(factory) == 0


async def test_cancelled_block_gives_its_connection_back(
    factory: async_sessionmaker[AsyncSession], engine: AsyncEngine
) -> None:
    """A block that is cancelled rolls back, and the pool gets the connection."""
    inside = asyncio.Event()

    async def wait_for_ever() -> None:
        async with async_get_db(factory)() as session:
            session.add(Note(text="bad"))
            await session.flush()
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait_for_ever())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool
    assert await rows(factory) == 0


async def test_what_gives_no_session_is_refused(engine: AsyncEngine) -> None:
    """A session, an engine or a sync factory is refused with what to pass instead."""
    with pytest.raises(SessionRefused, match="async_sessionmaker"):
        async_get_db(engine)  # type: ignore[arg-type]  # the mistake that is tried
    get_db = async_get_db(sessionmaker(class_=Session))  # type: ignore[arg-type]  # the mistake that is tried
    with pytest.raises(SessionRefused, match="sync Session"):
        async with get_db():
            pass


async def test_shared_client_stays_open(valkey_url: str) -> None:
    """A client that a request or a block got still works after it."""
    client: Redis = Redis.from_url(valkey_url)
    get_client = get_redis(client)
    app = FastAPI()

    @app.get("/ping")
    async def ping(redis: Annotated[Any, Depends(get_client)]) -> bool:
        return redis is client and bool(await redis.ping())

    identity = await client.client_id()
    async with talking_to(app) as http, get_client() as redis:
        assert redis is client
        assert (await http.get("/ping")).json() is True
    assert await client.client_id() == identity  # the same connection: nobody closed it
    await client.aclose()

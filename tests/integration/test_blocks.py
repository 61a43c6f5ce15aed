"""Sessions of blocks, handlers and managers: what is kept, what is refused, and what is left behind."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import ForeignKey, String, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb.db import (
    DatabaseDependencies,
    DatabaseManager,
    Dependency,
    TransactionManager,
    configure,
    configure_database_dependencies,
    create_async_engine,
    create_async_sessionmaker,
    create_custom_session_dependency,
    defaults,
    get_database_dependencies,
    get_db,
    get_read_session,
    get_write_session,
    pool_status,
    with_async_session,
)
from fastrdb.errors import DatabaseDependencyError, DatabaseUnavailable, NotStarted, SessionRefused, TransactionError
from tests.integration.test_dependencies import talking_to
from tests.world import until

SECRET = "hunter2"


class Base(DeclarativeBase):
    """The models of these tests."""


class Note(Base):
    """A row to lose or to keep."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(100))
    about: Mapped[int | None] = mapped_column(ForeignKey("notes.id"))


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """One connection to a database with an empty table, once PostgreSQL and once SQLite."""
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=20)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool
    await defaults.reset()
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Makes sessions on it."""
    return create_async_sessionmaker(engine)


async def notes(engine: AsyncEngine) -> list[str]:
    """The texts that are committed."""
    async with engine.connect() as connection:
        return list(await connection.scalars(select(Note.text).order_by(Note.id)))


async def fail_in(block: Any, flush: bool = True) -> None:
    """Add a note in a session, and raise."""
    async with block as session:
        session.add(Note(text="lost"))
        if flush:
            await session.flush()
        raise LookupError("mine")


async def test_block_commits_and_rolls_back(sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine) -> None:
    """What a block wrote is there after it, unless it raised."""
    async with with_async_session(sessions) as session:
        session.add(Note(text="kept"))
    for auto_rollback in (True, False):
        with pytest.raises(LookupError, match="mine"):
            await fail_in(with_async_session(sessions, auto_rollback=auto_rollback))
    assert await notes(engine) == ["kept"]


async def test_block_without_auto_commit_keeps_what_it_commits(
    sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine
) -> None:
    """Without ``auto_commit`` a block keeps what it committed itself, and nothing else."""
    async with with_async_session(sessions, auto_commit=False) as session:
        session.add(Note(text="kept"))
        await session.commit()
        session.add(Note(text="lost"))
        await session.flush()
    assert await notes(engine) == ["kept"]


async def test_cancelled_block_leaves_nothing(sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine) -> None:
    """A block that is cancelled gives its only connection back, clean."""
    inside = asyncio.Event()

    async def wait() -> None:
        async with with_async_session(sessions) as session:
            session.add(Note(text="lost"))
            await session.flush()
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await notes(engine) == []


async def test_dm_3_get_db_in_both_ways(sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine) -> None:
    """``get_db`` and its like work with ``Depends`` and with ``async with``."""
    configure_database_dependencies(sessions)
    app = FastAPI()

    @app.post("/notes/{words}")
    async def add(words: str, db: Annotated[AsyncSession, Depends(get_db)]) -> str:
        db.add(Note(text=words))
        return words

    @app.get("/notes")
    async def list_notes(db: Annotated[AsyncSession, Depends(get_read_session)]) -> list[str]:
        return list(await db.scalars(select(Note.text)))

    async with talking_to(app) as client:
        assert (await client.post("/notes/one")).json() == "one"
        async with get_db() as session:
            session.add(Note(text="two"))
        assert (await client.get("/notes")).json() == ["one", "two"]
    assert await notes(engine) == ["one", "two"]


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("dependency", [get_db, get_write_session], ids=["get_db", "get_write_session"])
async def test_dm_4_rows_are_not_lost(
    dependency: Dependency[AsyncSession], flush: bool, sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine
) -> None:
    """A row that was added, or flushed, is there after the block, and not after one that raised."""
    configure_database_dependencies(sessions)
    with pytest.raises(LookupError):
        await fail_in(dependency(), flush)
    async with dependency() as session:
        session.add(Note(text="kept"))
        if flush:
            await session.flush()
    assert await notes(engine) == ["kept"]


async def write_in(block: Any) -> None:
    """Try to write."""
    async with block as session:
        assert list(await session.scalars(select(Note.text))) == ["kept"]
        session.add(Note(text="lost"))
        await session.commit()


@pytest.mark.parametrize("custom", [False, True])
async def test_dm_4_read_session_cannot_write(
    custom: bool, sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine
) -> None:
    """The database refuses what a read session flushes, and the connection can write again afterwards."""
    configure_database_dependencies(sessions)
    read = create_custom_session_dependency(read_only=True) if custom else get_read_session
    async with get_db() as session:
        session.add(Note(text="kept"))
    for _ in range(2):
        with pytest.raises(DBAPIError, match=r"(?i)read[- ]?only"):
            await write_in(read())
        async with read() as session:
            session.add(Note(text="never flushed"))
        async with get_db() as session:
            session.add(Note(text="also"))
            await session.flush()
            await session.rollback()
    assert await notes(engine) == ["kept"]


async def test_read_session_stays_read_only_after_a_commit(
    sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine
) -> None:
    """A second transaction of a read session, and raw SQL, are refused like the first."""
    dependencies = DatabaseDependencies(sessions)
    async with dependencies.get_read_session() as session:
        await session.execute(select(Note))
        await session.commit()
        with pytest.raises(DBAPIError, match=r"(?i)read[- ]?only"):
            await session.execute(text("DELETE FROM notes"))
    async with dependencies.get_db() as session:
        await session.execute(text("DELETE FROM notes"))


async def test_nothing_configured_says_what_to_do(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    """Without a database the dependencies raise a RuntimeError that names the ways to have one; with one they work."""
    for name in ("DATABASE_URL", "DB_HOST", "DB_NAME", "DB_USER", "DB_PASSWORD", "DB_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DatabaseDependencyError, match="configure_database_dependencies"):
        get_database_dependencies()
    with pytest.raises(RuntimeError, match="DATABASE_URL"):
        async with get_db():
            pass
    configure(url=sqlite_url)
    async with get_db() as session, get_read_session() as reader:
        assert (await session.scalar(text("SELECT 1")), await reader.scalar(text("SELECT 1"))) == (1, 1)
    await defaults.reset()


def test_what_is_no_source_is_refused() -> None:
    """A dependency on something else than a manager or a factory is refused at construction."""
    with pytest.raises(SessionRefused, match="async_sessionmaker"):
        DatabaseDependencies("postgresql://h/d")  # type: ignore[arg-type]  # the mistake that is tried


async def test_manager_runs_from_startup_to_shutdown(database_url: str) -> None:
    """A manager gives sessions between startup and shutdown, is the default meanwhile, and starts again."""
    manager = DatabaseManager(database_url, {"pool_size": 3, "max_overflow": 2})
    for _ in range(2):
        with pytest.raises(RuntimeError, match="startup"):
            _ = manager.engine
        async with manager:
            await manager.startup()  # once is enough
            async with manager.session() as session, get_db() as other:
                assert session.bind is manager.engine is other.bind is defaults.engine()
                assert await session.scalar(text("SELECT 1")) == 1
                assert manager.pool_status()[:3] == (3, 1, 0)
    with pytest.raises(NotStarted):
        _ = manager.sessionmaker
    await defaults.reset()


async def test_concurrent_startups_build_one_engine(sqlite_url: str) -> None:
    """Two startups at once leave one engine, and no connection of the other."""
    manager = DatabaseManager(sqlite_url)
    await asyncio.gather(manager.startup(), manager.startup())
    assert manager.started
    assert defaults.engine() is manager.engine
    await manager.shutdown()
    assert not manager.started


async def test_cancelled_reader_gives_back_what_can_write(
    sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine
) -> None:
    """A read session that is cancelled amid its work leaves the pool's only connection able to write."""
    dependencies = DatabaseDependencies(sessions)

    async def read(inside: asyncio.Event) -> None:
        async with dependencies.get_read_session() as session:
            await session.execute(select(Note))
            inside.set()
            while True:
                await session.execute(select(Note))

    for _ in range(5):
        inside = asyncio.Event()
        task = asyncio.create_task(read(inside))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with dependencies.get_db() as session:
            session.add(Note(text="kept"))
    assert await notes(engine) == ["kept"] * 5


async def test_manager_of_a_dead_server_does_not_start() -> None:
    """A database that does not answer raises a ConnectionError without the password, and nothing is started."""
    manager = DatabaseManager(f"postgresql://ann:{SECRET}@127.0.0.1:1/none")
    with pytest.raises(ConnectionError, match="does not answer") as caught:
        await manager.startup()
    assert isinstance(caught.value, DatabaseUnavailable)
    assert SECRET not in f"{caught.value} {manager!r}"
    with pytest.raises(NotStarted):
        manager.session()


async def test_pool_status_counts(database_url: str) -> None:
    """The pool says how many connections are in use, beyond its size, and how many callers wait."""
    engine = create_async_engine(database_url, pool_size=1, max_overflow=1, pool_timeout=20)
    first, second = await engine.connect(), await engine.connect()
    waiting = asyncio.create_task(engine.connect().start())

    async def waits() -> bool:
        return pool_status(engine).waiting == 1

    await until(waits)
    assert pool_status(engine) == (1, 2, 0, 1, 1)
    await first.close()
    await (await waiting).close()
    await second.close()
    assert pool_status(engine)._replace(checked_in=1) == (1, 0, 1, 0, 0)
    await engine.dispose()


async def test_savepoint_keeps_and_undoes(sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine) -> None:
    """What followed a savepoint is undone, repeatedly, and what was released is kept."""
    async with sessions() as session:
        manager = TransactionManager(session)
        session.add(Note(text="before"))
        name = await manager.savepoint()
        for _ in range(2):
            session.add(Note(text="undone"))
            await manager.savepoint("later")
            await manager.rollback_to_savepoint(name)
        with pytest.raises(TransactionError, match=f"no open savepoint 'later'; open: '{name}'"):
            await manager.release_savepoint("later")
        session.add(Note(text="after"))
        await manager.release_savepoint(name)
        await session.commit()
        with pytest.raises(TransactionError, match="open: none"):
            await manager.rollback_to_savepoint(name)
    assert await notes(engine) == ["before", "after"]


async def fail_in_savepoint(manager: TransactionManager, name: str) -> None:
    """Write in a savepoint's block, and raise."""
    async with manager.savepoint(name):
        manager.session.add(Note(text="undone"))
        await manager.session.flush()
        raise LookupError


async def test_savepoint_block(sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine) -> None:
    """A block that raises undoes its own work only, and the transaction goes on; nothing is committed by it."""
    async with sessions() as session:
        manager = TransactionManager(session)
        with pytest.raises(LookupError):
            await fail_in_savepoint(manager, "one")
        async with manager.savepoint("one"):
            session.add(Note(text="kept"))
            with pytest.raises(TransactionError, match="'one' is open already"):
                await manager.savepoint("one")
        await session.rollback()
    assert await notes(engine) == []
    async with with_async_session(sessions) as session, TransactionManager(session).savepoint():
        session.add(Note(text="kept"))
    assert await notes(engine) == ["kept"]


async def test_batch_is_done_whole_or_not_at_all(
    sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine
) -> None:
    """A batch gives what each operation gave; one that fails takes the others with it, and not what came before."""
    insert = Note.__table__.insert()  # type: ignore[attr-defined]  # a Table

    async def count(session: AsyncSession) -> int:
        return (await session.execute(select(func.count()).select_from(Note))).scalar_one()

    async with with_async_session(sessions) as session:
        manager = TransactionManager(session)
        given = await manager.batch_execute([(insert, [{"text": "a"}, {"text": "b"}]), insert.values(text="c"), count])
        assert given[-1] == 3
        with pytest.raises(DBAPIError):
            await manager.batch_execute([insert.values(text="d"), insert.values(text="e", about=99)])
    assert await notes(engine) == ["a", "b", "c"]

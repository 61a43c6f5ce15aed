"""Whose SELECT may fill the cache: only one whose snapshot shows what is committed, and nothing else."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import StaticPool, event, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.util import await_only

from tests.models import Base, User, named
from tests.world import ANN, BOB, Read, World, opened

ABSENT = "miss: absent"
COLD, WARM = Read("Ann", from_cache=False), Read("Ann", from_cache=True)


async def reads(session: AsyncSession) -> None:
    """Send a plain SELECT."""
    await session.execute(select(User.id))


async def seen(world: World, engine: AsyncEngine) -> None:
    """Let fastrdb see an engine: what a transaction did before that is not known."""
    await world.read(lambda: AsyncSession(engine), email="nobody@x")


@pytest.fixture
async def file_world(sqlite_url: str, valkey_url: str) -> AsyncIterator[World]:
    """Two users in a SQLite file."""
    async with opened(sqlite_url, valkey_url) as world:
        yield world


# In no transaction, or in one that has only read.


async def test_session_without_a_transaction_fills(world: World) -> None:
    """The first SELECT of a session fills the cache."""
    async with world.factory() as session:
        assert await world.read(session) == COLD
    assert await world.read() == WARM


async def test_missing_row_fills_outside_a_transaction(world: World) -> None:
    """That there is no such row is kept, too."""
    assert await world.read(id=77) == Read(None, from_cache=False)
    assert await world.read(id=77) == Read(None, from_cache=True)


async def test_read_committed_transaction_fills(pg_world: World) -> None:
    """A transaction that has only read, under READ COMMITTED, fills the cache."""
    await seen(pg_world, pg_world.engine)
    async with pg_world.factory() as session:
        await reads(session)
        assert await pg_world.read(session) == COLD
        assert await pg_world.read() == WARM


async def test_missing_row_does_not_fill_in_a_transaction(pg_world: World) -> None:
    """No row, no word of its snapshot: in a transaction the absence of a row is not kept."""
    async with pg_world.factory() as session:
        await reads(session)
        assert await pg_world.read(session, id=77) == Read(None, from_cache=False)
    assert await pg_world.read(id=77) == Read(None, from_cache=False)


async def test_lists_and_counts_fill_in_a_transaction(pg_world: World) -> None:
    """Lists and counts are filled from within a transaction as rows are."""
    await seen(pg_world, pg_world.engine)
    crud, cache = pg_world.crud, pg_world.cache
    async with pg_world.factory() as session:
        await reads(session)
        assert len(await crud.get_multi(session, cache, group_id=1)) == 2
        assert await crud.count(session, cache, group_id=1) == 2
    sent = len(pg_world.sent)
    assert len(await crud.get_multi(pg_world.factory, cache, group_id=1)) == 2
    assert await crud.count(pg_world.factory, cache, group_id=1) == 2
    assert len(pg_world.sent) == sent


# In one that may see what is old.


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_old_snapshot_does_not_fill(pg_world: World, level: str) -> None:
    """A snapshot that is older than another's COMMIT shows the old row to its owner, and to nobody else."""
    engine = pg_world.another_engine(isolation_level=level)
    await seen(pg_world, engine)
    async with AsyncSession(engine) as session:
        await reads(session)
        await pg_world.crud.update(db=pg_world.factory, redis=pg_world.cache, obj_in=named("new"), id=ANN)
        await pg_world.crud.invalidate(pg_world.cache)
        assert await pg_world.read(session) == COLD
        assert await pg_world.state() != "hit"
    assert (await pg_world.read()).name == "new"


async def test_old_snapshot_does_not_fill_lists(pg_world: World) -> None:
    """Nor do its lists and counts."""
    crud, cache = pg_world.crud, pg_world.cache
    engine = pg_world.another_engine(isolation_level="REPEATABLE READ")
    await seen(pg_world, engine)
    async with AsyncSession(engine) as session:
        await reads(session)
        await crud.delete(db=pg_world.factory, redis=cache, id=BOB)
        assert len(await crud.get_multi(session, cache, group_id=1)) == 2
        assert await crud.count(session, cache, group_id=1) == 2
    assert len(await crud.get_multi(pg_world.factory, cache, group_id=1)) == 1
    assert await crud.count(pg_world.factory, cache, group_id=1) == 1


async def test_fresh_snapshot_fills(pg_world: World) -> None:
    """A REPEATABLE READ session that is in no transaction takes its snapshot after the claim, and fills."""
    engine = pg_world.another_engine(isolation_level="REPEATABLE READ")
    async with AsyncSession(engine) as session:
        assert await pg_world.read(session) == COLD
    assert await pg_world.read() == WARM


async def test_level_set_by_sql_does_not_fill(pg_world: World) -> None:
    """SET TRANSACTION is seen, whoever sent it."""
    await seen(pg_world, pg_world.engine)
    async with pg_world.factory() as session:
        await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await reads(session)
        assert await pg_world.read(session) == COLD
        assert await pg_world.state() == ABSENT


async def test_level_of_a_connection_does_not_fill(pg_world: World) -> None:
    """So is the level that a session's connection was given."""
    await seen(pg_world, pg_world.engine)
    async with pg_world.factory() as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        await reads(session)
        assert await pg_world.read(session) == COLD
        assert await pg_world.state() == ABSENT


async def test_read_uncommitted_never_fills(file_world: World) -> None:
    """READ UNCOMMITTED fills nothing, wherever it was asked for."""
    world = file_world
    engine = world.another_engine(isolation_level="READ UNCOMMITTED")
    option = world.engine.execution_options(isolation_level="READ UNCOMMITTED")
    for each in (engine, option):
        async with AsyncSession(each) as session:
            assert await world.read(session) == COLD
            assert await world.read(session) == COLD
    await seen(world, world.engine)
    async with world.factory() as session:
        await session.connection(execution_options={"isolation_level": "READ UNCOMMITTED"})
        assert await world.read(session) == COLD
    assert await world.state() == ABSENT


async def test_replica_never_fills(pg_world: World) -> None:
    """A connection to a replica, which may lag, fills nothing; it may be answered from the cache."""
    replica = pg_world.another_engine()

    def mark(connection: Any, record: Any) -> None:
        record.info["fastrdb_cacheable"] = {None: False}  # what pg_is_in_recovery() said

    event.listen(replica.sync_engine, "connect", mark)
    factory = async_sessionmaker(replica)
    assert await pg_world.read(factory) == COLD
    assert await pg_world.read(factory) == COLD
    assert await pg_world.state() == ABSENT
    await pg_world.warm()
    assert await pg_world.read(factory) == WARM


async def test_server_is_asked_once_whether_it_is_a_replica(pg_world: World) -> None:
    """Each database connection is asked once."""
    for _ in range(3):
        await pg_world.read()
        await pg_world.crud.invalidate(pg_world.cache, id=ANN)
    assert sum("pg_is_in_recovery" in statement for statement in pg_world.sent) == 1


# In one that has written, by whatever way.


async def by_orm(session: AsyncSession) -> None:
    """Plain SQLAlchemy."""
    (await session.get_one(User, BOB)).name = "mine"
    await session.flush()


async def by_dml(session: AsyncSession) -> None:
    """A statement of SQLAlchemy's."""
    await session.execute(update(User).where(User.id == BOB).values(name="mine"))


async def by_text(session: AsyncSession) -> None:
    """A statement of the caller's."""
    await session.execute(text("UPDATE users SET name = 'mine' WHERE id = 2"))


async def by_function(session: AsyncSession) -> None:
    """A SELECT of a function that writes, which looks like any other SELECT."""
    await session.execute(select(text("rename_bob()")))


async def by_driver(session: AsyncSession) -> None:
    """The driver's connection, of which SQLAlchemy knows nothing."""
    await reads(session)
    raw = (await (await session.connection()).get_raw_connection()).driver_connection
    assert raw is not None
    await raw.execute("UPDATE users SET name = 'mine' WHERE id = 2")


WAYS: dict[str, Callable[[AsyncSession], Awaitable[None]]] = {
    "orm": by_orm,
    "dml": by_dml,
    "text": by_text,
    "function": by_function,
    "driver": by_driver,
}
RENAME = """
CREATE FUNCTION rename_bob() RETURNS void LANGUAGE sql AS $$ UPDATE users SET name = 'mine' WHERE id = 2 $$
"""


@pytest.mark.parametrize("way", WAYS)
async def test_transaction_that_has_written_does_not_fill(pg_world: World, way: str) -> None:
    """What a transaction reads after it wrote is nobody else's, row, list or count."""
    await pg_world.execute(RENAME)
    await seen(pg_world, pg_world.engine)
    crud, cache = pg_world.crud, pg_world.cache
    async with pg_world.factory() as session:
        await WAYS[way](session)
        assert await pg_world.read(session, id=BOB) == Read("mine", from_cache=False)
        assert [user.name for user in await crud.get_multi(session, cache, group_id=1)] == ["Ann", "mine"]
        await crud.count(session, cache, group_id=1)
        assert await pg_world.state(id=BOB) == ABSENT
        assert (await pg_world.read(id=BOB)).name == "Bob"
        await session.rollback()
    assert (await pg_world.read(id=BOB)).name == "Bob"
    assert [user.name for user in await crud.get_multi(pg_world.factory, cache, group_id=1)] == ["Ann", "Bob"]


# SQLite.


@pytest.mark.parametrize("way", ["orm", "dml", "text", "driver"])
async def test_open_write_on_sqlite_does_not_fill(file_world: World, way: str) -> None:
    """A session whose driver is in a transaction fills nothing."""
    async with file_world.factory() as session:
        await WAYS[way](session)
        assert await file_world.read(session, id=BOB) == Read("mine", from_cache=False)
        assert await file_world.state(id=BOB) == ABSENT
        await session.rollback()
    assert (await file_world.read(id=BOB)).name == "Bob"


async def test_session_that_reads_on_sqlite_fills(file_world: World) -> None:
    """SQLite's driver begins no transaction for SELECTs, so a session that has only read fills."""
    await seen(file_world, file_world.engine)
    async with file_world.factory() as session:
        await reads(session)
        assert await file_world.read(session) == COLD
    assert await file_world.read() == WARM


def begin_at_once(engine: Any) -> None:
    """Make SQLite's driver begin where SQLAlchemy does, as its documentation advises."""

    def leave_it_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    event.listen(engine.sync_engine, "connect", leave_it_to_us)
    event.listen(engine.sync_engine, "begin", begin)


@pytest.mark.parametrize("way", ["crud", "session", "session that is closed"])
async def test_unfinished_cursor_on_sqlite_does_not_fill(file_world: World, way: str) -> None:
    """While a stream is not read to its end, its connection reads what was there at its beginning: nobody gets it."""
    world = file_world
    more = "INSERT INTO users (email, name, group_id) SELECT 'more' || email, 'x', 2 FROM users"
    await world.execute(
        "PRAGMA journal_mode=WAL", more, "UPDATE users SET email = upper(email) WHERE group_id = 2", more
    )
    await seen(world, world.engine)
    others = async_sessionmaker(world.another_engine())
    async with world.factory() as session:
        rows: Any = world.crud.stream(session, batch=1)
        if way != "crud":
            rows = await session.stream(select(User), execution_options={"yield_per": 1})
        await anext(rows)
        await world.crud.update(others, world.cache, named("new"), id=ANN)
        await world.crud.invalidate(world.cache)
        if way == "session that is closed":
            await session.close()  # the connection goes back to the pool, and the cursor stays open with its result
        assert await world.read(session) == COLD
        assert [user.name for user in await world.crud.get_multi(session, world.cache, group_id=1)] == ["Ann", "Bob"]
        assert (await world.read(others)).name == "new"
        listed = await world.crud.get_multi(others, world.cache, group_id=1)
        assert [user.name for user in listed] == ["new", "Bob"]
        await rows.aclose() if way == "crud" else await rows.close()
    assert await world.read() == Read("new", from_cache=True)


async def test_real_transactions_on_sqlite_fill_at_their_start(file_world: World) -> None:
    """With SQLAlchemy's recipe for real transactions a session fills with its first SELECT, and only then."""
    engine = file_world.another_engine()
    begin_at_once(engine)
    async with AsyncSession(engine) as session:
        await reads(session)
        assert await file_world.read(session) == COLD
        assert await file_world.state() == ABSENT
        await session.rollback()
        assert await file_world.read(session) == COLD
    assert await file_world.read() == WARM


async def test_real_transactions_on_sqlite_do_not_stop_hits(file_world: World) -> None:
    """The BEGIN that the recipe sends is no write: such a session is answered from the cache."""
    engine = file_world.another_engine()
    async with AsyncSession(engine) as session:
        assert (await file_world.read(session)).name == "Ann"  # fastrdb sees the engine before the recipe does
    begin_at_once(engine)
    async with AsyncSession(engine) as session:
        await reads(session)
        assert await file_world.read(session) == WARM


@pytest.fixture
async def memory() -> AsyncIterator[World]:
    """Two users in SQLite's memory: one driver connection for all sessions."""
    world = World("sqlite+aiosqlite://", "memory://")
    assert isinstance(world.engine.pool, StaticPool)
    async with world.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO users (email, name, group_id) VALUES ('ann@x', 'Ann', 1)"))
    yield world
    await world.close()


async def test_private_database_has_a_cache(memory: World) -> None:
    """A database in memory can be cached in memory."""
    assert await memory.read() == COLD
    assert await memory.read() == WARM
    await memory.crud.update(db=memory.factory, redis=memory.cache, obj_in=named("new"), id=ANN)
    assert await memory.read() == Read("new", from_cache=True)


@pytest.mark.parametrize("way", ["dml", "driver"])
async def test_another_sessions_open_write_does_not_fill(memory: World, way: str) -> None:
    """A session that shares its driver connection with one that is writing sees that write, and does not cache it."""
    changes = {"dml": "UPDATE users SET name = 'mine' WHERE id = 1"}
    async with memory.factory() as writer, memory.factory() as reader:
        if way == "dml":
            await writer.execute(text(changes["dml"]))
        else:
            await reads(writer)
            raw = (await (await writer.connection()).get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute(changes["dml"])
        assert await memory.read(reader) == Read("mine", from_cache=False)
        assert await memory.state() == ABSENT
        await writer.rollback()
    assert await memory.read() == COLD


async def test_write_that_begins_during_a_read_does_not_fill(memory: World) -> None:
    """So does one that began to write while the SELECT was under way."""
    writer = memory.factory()
    change = text("UPDATE users SET name = 'mine' WHERE id = 1")
    event.listen(
        memory.engine.sync_engine, "before_cursor_execute", lambda *_: await_only(writer.execute(change)), once=True
    )
    seen = await memory.read()
    assert seen == Read("mine", from_cache=False)
    assert await memory.state() == ABSENT
    await writer.rollback()
    await writer.close()
    assert (await memory.read()).name == "Ann"

"""The outbox: what a write could not tell Redis lies in its own transaction, until somebody has delivered it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, MetaData, StaticPool, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import Cache, CacheUnavailable, ConfigurationError, Outbox, SessionRefused, outbox_table, watch
from fastrdb.migrations import CreateOutboxOp, DropOutboxOp
from tests.models import Base, User, named
from tests.outbox import NOWHERE, TABLE, TIMEOUT_S, cache_of, cut_off, emptied, rows_of, served
from tests.servers.process import free_port
from tests.servers.redis import RedisServer
from tests.world import ANN, BOB, Read, World, opened, until

STALE = Read("Ann", from_cache=True)


@pytest.fixture
def server(private_redis: Callable[[], RedisServer]) -> RedisServer:
    """A Valkey that the test may stop."""
    return private_redis()


@pytest.fixture
async def world(database_url: str, server: RedisServer) -> AsyncIterator[World]:
    """Two users, Ann cached, an outbox, and a cache that looks into it when it connects."""
    async with opened(database_url, server.url) as world:
        async with world.outside.begin() as connection:
            await connection.run_sync(TABLE.metadata.create_all)
        world.cache = cache_of(world)
        await world.warm()
        yield world


async def change(world: World, name: str, cache: Cache | None = None, id: int = ANN) -> None:
    """Change a user's name."""
    await world.crud.update(db=world.factory, redis=cache or world.cache, obj_in=named(name), id=id)


async def lost(world: World, name: str = "new", *ids: int) -> None:
    """Change users in a process that ends without having told anybody, not even a Redis that reads it later."""
    async with cut_off(world) as cache:
        for id in ids or (ANN,):
            await change(world, name, cache, id)


# Writing.


async def test_write_leaves_its_invalidation_in_its_own_transaction(world: World, server: RedisServer) -> None:
    """A write that commits without Redis is committed together with the keys that it drops."""
    server.pause()
    seen: list[int] = []

    def count(connection: Connection) -> None:  # called after fastrdb's listener, on the connection that commits
        seen.append(len(connection.execute(TABLE.select()).all()))

    event.listen(world.engine.sync_engine, "commit", count)
    assert await rows_of(world) == []
    await change(world, "new")
    event.remove(world.engine.sync_engine, "commit", count)
    server.resume()
    assert seen == [1]


async def test_row_names_the_entries_and_the_tables(world: World, server: RedisServer) -> None:
    """What lies in the outbox are the row's entries, and the table's tokens, as the templates of others are unknown."""
    server.pause()
    await change(world, "new")
    (keys,) = await rows_of(world)
    server.resume()
    assert {"user:id:1", "user:email:ann@x", "fastrdb:{users}:any", "fastrdb:{users}:all"} <= keys


async def test_write_with_redis_leaves_nothing(world: World) -> None:
    """Where Redis answers, no row is written."""
    sent: list[str] = []
    event.listen(world.engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
    await change(world, "new")
    assert sent
    assert not [statement for statement in sent if TABLE.name in statement]


async def test_rolled_back_write_leaves_nothing(world: World, server: RedisServer) -> None:
    """Neither a rollback nor a COMMIT that somebody else's listener aborts leaves a row."""
    server.pause()
    async with world.factory() as session:
        await session.begin()
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        await session.rollback()

    def abort(connection: Connection) -> None:
        raise RuntimeError("no")

    event.listen(world.engine.sync_engine, "commit", abort)
    with pytest.raises(RuntimeError):
        await change(world, "new")
    event.remove(world.engine.sync_engine, "commit", abort)
    server.resume()
    assert await world.stored() == "Ann"
    assert await rows_of(world) == []


async def test_joined_writes_leave_one_row(world: World, server: RedisServer) -> None:
    """Writes in a transaction of the caller's leave what they all drop, when it commits."""
    server.pause()
    async with world.factory() as session, session.begin():
        for id in (ANN, BOB):
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=id)
        assert await rows_of(world) == []
    (keys,) = await rows_of(world)
    server.resume()
    assert {"user:id:1", "user:id:2"} <= keys


async def test_refused_write_leaves_nothing(world: World, server: RedisServer) -> None:
    """``on_unreachable="refuse"`` goes first: there is no write, and nothing to keep."""
    cache = cache_of(world, on_unreachable="refuse")
    await world.read(cache=cache)
    server.pause()
    with pytest.raises(CacheUnavailable):
        await change(world, "new", cache)
    server.resume()
    assert await rows_of(world) == []


async def test_watched_session_leaves_its_rows(world: World, server: RedisServer) -> None:
    """A plain session's write is written down, too, and the outbox is not taken for a table that it writes."""
    factory = async_sessionmaker(world.engine)
    watch(factory, world.cache, Base.metadata)
    server.pause()
    async with factory.begin() as session:
        (await session.get_one(User, ANN)).name = "new"
    (keys,) = await rows_of(world)
    server.resume()
    # Of a column that a template of another test's crud names, nobody knows the old value: then it is all of the table.
    assert keys & {"user:id:1", "fastrdb:{users}:all"}
    assert not [key for key in keys if TABLE.name in key]


async def test_write_is_refused_where_the_table_is_missing(world: World, server: RedisServer) -> None:
    """A write that could neither tell Redis nor leave a row is not committed."""
    server.pause()
    await world.execute(f"DROP TABLE {TABLE.name}")
    with pytest.raises(Exception, match=TABLE.name):
        await change(world, "new")
    server.resume()
    assert await world.stored() == "Ann"
    assert world.leaked == 0


async def test_translated_schemas_do_not_move_the_table(postgres_url: str, server: RedisServer) -> None:
    """A writer whose tables are in another schema leaves its row where the others look."""
    async with opened(postgres_url, server.url) as world:
        async with world.outside.begin() as connection:
            await connection.run_sync(TABLE.metadata.create_all)
            await connection.execute(text("CREATE SCHEMA acme"))
            await connection.execute(text("CREATE TABLE acme.users AS TABLE users"))
        engine = world.engine.execution_options(schema_translate_map={None: "acme"})
        cache = cache_of(world)
        server.pause()
        await world.crud.update(db=async_sessionmaker(engine), redis=cache, obj_in=named("new"), id=ANN)
        server.resume()
        assert len(await rows_of(world)) == 1


async def test_outer_transaction_leaves_its_rows(world: World) -> None:
    """A session bound to a Connection leaves them when that connection commits."""
    async with cut_off(world) as cache, world.engine.connect() as connection:
        await connection.begin()
        async with AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
            await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
            assert await rows_of(world) == []
        await connection.commit()
    assert len(await rows_of(world)) == 1


async def test_session_with_work_of_its_own_leaves_one_row(world: World) -> None:
    """What else a session has pending is committed with the write, and its row."""
    async with cut_off(world) as cache, world.factory() as session:
        session.add(User(email="carl@x", name="Carl"))
        await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
    assert await world.stored(3) == "Carl"
    assert len(await rows_of(world)) == 1


async def test_write_on_another_database_leaves_nothing_there(sqlite_url: str, valkey_url: str, tmp_path: Path) -> None:
    """The table is not looked for where it is not, and the reason is counted."""
    async with opened(sqlite_url, valkey_url) as world:
        elsewhere = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'elsewhere.db'}")
        outbox = Outbox(TABLE, async_sessionmaker(elsewhere))
        async with Cache.from_url(NOWHERE.format(free_port()), timeout_s=TIMEOUT_S, outbox=outbox) as cache:
            await change(world, "new", cache)
            assert cache.stats.reasons["hold: the outbox lies in another database"] == 1
        await elsewhere.dispose()


# Delivering.


async def test_process_that_comes_back_looks_first(world: World, server: RedisServer) -> None:
    """A process whose connection was lost serves nothing of what a dead writer has changed meanwhile."""
    other = cache_of(world)
    await served(world, other, "Ann")
    server.pause()
    await lost(world)
    assert await world.read(cache=other) == Read("new", from_cache=False)  # it notices
    server.resume()
    await served(world, other, "new")
    await emptied(world)


async def test_new_process_looks_first(world: World, server: RedisServer) -> None:
    """A process that starts afterwards reads the new row, though Redis has kept the old one."""
    await lost(world)
    plain = world.another_cache()
    assert await world.read(cache=plain) == STALE, "a process without the outbox shows what lies in Redis"
    await served(world, cache_of(world), "new")
    assert (await world.read(cache=plain)).name == "new", "it is delivered for all"
    await emptied(world)


async def test_process_that_noticed_nothing_looks_now_and_then(world: World, server: RedisServer) -> None:
    """A process that sent nothing while Redis was away follows with its next look."""
    other = cache_of(world, look_every_s=0.1)
    await served(world, other, "Ann")
    await lost(world)

    async def is_new() -> bool:
        return (await world.read(cache=other)).name == "new"

    await until(is_new)
    await emptied(world)


async def test_writer_that_lives_delivers_and_deletes(world: World, server: RedisServer) -> None:
    """The process that wrote delivers by itself when Redis is back, and leaves no row behind."""
    server.pause()
    await change(world, "new")
    assert len(await rows_of(world)) == 1
    server.resume()
    await emptied(world)
    await served(world, world.cache, "new")


async def test_rows_stay_while_redis_is_away(world: World, server: RedisServer) -> None:
    """Processes that look, and cannot deliver, delete nothing."""
    server.pause()
    await lost(world)
    other = cache_of(world, look_every_s=0.02)
    for _ in range(5):
        assert (await world.read(cache=other)).name == "new"
        await asyncio.sleep(TIMEOUT_S / 2)
    assert len(await rows_of(world)) == 1
    server.resume()
    await emptied(world)


async def test_concurrent_looks_lose_nothing(world: World, server: RedisServer) -> None:
    """Many processes that start at once all read new rows, whoever delivers them."""
    await world.warm(id=BOB)
    for number in range(3):
        await lost(world, f"new {number}", ANN, BOB)
    assert len(await rows_of(world)) == 6
    others = [cache_of(world) for _ in range(4)]
    await asyncio.gather(*(served(world, other, "new 2", id) for other in others for id in (ANN, BOB)))
    await emptied(world)


async def test_many_rows_are_all_delivered(world: World, server: RedisServer) -> None:
    """More rows than are read at once are delivered before anything is served."""
    async with world.outside.begin() as connection:
        rows = [{"id": f"{number:032x}", "namespace": "", "keys": '["x"]'} for number in range(450)]
        rows[420]["keys"] = '["user:id:1"]'
        await connection.execute(TABLE.insert(), rows)
        await connection.execute(text("UPDATE users SET name = 'new' WHERE id = 1"))
    await served(world, cache_of(world), "new")
    await emptied(world)


async def test_rows_of_other_namespaces_stay(world: World, server: RedisServer) -> None:
    """A cache delivers what was written under its own prefix, character by character."""
    async with world.outside.begin() as connection:
        for id, namespace in (("a", "shop:"), ("b", "Shop:"), ("c", "other:")):
            await connection.execute(TABLE.insert(), {"id": id, "namespace": namespace, "keys": '["k"]'})
    cache = cache_of(world, prefix="Shop:", look_every_s=0.05)
    await world.read(cache=cache)

    async def is_delivered() -> bool:
        async with world.outside.connect() as connection:
            return {id for (id,) in await connection.execute(TABLE.select().with_only_columns(TABLE.c.id))} == {
                "a",
                "c",
            }

    await until(is_delivered)


async def test_nothing_is_served_while_the_outbox_cannot_be_read(world: World, server: RedisServer) -> None:
    """A process that cannot look answers from SQL, and says why in its log."""
    await world.execute(f"DROP TABLE {TABLE.name}")
    other = cache_of(world)
    assert await world.read(cache=other) == Read("Ann", from_cache=False)
    assert await world.read(cache=other) == Read("Ann", from_cache=False)
    assert other.stats.hits == 0


# Killed.


async def test_writer_that_is_killed_loses_nothing(world: World) -> None:
    """SIGKILL of a process that wrote without Redis: who comes next delivers before it serves."""
    arguments = [sys.executable, "-m", "tests.outbox", world.url, NOWHERE.format(free_port()), "3"]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert [await process.stdout.readline() for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
    process.kill()
    await process.wait()
    assert len(await rows_of(world)) == 3
    assert await world.read(cache=world.another_cache()) == STALE, "it is what lies in Redis"
    await served(world, cache_of(world), "new 2")
    await emptied(world)


# Migrations.


async def test_migration_creates_and_drops_the_table(database_url: str) -> None:
    """``op.create_outbox`` makes just what ``outbox_table`` describes, and ``op.drop_outbox`` takes it away again."""
    engine = create_async_engine(database_url)
    metadata = MetaData()
    outbox_table(metadata, "kept")

    def migrate(connection: Connection) -> tuple[Any, Any]:
        context = MigrationContext.configure(connection)
        with Operations.context(context) as op:
            op.create_outbox("kept")  # type: ignore[attr-defined]  # registered when it is imported
            made = compare_metadata(context, metadata)
            op.drop_outbox("kept")  # type: ignore[attr-defined]
        return made, compare_metadata(context, metadata)

    async with engine.begin() as connection:
        made, dropped = await connection.run_sync(migrate)
    await engine.dispose()
    assert made == []
    assert [difference[0] for difference in dropped] == ["add_table"]


def test_operations_undo_each_other() -> None:
    """Each names the other as its reverse."""
    created = CreateOutboxOp("kept", "cache")
    undone = created.reverse()
    assert isinstance(undone, DropOutboxOp)
    assert (undone.name, undone.schema) == ("kept", "cache")
    assert isinstance(undone.reverse(), CreateOutboxOp)


# Building one.


def test_outbox_of_a_shared_connection_is_refused() -> None:
    """Looks would end the transactions of others."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    with pytest.raises(ConfigurationError, match="share one connection"):
        Outbox(TABLE, async_sessionmaker(engine))


def test_outbox_says_what_it_needs() -> None:
    """A table of another kind, a factory without an engine, no time between looks, and ``memory://`` are refused."""
    factory = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///x.db"))
    with pytest.raises(ConfigurationError, match="outbox_table"):
        Outbox(User.__table__, factory)  # type: ignore[arg-type]  # which is a Table
    with pytest.raises(SessionRefused, match="bound to an AsyncEngine"):
        Outbox(TABLE, async_sessionmaker())
    with pytest.raises(ConfigurationError, match="look_every_s"):
        Outbox(TABLE, factory, look_every_s=0)
    with pytest.raises(ConfigurationError, match="memory://"):
        Cache.from_url("memory://", outbox=Outbox(TABLE, factory))


def test_table_has_the_name_that_it_is_given() -> None:
    """Name and schema are the caller's."""
    assert outbox_table(MetaData(), "kept", schema="cache").fullname == "cache.kept"

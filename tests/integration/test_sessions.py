"""What ``db`` may be, and when a session must be answered from SQL."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from fastrdb import Cache, SessionRefused
from tests.commits import gives_back
from tests.models import User, UserIn, named
from tests.world import ANN, BOB, Read, World, until

FRESH, STALE = Read("new", from_cache=False), Read("Ann", from_cache=True)


# What it may be.


async def test_scoped_session_is_used_and_left_open(world: World) -> None:
    """An ``async_scoped_session`` stands for the session of the current scope, which stays open."""
    scoped = async_scoped_session(world.factory, scopefunc=asyncio.current_task)
    ann = (await scoped.execute(select(User).where(User.id == ANN))).scalar_one()
    await world.crud.update(db=scoped, redis=world.cache, obj_in=named("new"), id=ANN)
    assert await world.stored() == "new"
    assert ann in scoped()
    assert (await world.crud.get(db=scoped, redis=world.cache, id=ANN)).name == "new"
    await scoped.remove()


async def test_plain_function_is_a_factory(world: World) -> None:
    """A function is called each time, since it may choose by context; what SQL was sent through is closed."""
    made: list[AsyncSession] = []

    def make() -> AsyncSession:
        made.append(AsyncSession(world.engine))
        return made[-1]

    assert (await world.read(make)).name == "Ann"
    assert world.leaked == 0
    assert await world.read(make) == STALE
    assert world.leaked == 0


async def test_bound_method_is_a_factory(world: World) -> None:
    """A bound method is as good as a function."""

    class Database:
        def session(self) -> AsyncSession:
            return AsyncSession(world.engine)

    database = Database()
    assert (await world.read(database.session)).name == "Ann"
    assert await world.read(database.session) == STALE


async def test_factory_that_is_configured_anew_is_followed(world: World, tmp_path: Any, valkey_url: str) -> None:
    """A sessionmaker that gets another database reads and writes that one, and the cache keeps the two apart."""
    factory = async_sessionmaker(world.engine)
    await world.warm()
    assert (await world.read(factory)).name == "Ann"
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    async with other.begin() as connection:
        await connection.run_sync(User.metadata.create_all)
        await connection.execute(insert(User).values(email="ann@y", name="Other"))
    factory.configure(bind=other)
    assert (await world.read(factory)).name == "Other"
    assert (await world.read(factory)).name == "Other"
    await world.crud.update(db=factory, redis=world.cache, obj_in=named("Newer"), id=ANN)
    assert (await world.read(factory)).name == "Newer"
    assert (await world.read()).name == "Ann"
    await other.dispose()


async def test_function_that_changes_engines_never_leaves_a_stale_row(world: World) -> None:
    """A factory that gives a session of another engine, which fastrdb has not seen, still ages the cache."""
    engines = [world.engine]
    await world.warm()

    def make() -> AsyncSession:
        return AsyncSession(engines[-1])

    assert await world.read(make) == STALE
    engines.append(world.another_engine())
    await world.crud.update(db=make, redis=world.cache, obj_in=named("new"), id=ANN)
    assert (await world.read(make)).name == "new"
    assert (await world.read()).name == "new"


async def test_session_with_binds_of_its_own_is_followed(world: World) -> None:
    """A session that sends a model elsewhere than to its ``bind`` is known by where the model goes."""
    await world.warm()
    elsewhere = world.another_engine()
    assert await world.read(AsyncSession(world.engine)) == STALE
    async with AsyncSession(world.engine, binds={User: elsewhere}) as session:
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert (await world.read()).name == "new"


REFUSED: dict[str, Any] = {
    "nothing": lambda engine: None,
    "sync session": lambda engine: Session(engine.sync_engine),
    "sync factory": lambda engine: sessionmaker(engine.sync_engine),
    "engine": lambda engine: engine,
    "sync engine": lambda engine: engine.sync_engine,
    "connection": lambda engine: engine.connect(),
    "text": lambda engine: str(engine.url),
    "two-phase session": lambda engine: AsyncSession(engine, twophase=True),
    "two-phase factory": lambda engine: async_sessionmaker(engine, twophase=True),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_is_no_async_session_is_refused(world: World, kind: str) -> None:
    """Reads and writes refuse anything else, saying what to pass, before anything is sent."""
    db = REFUSED[kind](world.engine)
    with pytest.raises(SessionRefused, match=r"pass an AsyncSession|Use a plain AsyncSession"):
        await world.crud.get(db=db, redis=world.cache, id=ANN)
    with pytest.raises(SessionRefused, match=r"pass an AsyncSession|Use a plain AsyncSession"):
        await world.crud.update(db=db, redis=world.cache, obj_in=named("new"), id=ANN)
    assert world.sent == []


async def test_generator_given_for_a_factory_is_refused(world: World) -> None:
    """A dependency, which yields a session, is no factory; the message says so."""

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with world.factory() as session:
            yield session

    with pytest.raises(SessionRefused, match="generator"):
        await world.crud.get(db=get_db, redis=world.cache, id=ANN)  # type: ignore[arg-type]  # the mistake


async def test_coroutine_function_given_for_a_factory_is_refused(world: World) -> None:
    """Nor is a coroutine function."""

    async def get_db() -> AsyncSession:
        return world.factory()

    with pytest.raises(SessionRefused, match="coroutine"):
        await world.crud.get(db=get_db, redis=world.cache, id=ANN)  # type: ignore[arg-type]  # the mistake


async def test_commit_false_with_a_factory_is_refused(world: World) -> None:
    """Nobody could commit what a factory's session wrote, so it is not written."""
    with pytest.raises(SessionRefused, match="commit=False"):
        await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN, commit=False)
    assert await world.stored() == "Ann"


# When it must be answered from SQL. Ann is cached, and a stranger would get her from there.


@pytest.fixture
async def session(world: World) -> AsyncIterator[AsyncSession]:
    """A session beside a warm cache."""
    await world.warm()
    async with world.factory() as session:
        yield session


async def test_clean_session_is_answered_from_the_cache(world: World, session: AsyncSession) -> None:
    """A session that has only read gets hits, before its first SELECT and after it."""
    assert await world.read(session) == STALE
    await session.execute(select(User.name))
    assert await world.read(session) == STALE


async def test_added_objects_are_seen_and_not_cached(world: World, session: AsyncSession) -> None:
    """A pending object is flushed and read from SQL; others do not get it, before or after a rollback."""
    session.add(User(email="carl@x", name="Carl"))
    assert await world.read(session, email="carl@x") == Read("Carl", from_cache=False)
    assert [user.name for user in await world.crud.get_multi(session, world.cache, group_id=1)] == [
        "Ann",
        "Bob",
        "Carl",
    ]
    await session.rollback()
    assert (await world.read(email="carl@x")).name is None
    assert len(await world.crud.get_multi(world.factory, world.cache, group_id=1)) == 2


async def test_modified_objects_are_seen(world: World, session: AsyncSession) -> None:
    """An object with unflushed changes is flushed and read from SQL."""
    ann = (await session.execute(select(User).where(User.id == ANN))).scalar_one()
    ann.name = "new"
    assert await world.read(session) == FRESH
    assert await world.read() == STALE
    await session.rollback()
    assert await world.read() == STALE


async def test_deleted_objects_are_gone(world: World, session: AsyncSession) -> None:
    """An object that is to be deleted is deleted and looked for in SQL."""
    ann = (await session.execute(select(User).where(User.id == ANN))).scalar_one()
    await session.delete(ann)
    assert await world.read(session) == Read(None, from_cache=False)
    await session.rollback()
    assert await world.read() == STALE


async def test_pending_objects_without_autoflush_are_left_alone(world: World) -> None:
    """With ``autoflush=False`` a read sends what SQLAlchemy would: pending objects stay pending."""
    async with AsyncSession(world.engine, autoflush=False) as session:
        carl = User(email="carl@x", name="Carl")
        session.add(carl)
        assert await world.read(session, email="carl@x") == Read(None, from_cache=False)
        assert carl in session.new


async def _orm_flush(session: AsyncSession) -> None:
    (await session.get_one(User, ANN)).name = "new"
    await session.flush()


async def _dml(session: AsyncSession) -> None:
    await session.execute(update(User).where(User.id == ANN).values(name="new"))


async def _text(session: AsyncSession) -> None:
    await session.execute(text("UPDATE users SET name = 'new' WHERE id = 1"))


async def _driver_sql(session: AsyncSession) -> None:
    await (await session.connection()).exec_driver_sql("UPDATE users SET name = 'new' WHERE id = 1")


async def _savepoint(session: AsyncSession) -> None:
    await session.execute(select(User.id))
    async with session.begin_nested():
        await _dml(session)


async def _textual_columns(session: AsyncSession) -> None:
    changing = "UPDATE users SET name = 'new' WHERE id = 1 RETURNING id"
    if session.get_bind().dialect.name == "mysql":  # MariaDB's UPDATE gives nothing back
        changing = "REPLACE users (id, email, name, group_id) VALUES (1, 'ann@x', 'new', 1) RETURNING id"
    await session.execute(text(changing).columns(User.id))


CHANGES = {
    "orm flush": _orm_flush,
    "dml": _dml,
    "text": _text,
    "driver sql": _driver_sql,
    "savepoint": _savepoint,
    "textual columns": _textual_columns,
}


@pytest.mark.parametrize("change", CHANGES)
async def test_session_that_has_written_reads_its_writes(world: World, session: AsyncSession, change: str) -> None:
    """Whatever way a session has written, it reads SQL until its transaction ends; others still get hits."""
    await CHANGES[change](session)
    assert await world.read(session) == FRESH
    assert await world.read() == STALE
    await session.rollback()
    assert await world.read(session) == STALE


async def test_session_that_was_used_before_fastrdb_is_answered_from_sql(world: World) -> None:
    """A transaction that began before fastrdb saw its engine may have written: it is answered from SQL."""
    await world.warm()
    engine = world.another_engine()
    async with AsyncSession(engine) as session:
        await _dml(session)
        assert await world.read(session) == FRESH


async def test_write_in_a_session_that_was_used_before_fastrdb_is_followed(world: World) -> None:
    """A write in such a transaction is dropped from the cache when the caller commits."""
    await world.warm()
    engine = world.another_engine()
    async with AsyncSession(engine) as session:
        await session.begin()
        await session.execute(select(User.id))
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        assert await world.read() == STALE
        await session.commit()
    assert (await world.read()).name == "new"


async def test_own_write_in_a_session_that_was_used_before_fastrdb_is_followed(world: World) -> None:
    """So is one that commits by itself."""
    await world.warm()
    engine = world.another_engine()
    async with AsyncSession(engine) as session:
        await session.execute(select(User.id))
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert (await world.read()).name == "new"


async def test_joined_transaction_reads_its_writes(world: World, session: AsyncSession) -> None:
    """Rows, lists and counts of a transaction show what it wrote through a crud, and nobody else's do."""
    crud, cache = world.crud, world.cache
    await crud.get_multi(world.factory, cache, group_id=1)
    await crud.count(world.factory, cache, group_id=1)
    await session.begin()
    await crud.delete(db=session, redis=cache, id=BOB)
    await crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
    assert await world.read(session) == FRESH
    assert [user.name for user in await crud.get_multi(session, cache, group_id=1)] == ["new"]
    assert await crud.count(session, cache, group_id=1) == 1
    assert [user.name for user in await crud.get_multi(world.factory, cache, group_id=1)] == ["Ann", "Bob"]
    assert await crud.count(world.factory, cache, group_id=1) == 2
    await session.commit()
    assert [user.name for user in await crud.get_multi(world.factory, cache, group_id=1)] == ["new"]
    assert await crud.count(world.factory, cache, group_id=1) == 1


async def test_session_is_answered_from_the_cache_again(world: World, session: AsyncSession) -> None:
    """When its transaction has ended, a session is a clean one."""
    await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert await world.read(session) == Read("new", from_cache=True)


async def test_loaded_objects_follow_a_write(world: World, session: AsyncSession) -> None:
    """An object of the session's own shows what a crud has written to its row."""
    ann = (await session.execute(select(User).where(User.id == ANN))).scalar_one()
    await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert ann.name == "new"
    await world.crud.delete(db=session, redis=world.cache, id=ANN)
    assert ann not in session


@pytest.mark.parametrize(
    "how", ["update", "update_multi", "counted", "update_where", "upsert", "delete", "delete_where"]
)
async def test_loaded_objects_follow_a_rollback_to_a_savepoint(world: World, how: str) -> None:
    """An object whose row is again as it was shows that, is the session's still, and its next change is written."""
    async with world.factory() as session, session.begin():
        ann = await session.get_one(User, ANN)
        crud, given, items = world.crud, {"db": session, "redis": world.cache}, [(ANN, named("new"))]
        async with session.begin_nested() as savepoint:
            match how:
                case "update":
                    await crud.update(**given, obj_in=named("new"), id=ANN)
                case "update_multi" | "counted":
                    await crud.update_multi(**given, items=items, returning=how != "counted")
                case "update_where":
                    assert await crud.update_where(**given, obj_in=named("new"), id=ANN) == 1
                case "upsert":
                    await crud.upsert(**given, obj_in=UserIn(email="ann@x", name="new"), email="ann@x")
                case "delete":
                    await crud.delete(**given, id=ANN)
                case _:
                    assert await crud.delete_where(**given, id=ANN) == 1
            await session.run_sync(lambda _: ann.name)
            await savepoint.rollback()
        assert await session.run_sync(lambda _: ann.name) == "Ann"
        assert ann in session
        ann.name = "new"
    assert await world.stored() == "new"


@pytest.mark.parametrize("begun", [False, True])
async def test_session_of_two_tasks_is_refused(world: World, begun: bool) -> None:
    """Of two writes at once in one session the second is refused before it sends anything, and the first is whole."""
    await world.warm()
    async with world.factory() as session:
        if begun:
            await session.begin()
        given = {"db": session, "redis": world.cache}
        first = world.crud.update(**given, obj_in=named("new"), id=ANN)
        found = await asyncio.gather(first, world.crud.delete(**given, id=BOB), return_exceptions=True)
        assert [type(each).__name__ for each in found] == ["UserOut", "SessionRefused"]
        await world.crud.create(**given, obj_in=UserIn(email="carl@x"))  # one after the other
        await session.commit()
    assert [await world.stored(id) for id in (ANN, BOB, 3)] == ["new", "Bob", "new"]
    assert (await world.read()).name == "new"


async def test_hook_may_write_in_the_session(world: World) -> None:
    """What is called after the COMMIT of a write may write in its session: the turn of that is over."""
    calls: list[str] = []
    async with world.factory() as session:

        async def follow(committed: object) -> None:
            if not calls:
                calls.append("follow")
                await world.crud.update(session, world.cache, named("by the hook"), id=BOB)

        world.crud.after_commit(follow)
        await world.crud.update(session, world.cache, named("new"), id=ANN)
    assert [await world.stored(id) for id in (ANN, BOB)] == ["new", "by the hook"]


# PostgreSQL only.


async def test_locked_rows_are_read_from_sql(pg_world: World) -> None:
    """A session that has locked rows with FOR UPDATE, or FOR SHARE, reads them from SQL."""
    await pg_world.warm()
    for lock in ({}, {"read": True}, {"key_share": True}, {"key_share": True, "read": True}):
        async with pg_world.factory() as session:
            await session.execute(select(User).where(User.id == ANN).with_for_update(**lock))
            assert await pg_world.read(session) == Read("Ann", from_cache=False), lock


async def test_select_with_an_insert_inside_is_a_write(pg_world: World) -> None:
    """A SELECT over a CTE that inserts makes the session read SQL."""
    await pg_world.warm()
    async with pg_world.factory() as session:
        added = insert(User).values(email="carl@x", name="Carl").returning(User.id).cte()
        await session.execute(select(added.c.id))
        assert await pg_world.read(session) == Read("Ann", from_cache=False)
        assert await pg_world.read(session, email="carl@x") == Read("Carl", from_cache=False)
    assert (await pg_world.read(email="carl@x")).name is None


async def test_raw_driver_write_is_never_cached(pg_world: World) -> None:
    """What a transaction wrote with asyncpg itself is not stored for others."""
    async with pg_world.factory() as session:
        await session.execute(select(User.id))  # begins: asyncpg's own statements would else be committed at once
        raw = await (await session.connection()).get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute("UPDATE users SET name = 'new' WHERE id = 1")
        assert await pg_world.read(session) == FRESH
        assert await pg_world.state() == "miss: absent"
    assert (await pg_world.read()).name == "Ann"


async def test_waiting_reader_in_a_transaction_loads_by_itself(world: World, session: AsyncSession) -> None:
    """A reader in a transaction does not wait for another's load, whose connection it might be keeping."""
    await world.crud.invalidate(world.cache, id=ANN)
    await session.execute(select(User.id))
    flight = world.cache.flights
    entry = b"user:id:1"
    flight[entry] = asyncio.get_running_loop().create_future()
    assert (await world.read(session)).name == "Ann"
    flight.pop(entry).cancel()


async def test_hit_needs_no_connection(world: World) -> None:
    """With every connection of the pool taken, cached rows are still served."""
    await world.warm()
    engine = world.another_engine(pool_size=1, max_overflow=0, pool_timeout=0.1)
    factory = async_sessionmaker(engine)
    assert await world.read(factory) == STALE
    async with engine.connect():
        assert await world.read(factory) == STALE


async def test_second_process_cannot_share_a_memory_cache(world: World) -> None:
    """A file's ``memory://`` cache is one Cache's: another one on the same database is refused."""
    first, second = Cache.from_url("memory://"), Cache.from_url("memory://")
    assert (await world.read(cache=first)).name == "Ann"
    with pytest.raises(Exception, match="another memory:// cache"):
        await world.read(cache=second)
    await first.aclose()
    assert (await world.read(cache=second)).name == "Ann"
    await second.aclose()


async def test_reads_of_many_sessions_leave_no_connection(world: World) -> None:
    """After many concurrent reads and writes by factory every connection is back in the pool."""
    reads = [world.read(id=id) for id in (ANN, BOB) for _ in range(10)]
    await asyncio.gather(*reads, world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN))
    await until(gives_back(world))
    assert (await world.read()).name == "new"

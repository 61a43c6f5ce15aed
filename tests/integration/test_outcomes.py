"""How a COMMIT ended: refused, lost, aborted, hanging; and what the cache then says."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from fastrdb import CacheClosed, CheckViolation, NotFound, UniqueViolation
from fastrdb.testing.faults import Proxy
from tests.commits import (
    ABSENT,
    COMMITTING,
    HELD,
    STALE,
    ask,
    committing,
    is_state,
    write,
)
from tests.models import UserIn, named
from tests.world import ANN, BOB, Read, World, opened, until

# Refused.


async def test_refused_commit_raises_a_typed_error(slow: World) -> None:
    """A constraint that is checked at COMMIT refuses the write; the error is a typed one, with its cause."""
    async with slow.factory() as session:
        with pytest.raises(CheckViolation) as failure:
            await slow.crud.update(db=session, redis=slow.cache, obj_in=named("refused"), id=ANN)
        assert isinstance(failure.value, IntegrityError)
        assert failure.value.__cause__ is not None
        assert not session.in_transaction()
    assert slow.leaked == 0


async def test_refused_commit_is_released_without_a_value(slow: World) -> None:
    """After a refused COMMIT nothing is held, the new value is nowhere, and readers see the old row."""
    with pytest.raises(CheckViolation):
        await slow.crud.update(db=slow.factory, redis=slow.cache, obj_in=named("refused"), id=ANN)
    assert await slow.state() == ABSENT
    assert await slow.read() == Read("Ann", from_cache=False)
    assert await slow.read() == STALE


async def test_refused_commit_of_the_callers_is_released(slow: World) -> None:
    """The same for a COMMIT of the caller's own."""
    async with slow.factory() as session:
        with pytest.raises(IntegrityError):
            async with session.begin():
                await slow.crud.update(db=session, redis=slow.cache, obj_in=named("refused"), id=ANN)
    assert await slow.state() == ABSENT
    assert await slow.read() == Read("Ann", from_cache=False)


async def test_session_works_after_a_refused_commit(slow: World) -> None:
    """The session whose COMMIT was refused can write again at once."""
    async with slow.factory() as session:
        with pytest.raises(CheckViolation):
            await slow.crud.update(db=session, redis=slow.cache, obj_in=named("refused"), id=ANN)
        await slow.crud.update(db=session, redis=slow.cache, obj_in=named("new"), id=ANN)
    assert (await slow.read()).name == "new"


async def test_refused_statement_holds_nothing(world: World) -> None:
    """A statement that a constraint refuses is rolled back, and the cache is as it was."""
    await world.warm()
    async with world.factory() as session:
        with pytest.raises(UniqueViolation):
            await world.crud.create(db=session, redis=world.cache, obj_in=UserIn(email="ann@x"))
        assert not session.in_transaction()
    assert await world.read() == STALE


async def test_busy_commit_is_released(sqlite_url: str, valkey_url: str) -> None:
    """SQLite refuses COMMIT while somebody reads: nothing was written, nothing is held, and the next try succeeds."""
    async with opened(sqlite_url, valkey_url, connect_args={"timeout": 0.1}) as world:
        await world.warm()
        with closing(sqlite3.connect(str(make_url(sqlite_url).database))) as reader:
            rows = reader.execute("SELECT * FROM users")
            rows.fetchone()  # one is left: the reader keeps its lock
            with pytest.raises(OperationalError, match="locked"):
                await write(world, "new")
            assert await world.state() == ABSENT
            assert (await world.read()).name == "Ann"
            rows.close()
        await write(world, "new")
        assert await world.read() == Read("new", from_cache=True)


# Unknown: the connection was lost.


@asynccontextmanager
async def cut_after_commit(world: World) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions over a proxy that hands COMMIT on and then hangs up, so that its answer is lost."""
    target = make_url(world.url)
    assert target.host is not None
    assert target.port is not None
    async with Proxy.to(target.host, target.port) as proxy:
        proxy.cut_after_reply_to = b"COMMIT"
        url, world.url = world.url, target.set(port=proxy.port).render_as_string(hide_password=False)
        engine = world.another_engine()
        world.url = url
        try:
            yield async_sessionmaker(engine)
        finally:
            await engine.dispose()


async def test_lost_commit_that_happened_is_seen(pg_world: World) -> None:
    """COMMIT was done but its answer lost: the hold stays until it runs out, and readers see the new row throughout."""
    world = pg_world
    world.cache = world.another_cache(hold_s=0.5)
    await world.warm()
    async with cut_after_commit(world) as factory:
        with pytest.raises(DBAPIError):
            await world.crud.update(db=factory, redis=world.cache, obj_in=named("new"), id=ANN)
        assert await world.state() == HELD
        assert await world.read() == Read("new", from_cache=False)
        await until(is_state(world, ABSENT))
        await world.warm()
        assert await world.read() == Read("new", from_cache=True)


async def test_callers_lost_commit_that_happened_is_seen(pg_world: World) -> None:
    """The same for the caller's own COMMIT, even after a savepoint that was released."""
    world = pg_world
    world.cache = world.another_cache(hold_s=0.5)
    await world.warm()
    async with cut_after_commit(world) as factory:
        async with factory() as session:
            await session.begin()
            async with session.begin_nested():
                await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
            with pytest.raises(DBAPIError):
                await session.commit()
        assert await world.state() == HELD
        assert await world.read() == Read("new", from_cache=False)
        await until(is_state(world, ABSENT))
        await world.warm()
        assert (await world.read()).name == "new"


@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
async def test_killed_commit_keeps_its_hold(slow: World, joined: bool) -> None:
    """A backend that is terminated during COMMIT leaves the hold to run out; readers then see what the database has."""
    cache = slow.cache = slow.another_cache(hold_s=0.5)
    session = slow.factory()
    if joined:
        await session.begin()
        await slow.crud.update(db=session, redis=cache, obj_in=named("slow 20"), id=ANN)
        task = asyncio.create_task(session.commit())
    else:
        task = write(slow, "slow 20", session)
    await ask(slow, f"SELECT pg_terminate_backend({await committing(slow)})")
    with pytest.raises(DBAPIError):
        await task
    await session.close()
    assert await slow.state() == HELD
    assert await slow.read() == Read("Ann", from_cache=False)
    await until(is_state(slow, ABSENT))
    assert await slow.read() == Read("Ann", from_cache=False)
    assert await slow.read() == STALE
    assert slow.leaked == 0


async def test_connection_killed_before_commit_releases_nothing_wrongly(slow: World) -> None:
    """A backend that is terminated between the statement and COMMIT leaves readers with the old row."""
    cache = slow.cache = slow.another_cache(hold_s=0.5)
    async with slow.factory() as session:
        await session.begin()
        await slow.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar()
        await ask(slow, f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(DBAPIError):
            await session.commit()
    assert (await slow.read()).name == "Ann"
    await until(is_state(slow, ABSENT))
    assert (await slow.read()).name == "Ann"


# The commit event fails.


async def test_closed_cache_aborts_the_commit(world: World) -> None:
    """A write whose cache was closed is rolled back: nobody could be told of it."""
    await world.warm()
    cache = world.another_cache()
    await cache.aclose()
    async with world.factory() as session:
        with pytest.raises(CacheClosed):
            await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        assert not session.in_transaction()
    assert await world.stored() == "Ann"
    assert await world.read() == STALE
    assert world.leaked == 0


async def test_closed_cache_aborts_the_callers_commit(world: World) -> None:
    """So is the caller's transaction, which can then be begun anew."""
    cache = world.another_cache()
    async with world.factory() as session:
        await session.begin()
        await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        await cache.aclose()
        with pytest.raises(CacheClosed):
            await session.commit()
        await session.rollback()
        assert await world.stored() == "Ann"
        await world.crud.update(db=session, redis=world.cache, obj_in=named("newer"), id=ANN)
    assert await world.stored() == "newer"


async def test_aborted_commit_leaves_no_open_transaction_in_the_pool(world: World) -> None:
    """A session whose commit was aborted, and that is only closed, gives back a connection that has nothing open."""
    cache = world.another_cache()
    async with world.factory() as session:
        await session.begin()
        await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        await cache.aclose()
        with pytest.raises(CacheClosed):
            await session.commit()
    async with world.factory() as session:
        assert (await session.execute(text("SELECT name FROM users WHERE id = 1"))).scalar() == "Ann"
        await session.commit()
    assert await world.stored() == "Ann"


async def test_listener_that_refuses_the_commit_leaves_the_old_row(world: World) -> None:
    """When somebody else's commit listener raises after ours, nothing was written and nothing new is served."""
    cache = world.cache = world.another_cache(hold_s=0.3)
    await world.warm()

    def refuse(connection: object) -> None:
        raise LookupError("not today")

    event.listen(world.engine.sync_engine, "commit", refuse)
    with pytest.raises(LookupError):
        await world.crud.update(db=world.factory, redis=cache, obj_in=named("new"), id=ANN)
    event.remove(world.engine.sync_engine, "commit", refuse)
    assert (await world.read()).name == "Ann"
    await until(is_state(world, ABSENT))
    await world.warm()
    assert await world.read() == STALE


async def test_cache_closed_during_commit_does_not_undo_it(slow: World, caplog: pytest.LogCaptureFixture) -> None:
    """A cache that is closed while COMMIT is under way: the write stands, and its hold runs out by itself."""
    cache = slow.another_cache(hold_s=0.4)
    task = asyncio.create_task(slow.crud.update(db=slow.factory, redis=cache, obj_in=named("slow 0.2"), id=ANN))
    await committing(slow)
    await cache.aclose()
    with caplog.at_level(logging.WARNING, "fastrdb"):
        assert (await task).name == "slow 0.2"
    assert await slow.stored() == "slow 0.2"
    await until(is_state(slow, ABSENT))
    assert (await slow.read()).name == "slow 0.2"


# Hanging.


@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
async def test_hold_is_renewed_while_commit_hangs(slow: World, joined: bool) -> None:
    """A COMMIT that takes longer than a hold lasts stays held: no reader caches the old row, and none sees it after."""
    cache = slow.cache = slow.another_cache(hold_s=0.3)
    name = "slow 1.2"

    async def work() -> None:
        async with slow.factory() as session:
            if joined:
                await session.begin()
            await slow.crud.update(db=session, redis=cache, obj_in=named(name), id=ANN)
            if joined:
                await session.commit()

    task = asyncio.create_task(work())
    await committing(slow)
    seen: list[str | None] = []
    while await ask(slow, COMMITTING) is not None:
        assert not (await slow.read()).from_cache or task.done()
        seen.append(await slow.state())
        await asyncio.sleep(0.05)
    await task
    assert len(seen) > 5
    assert set(seen[:5]) == {HELD}
    assert (await slow.read()).name == name
    await slow.warm()
    assert (await slow.read()).name == name


async def test_renewal_ends_with_the_write(slow: World) -> None:
    """After the release nothing renews: the entry of a deleted row stays free."""
    slow.cache = slow.another_cache(hold_s=0.2)
    await write(slow, "slow 0.5")
    await slow.crud.delete(db=slow.factory, redis=slow.cache, id=ANN)
    await asyncio.sleep(0.3)
    assert await slow.state() == ABSENT


async def test_write_finds_no_row_in_a_long_transaction(world: World) -> None:
    """A write that finds nothing in the caller's transaction leaves that one open and the cache alone."""
    await world.warm()
    async with world.factory() as session:
        async with session.begin():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=BOB)
            with pytest.raises(NotFound):
                await world.crud.delete(db=session, redis=world.cache, id=77)
        assert await world.stored(BOB) == "new"
    assert await world.read() == STALE

"""Callers that are cancelled, in every way there is, while they write or read."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker

from tests.commits import (
    ABSENT,
    HELD,
    STALE,
    committing,
    gives_back,
    is_free,
    is_state,
    settled,
)
from tests.models import named
from tests.servers.redis import RedisServer
from tests.world import ANN, BOB, Read, World, until


async def by_task(work: Callable[[], Awaitable[Any]], now: asyncio.Event) -> None:
    """``task.cancel()``."""
    task = asyncio.ensure_future(work())
    await now.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def by_impatience(work: Callable[[], Awaitable[Any]], now: asyncio.Event) -> None:
    """``task.cancel()``, again and again until the task ends."""
    task = asyncio.ensure_future(work())
    await now.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.001)
    assert task.cancelled()


async def by_timeout(work: Callable[[], Awaitable[Any]], now: asyncio.Event) -> None:
    """``asyncio.timeout``."""

    async def limited() -> None:
        async with asyncio.timeout(None) as limit:

            async def expire() -> None:
                await now.wait()
                limit.reschedule(0)

            expiring = asyncio.create_task(expire())
            await work()
        await expiring

    with pytest.raises(TimeoutError):
        await limited()


async def by_scope(work: Callable[[], Awaitable[Any]], now: asyncio.Event) -> None:
    """A cancel scope of anyio's, which cancels at every ``await`` until it is left."""
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            await now.wait()
            scope.cancel()

        cancelling = asyncio.create_task(cancel())
        await work()
        await anyio.lowlevel.checkpoint()
        raise AssertionError("the cancellation was lost")
    await cancelling
    assert scope.cancelled_caught


async def by_group(work: Callable[[], Awaitable[Any]], now: asyncio.Event) -> None:
    """A task group of anyio's, another task of which fails."""

    async def fail() -> None:
        await now.wait()
        raise LookupError("the other task")

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            group.start_soon(work)

    with pytest.raises(ExceptionGroup) as failure:
        await both()
    assert failure.group_contains(LookupError)


Cancel = Callable[[Callable[[], Awaitable[Any]], asyncio.Event], Awaitable[None]]
CANCELS: dict[str, Cancel] = {"task": by_task, "timeout": by_timeout, "scope": by_scope, "group": by_group}


@pytest.fixture(params=CANCELS)
def cancel(request: pytest.FixtureRequest) -> Cancel:
    """Each way to cancel some work when an event is set."""
    return CANCELS[request.param]


def when(world: World, moment: str) -> asyncio.Event:
    """An event that is set when a write is at that moment."""
    now = asyncio.Event()
    if moment == "statement":
        event.listen(world.engine.sync_engine, "before_cursor_execute", lambda *_: now.set(), once=True)
    elif moment == "release":
        event.listen(world.engine.sync_engine, "checkin", lambda *_: now.set(), once=True)
    else:
        event.listen(world.engine.sync_engine, "commit", lambda *_: now.set(), insert=moment == "hold", once=True)
    return now


@pytest.mark.parametrize("moment", ["statement", "hold", "commit", "release"])
@pytest.mark.parametrize("session_given", [False, True], ids=["factory", "session"])
async def test_cancelled_own_write_is_whole_or_absent(
    world: World, cancel: Cancel, moment: str, session_given: bool
) -> None:
    """However a write is cancelled, and when: readers see what is committed, the session works, nothing leaks."""
    await world.warm()
    async with world.factory() as session:
        db: Any = session if session_given else world.factory
        now = when(world, moment)
        change = lambda: world.crud.update(db=db, redis=world.cache, obj_in=named("new"), id=ANN)  # noqa: E731
        await cancel(change, now)
        if moment != "statement":
            assert await world.stored() == "new"
        if session_given:
            assert not session.in_transaction()
            await world.crud.update(db=session, redis=world.cache, obj_in=named("other"), id=BOB)
    stored = await world.stored()
    assert (await world.read()).name == stored
    await until(gives_back(world))
    await world.warm()
    assert (await world.read()).name == stored == await world.stored()


@pytest.mark.parametrize("moment", ["hold", "commit", "release"])
async def test_impatience_does_not_stop_a_commit(world: World, moment: str) -> None:
    """Once COMMIT is near, a caller that is cancelled again and again ends when the write is complete."""
    await world.warm()
    now = when(world, moment)
    await by_impatience(lambda: world.crud.delete(db=world.factory, redis=world.cache, id=ANN), now)
    assert await world.stored() is None
    assert (await world.read()).name is None
    assert world.leaked == 0


async def test_write_cancelled_while_commit_hangs_is_whole(slow: World, cancel: Cancel) -> None:
    """A caller that is cancelled while COMMIT hangs waits for it, without spinning, and then is cancelled."""
    now, started = asyncio.Event(), 0.0

    async def watch() -> None:
        nonlocal started
        await committing(slow)
        started = time.thread_time()
        now.set()

    watching = asyncio.create_task(watch())
    change = named("slow 0.6")
    await cancel(lambda: slow.crud.update(db=slow.factory, redis=slow.cache, obj_in=change, id=ANN), now)
    assert time.thread_time() - started < 0.3
    await watching
    assert await slow.stored() == "slow 0.6"
    assert await slow.read() == Read("slow 0.6", from_cache=True)
    await settled(slow)


async def test_cancelled_commit_of_the_callers_runs_out(slow: World, cancel: Cancel) -> None:
    """The caller's own COMMIT cannot be protected: the hold runs out, and readers then see what became of it."""
    cache = slow.cache = slow.another_cache(hold_s=0.5)
    now = asyncio.Event()

    async def work() -> None:
        async with slow.factory() as session:
            await session.begin()
            await slow.crud.update(db=session, redis=cache, obj_in=named("slow 0.3"), id=ANN)
            await session.commit()

    async def watch() -> None:
        await committing(slow)
        now.set()

    watching = asyncio.create_task(watch())
    await cancel(work, now)
    await watching
    assert await slow.state() == HELD
    await settled(slow)
    assert (await slow.read()).name == await slow.stored()
    await until(is_state(slow, ABSENT))
    await slow.warm()
    assert (await slow.read()).name == await slow.stored()


async def test_callers_hold_that_is_cancelled_writes_nothing(
    world: World, private_redis: Callable[[], RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """The caller's commit is cancelled while the cache is asked to hold: no COMMIT is sent, the old row is served."""
    server = private_redis()
    world.redis_url = server.url
    cache = world.cache = world.another_cache(hold_s=0.5, timeout_s=10)
    await world.warm()
    async with world.factory() as session:
        await session.begin()
        await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        server.pause()
        task = asyncio.create_task(session.commit())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await session.close()
        server.resume()
    assert await world.stored() == "Ann"
    assert (await world.read()).name == "Ann"
    await until(is_free(world))
    await world.warm()
    assert await world.read() == STALE
    assert caplog.messages == []
    await until(gives_back(world))


async def test_cancelled_autocommit_write_is_right(world: World, cancel: Cancel) -> None:
    """An AUTOCOMMIT statement that is cancelled: readers see what became of it."""
    cache = world.cache = world.another_cache(hold_s=0.5)
    engine = world.another_engine(isolation_level="AUTOCOMMIT")
    factory = async_sessionmaker(engine)
    await world.warm()
    now = asyncio.Event()
    await world.read(factory, email="nobody@x")

    def notice(*args: Any) -> None:
        if args[2].startswith("UPDATE"):
            now.set()

    event.listen(engine.sync_engine, "before_cursor_execute", notice)
    await cancel(lambda: world.crud.update(db=factory, redis=cache, obj_in=named("new"), id=ANN), now)
    assert (await world.read()).name == await world.stored()
    await until(is_free(world))
    await world.warm()
    assert (await world.read()).name == await world.stored()


async def test_cancelled_readers_leave_no_claim(world: World, cancel: Cancel) -> None:
    """A reader that is cancelled while it loads takes its claim away, and the next one loads at once."""
    await world.crud.invalidate(world.cache, id=ANN)
    now = when(world, "statement")
    await cancel(world.read, now)
    await until(gives_back(world))
    await until(is_state(world, ABSENT))
    assert world.cache.flights == {}
    assert await world.read() == Read("Ann", from_cache=False)
    await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)

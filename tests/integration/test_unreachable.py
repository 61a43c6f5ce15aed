"""Redis that is not there, stops answering, or comes back empty: SQL answers, and nothing stale is served after."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import Cache
from tests.models import UserIn, named, user_crud
from tests.servers.process import free_port
from tests.servers.redis import RedisServer, commandstats
from tests.world import ANN, BOB, Read, World, opened, until

TIMEOUT_S = 0.2
STALE = Read("Ann", from_cache=True)


@pytest.fixture
def server(private_redis: Callable[[], RedisServer]) -> RedisServer:
    """A Valkey that the test may stop."""
    return private_redis()


@pytest.fixture
async def world(database_url: str, server: RedisServer) -> AsyncIterator[World]:
    """Two users, Ann cached, and a cache that waits for Redis only a short time."""
    async with opened(database_url, server.url) as world:
        world.cache = world.another_cache(timeout_s=TIMEOUT_S, hold_s=0.5)
        await world.warm()
        yield world


@pytest.fixture
async def alone(sqlite_url: str) -> AsyncIterator[World]:
    """Two users, and a cache whose Redis has never been there."""
    async with opened(sqlite_url, f"redis://somebody:secret@127.0.0.1:{free_port()}/0") as world:
        world.cache = world.another_cache(timeout_s=TIMEOUT_S)
        yield world


async def change(world: World, name: str, id: int = ANN) -> None:
    """Change a user's name."""
    await world.crud.update(db=world.factory, redis=world.cache, obj_in=named(name), id=id)


def is_delivered(world: World) -> Callable[[], Any]:
    """Whether the cache has nothing left to deliver."""

    async def check() -> bool:
        return not world.cache.undelivered

    return check


# Never there.


async def test_reads_are_answered_without_redis(alone: World) -> None:
    """Rows, lists and counts come from SQL, each within the time that Redis is given, and the reason is counted."""
    started = time.monotonic()
    assert await alone.read() == Read("Ann", from_cache=False)
    assert len(await alone.crud.get_multi(alone.factory, alone.cache, group_id=1)) == 2
    assert await alone.crud.count(alone.factory, alone.cache, group_id=1) == 2
    assert time.monotonic() - started < 3 * TIMEOUT_S + 1
    assert alone.cache.stats.reasons["bypass: unreachable"] == 3


async def test_writes_are_committed_without_redis(alone: World) -> None:
    """Creating, changing and deleting work, and are seen, and their invalidations are kept."""
    await alone.crud.create(db=alone.factory, redis=alone.cache, obj_in=UserIn(email="carl@x", name="Carl"))
    await change(alone, "new")
    await alone.crud.delete(db=alone.factory, redis=alone.cache, id=BOB)
    assert [(await alone.read(id=id)).name for id in (1, 2, 3)] == ["new", None, "Carl"]
    assert alone.cache.undelivered


async def test_joined_writes_are_committed_without_redis(alone: World) -> None:
    """So do writes in a transaction of the caller's, AUTOCOMMIT writes, and ``invalidate``."""
    async with alone.factory() as session, session.begin():
        await alone.crud.update(db=session, redis=alone.cache, obj_in=named("new"), id=ANN)
    engine = alone.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        await alone.crud.update(db=session, redis=alone.cache, obj_in=named("newer"), id=BOB)
    await alone.crud.invalidate(alone.cache, id=ANN)
    assert [(await alone.read(id=id)).name for id in (ANN, BOB)] == ["new", "newer"]
    assert alone.cache.undelivered


async def test_rolled_back_writes_keep_nothing(alone: World) -> None:
    """A write that did not happen leaves nothing to deliver."""
    async with alone.factory() as session:
        await session.begin()
        await alone.crud.update(db=session, redis=alone.cache, obj_in=named("new"), id=ANN)
        await session.rollback()
    assert not alone.cache.undelivered


async def test_log_says_once_that_redis_is_away(alone: World, caplog: pytest.LogCaptureFixture) -> None:
    """Many reads and writes without Redis, of rows and of lists, leave one line for each of two things, which show no
    credentials."""
    with caplog.at_level(logging.DEBUG, "fastrdb"):
        await alone.crud.get_multi(alone.factory, alone.cache, group_id=1)
        for name in ("a", "b", "c"):
            await alone.read()
            await change(alone, name)
    assert sorted(message.partition(":")[0] for message in caplog.messages) == [
        "Redis does not answer",
        "an invalidation could not be delivered",
    ]
    assert "secret" not in caplog.text


async def test_messages_show_no_credentials(alone: World) -> None:
    """Neither the cache's own text nor the error of ``explain`` shows the password."""
    with pytest.raises(Exception, match="Redis did not answer") as failure:
        await alone.crud.explain(alone.cache, alone.factory, id=ANN)
    cause = failure.value.__cause__
    assert "secret" not in f"{failure.value!r} {failure.value} {cause!r} {alone.cache!r} {alone.cache.store!r}"


# Stopped in the middle.


async def test_paused_redis_stops_no_read(world: World, server: RedisServer) -> None:
    """Reads get their answer from SQL within the time that Redis is given, however many there are."""
    server.pause()
    started = time.monotonic()
    assert await world.read() == Read("Ann", from_cache=False)
    assert {(await each).name for each in [*map(asyncio.ensure_future, [world.read() for _ in range(20)])]} == {"Ann"}
    assert time.monotonic() - started < 2 * TIMEOUT_S + 1
    server.resume()


async def test_nobody_waits_for_a_redis_that_hangs(world: World, server: RedisServer) -> None:
    """Once one read has waited in vain, others are answered from SQL at once, also while Redis is tried again."""
    server.pause()
    await world.read()
    loop, waited = asyncio.get_running_loop(), []
    until_then = loop.time() + 5 * TIMEOUT_S
    while loop.time() < until_then:
        started = loop.time()
        assert (await world.read()).name == "Ann"
        waited.append(loop.time() - started)
        await asyncio.sleep(0.005)
    server.resume()
    # The trials of that time each last as long as Redis is given: whoever waited for one of them waited as long.
    assert sum(each >= TIMEOUT_S for each in waited) <= 1
    assert len(waited) > 10


async def test_reads_are_cached_again_after_a_pause(world: World, server: RedisServer) -> None:
    """When Redis goes on, so do hits."""
    server.pause()
    await world.read()
    server.resume()
    await world.warm()
    assert await world.read() == STALE


@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
async def test_paused_redis_stops_no_write(world: World, server: RedisServer, joined: bool) -> None:
    """A write commits though Redis is paused; what it kept is delivered before anything is served from the cache."""
    server.pause()
    async with world.factory() as session:
        if joined:
            await session.begin()
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        if joined:
            await session.commit()
    assert await world.stored() == "new"
    assert await world.read() == Read("new", from_cache=False)
    server.resume()
    while world.cache.undelivered:
        assert await world.read() == Read("new", from_cache=False)
        await asyncio.sleep(0)
    await world.warm()
    assert await world.read() == Read("new", from_cache=True)


async def test_nothing_is_served_before_the_invalidation_is_delivered(world: World, server: RedisServer) -> None:
    """Not even of other rows: the cache as a whole is passed by."""
    await world.warm(id=BOB)
    server.pause()
    await change(world, "new")
    server.resume()
    if world.cache.undelivered:
        assert await world.read(id=BOB) == Read("Bob", from_cache=False)
        assert world.cache.stats.reasons["bypass: an invalidation is not delivered yet"] >= 1
    await until(is_delivered(world))
    await world.warm(id=BOB)


async def test_other_processes_follow_when_redis_goes_on(world: World, server: RedisServer) -> None:
    """A second process, which never noticed, reads the new row once the invalidation is delivered."""
    other = world.another_cache()
    assert (await world.read(cache=other)).from_cache
    server.pause()
    await change(world, "new")
    server.resume()
    await until(is_delivered(world))
    assert (await world.read(cache=other)).name == "new"


async def test_pause_between_hold_and_release_is_survived(world: World, server: RedisServer) -> None:
    """Redis that stops during COMMIT: the write is done, and the row is held until that runs out or is released."""
    event.listen(world.engine.sync_engine, "commit", lambda _: server.pause(), once=True)
    await change(world, "new")
    assert await world.stored() == "new"
    assert await world.read() == Read("new", from_cache=False)
    server.resume()
    await until(is_delivered(world))
    await world.warm()
    assert await world.read() == Read("new", from_cache=True)


# Killed, and back without what it had.


async def test_restarted_redis_is_used_again(world: World, server: RedisServer) -> None:
    """A Redis that comes back empty is filled again."""
    server.restart()
    assert (await world.read()).name == "Ann"
    await world.warm()
    assert await world.read() == STALE


async def test_write_while_redis_is_dead_is_right_afterwards(world: World, server: RedisServer) -> None:
    """A write, a restart, and readers of this process and another one see the new row."""
    other = world.another_cache()
    await world.read(cache=other)
    server.kill()
    await change(world, "new")
    assert await world.read() == Read("new", from_cache=False)
    server.restart()
    await until(is_delivered(world))
    await world.warm()
    assert await world.read() == Read("new", from_cache=True)
    assert (await world.read(cache=other)).name == "new"


async def test_restart_during_commit_is_right_afterwards(world: World, server: RedisServer) -> None:
    """Redis comes back empty between hold and release: the release finds no hold, and puts no value in place."""
    event.listen(world.engine.sync_engine, "commit", lambda _: server.restart(), once=True)
    await change(world, "new")
    await until(is_delivered(world))
    assert await world.state() != "hit"
    assert (await world.read()).name == "new"
    await world.warm()
    assert await world.read() == Read("new", from_cache=True)


async def test_log_says_once_per_change(world: World, server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Away, back, away, back: four lines of the connection, four of what was kept, however many writes there were."""
    with caplog.at_level(logging.DEBUG, "fastrdb"):
        for round in range(2):
            server.kill()
            for count in range(3):
                await change(world, f"{round}.{count}")
            server.restart()
            await until(is_delivered(world))
    kept = [message for message in caplog.messages if "invalidation" in message]
    assert ["could not" in message for message in kept] == [True, False, True, False]
    of_connection = [message for message in caplog.messages if message not in kept]
    assert ["does not answer" in message for message in of_connection] == [True, False, True, False]


async def test_many_kept_invalidations_are_all_delivered(world: World, server: RedisServer) -> None:
    """Hundreds of rows that were changed without Redis are all fresh afterwards."""
    users = [UserIn(email=f"{count}@x") for count in range(300)]
    made = await world.crud.create_multi(db=world.factory, redis=world.cache, instances=users)
    other = world.another_cache()
    for user in made[::30]:
        await world.read(id=user.id, cache=other)
    server.pause()
    async with world.factory() as session, session.begin():
        for user in made:
            await world.crud.update(db=session, redis=world.cache, obj_in=named("changed"), id=user.id)
    server.resume()
    await until(is_delivered(world))
    assert {(await world.read(id=user.id, cache=other)).name for user in made[::30]} == {"changed"}


# Another loop, another client.


async def test_what_one_loop_kept_another_delivers(sqlite_url: str, private_redis: Callable[[], RedisServer]) -> None:
    """An invalidation that an event loop kept when it ended is delivered by the next one that uses the cache."""
    server = private_redis()
    cache = Cache.from_url(server.url, timeout_s=TIMEOUT_S)
    crud = user_crud()

    async with opened(sqlite_url, server.url) as world:

        async def lose() -> None:
            engine = create_async_engine(sqlite_url)
            await crud.update(db=async_sessionmaker(engine), redis=cache, obj_in=named("new"), id=ANN)
            await engine.dispose()

        server.kill()
        thread = threading.Thread(target=lambda: asyncio.run(lose()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert cache.undelivered
        server.restart()
        world.cache = cache
        await world.warm()
        assert await world.read() == Read("new", from_cache=True)
        await cache.aclose()


async def test_client_is_as_good_as_a_cache(world: World, server: RedisServer) -> None:
    """With a bare client of redis-py as ``redis`` a paused server stops neither reads nor writes."""
    client = Redis.from_url(server.url)
    crud = world.crud
    assert (await crud.get(db=world.factory, redis=client, id=ANN)).name == "Ann"
    server.pause()
    assert (await crud.get(db=world.factory, redis=client, id=ANN)).name == "Ann"
    await crud.update(db=world.factory, redis=client, obj_in=named("new"), id=ANN)
    assert (await crud.get(db=world.factory, redis=client, id=ANN)).name == "new"
    server.resume()
    await client.aclose()


async def test_row_that_changes_during_delivery_is_delivered_again(server: RedisServer) -> None:
    """An invalidation that is kept anew while it is being delivered is not taken for delivered."""
    cache = Cache.from_url(server.url, timeout_s=20)
    key = b"user:id:1"
    await cache.store.read(key, ())  # connects
    server.pause()
    cache.keep({key})
    await asyncio.sleep(0.05)  # it is sent
    cache.keep({key})
    server.resume()
    await until(lambda: _delivered(cache))
    assert commandstats(server.url)["evalsha"] == 2
    await cache.aclose()


async def _delivered(cache: Cache) -> bool:
    return not cache.undelivered


async def test_no_other_error_is_blamed_on_redis(alone: World) -> None:
    """Where what answers in the place of Redis fails, its error has nothing of Redis in its context."""

    def factory() -> AsyncSession:
        if alone.cache.stats.reasons["bypass: unreachable"]:
            raise ConnectionAbortedError("no session is left")
        return alone.factory()

    with pytest.raises(ConnectionAbortedError) as caught:
        await alone.crud.get(db=factory, redis=alone.cache, id=ANN)
    assert caught.value.__context__ is None

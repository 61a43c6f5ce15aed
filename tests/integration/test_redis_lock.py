"""RedisLock: who has it, for how long, and what its holder is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from fastrdb import FastRDBError
from fastrdb.db import defaults
from fastrdb.errors import (
    EmptyInput,
    InputError,
    LockError,
    LockNotAcquired,
    LockTimeout,
    LockUnavailable,
    RedisRefused,
    ValueRefused,
)
from fastrdb.locks import RedisLock, redis_lock
from fastrdb.locks.fencing import lock_key
from tests.servers.redis import RedisServer
from tests.world import PATIENCE_S, until


def client_of(url: str, **options: Any) -> Redis:
    """A client that fails at once instead of trying again."""
    client: Redis = Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
    return client


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of a real server, once Valkey and once Redis 7."""
    async with client_of(redis_url) as client:
        yield client


@pytest.fixture
async def frail(private_redis: Callable[..., RedisServer]) -> AsyncIterator[tuple[RedisServer, Redis]]:
    """A server to pause, kill and restart, and a client of it."""
    server = private_redis()
    async with client_of(server.url) as client:
        yield server, client


async def soon(waiting: Awaitable[object]) -> None:
    """Wait for what is about to happen."""
    async with asyncio.timeout(PATIENCE_S):
        await waiting


async def test_one_holder_at_a_time(redis: Redis) -> None:
    """While one has the lock another does not get it, and it does when the first lets go."""
    first, second = RedisLock("job", redis=redis), RedisLock("job", redis=redis)
    assert await first.acquire()
    assert not await second.acquire()
    assert await first.release()
    assert await second.acquire()
    assert await second.release()


async def test_dm_7_the_false_branch_is_reached_without_waiting(redis: Redis) -> None:
    """``async with`` does not wait for another's lock, does not raise, and says that it is not acquired."""
    async with RedisLock("import:user-data", ttl=60, redis=redis):
        async with asyncio.timeout(10):  # the other one has a minute
            async with RedisLock("import:user-data", ttl=60, redis=redis) as lock:
                assert not lock.acquired
        assert await lock.is_locked()


async def test_default_client_is_used(redis_url: str) -> None:
    """A lock that is given no client uses the process's default one."""
    defaults.configure(redis_url=redis_url)
    try:
        async with RedisLock("job", ttl=60) as lock:
            assert lock.acquired
            assert not await RedisLock("job").acquire()
    finally:
        await defaults.reset()


async def test_waiting_ends_with_the_lock(redis: Redis) -> None:
    """A caller that waits gets the lock when it is free."""
    first, second = RedisLock("job", redis=redis), RedisLock("job", redis=redis, wait=None)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0)
    await first.release()
    assert await waiting
    await second.release()


async def test_waiting_ends_with_the_time(redis: Redis) -> None:
    """A caller that waits for a time gets False when it is over."""
    async with RedisLock("job", redis=redis):
        assert not await RedisLock("job", redis=redis, wait=0.05).acquire()
        assert not await RedisLock("job", redis=redis, wait=None).acquire(timeout=timedelta(milliseconds=50))
        assert not await RedisLock("job", redis=redis, wait=None).acquire(blocking=False)


async def test_function_form_raises_where_the_block_may_not_run(redis: Redis) -> None:
    """``redis_lock`` says by its error whether it waited, and runs no block without the lock."""
    async with redis_lock("job", redis=redis) as lock:
        assert lock.acquired
        with pytest.raises(LockNotAcquired, match="'job'"):
            async with redis_lock("job", redis=redis):
                raise AssertionError("the block ran")
        with pytest.raises(LockTimeout, match=r"0\.05 s"):
            async with redis_lock("job", redis=redis, wait=0.05):
                raise AssertionError("the block ran")
    assert not await lock.is_locked()


async def test_an_error_in_the_block_lets_go(redis: Redis) -> None:
    """The lock is released when its block raises, and the error goes on."""
    lock = RedisLock("job", redis=redis)
    with pytest.raises(ZeroDivisionError):
        async with lock:
            raise ZeroDivisionError
    assert not await lock.is_locked()


async def test_one_object_is_one_holder(redis: Redis) -> None:
    """A lock object that holds the lock refuses to acquire it again, and keeps it."""
    async with RedisLock("job", redis=redis) as lock:
        with pytest.raises(LockError, match="of its own"):
            await lock.acquire()
        assert await lock.renew()


async def test_only_a_holder_releases_and_renews(redis: Redis) -> None:
    """Releasing or renewing a lock that was not acquired raises, and touches nobody's."""
    async with RedisLock("job", redis=redis):
        other = RedisLock("job", redis=redis)
        with pytest.raises(LockNotAcquired, match="acquire"):
            await other.release()
        with pytest.raises(LockNotAcquired, match="acquire"):
            await other.renew()
        assert await other.is_locked()


async def test_names_do_not_collide(redis: Redis) -> None:
    """Locks of different names are different locks, whatever letters are in them."""
    names = ["a", "a:fence", "{a}", "a*", "a ", "ä", "a" * 200, "a" * 201, "a%3Afence"]
    locks = [RedisLock(name, redis=redis) for name in names]
    assert all([await lock.acquire() for lock in locks])
    assert all([await lock.release() for lock in locks])


async def test_state_is_told(redis: Redis) -> None:
    """Anybody can ask whether the lock is held, by whom, and for how long it lasts."""
    lock, other = RedisLock("job", ttl=60, redis=redis), RedisLock("job", redis=redis)
    assert (await other.is_locked(), await other.get_lock_holder(), await other.get_ttl()) == (False, None, None)
    async with lock:
        holder, ttl = await other.get_lock_holder(), await other.get_ttl()
        assert await other.is_locked()
        assert holder is not None
        assert holder.count(":") == 2
        assert ttl is not None
        assert 0 < ttl <= 60


async def test_clients_that_decode_work(redis_url: str) -> None:
    """A client with ``decode_responses=True`` gives the same answers."""
    async with client_of(redis_url, decode_responses=True) as client, RedisLock("job", redis=client) as lock:
        assert lock.fence
        assert isinstance(await lock.get_lock_holder(), str)
        assert await lock.renew()


async def test_fences_grow(redis: Redis) -> None:
    """Every acquisition has a greater fence than all before it."""
    fences = []
    for _ in range(20):
        async with RedisLock("job", redis=redis) as lock:
            fences.append(lock.fence)
    assert fences == sorted(set(fences))


async def test_fences_grow_when_the_counter_is_lost(redis: Redis) -> None:
    """A counter that was evicted, or ended, does not go back."""
    async with RedisLock("job", redis=redis) as lock:
        before = lock.fence
    assert await redis.delete(f"{lock_key('job')}:fence") == 1
    async with RedisLock("job", redis=redis) as lock:
        assert lock.fence > before


async def test_fences_grow_when_the_clock_goes_back(redis: Redis) -> None:
    """A counter that is ahead of the server's clock goes on counting."""
    ahead = 2**52
    await redis.set(f"{lock_key('job')}:fence", ahead)
    async with RedisLock("job", redis=redis) as lock:
        assert lock.fence == ahead + 1


def test_both_keys_lie_in_one_slot() -> None:
    """On a cluster, a lock and its counter are on one node, whatever the name."""
    for name in ("job", "{job}", "}{", "a:b"):
        assert key_slot(lock_key(name).encode()) == key_slot(f"{lock_key(name)}:fence".encode())


async def test_a_lock_is_renewed_while_its_block_runs(redis: Redis) -> None:
    """The remaining life goes up again and again without anybody's doing."""
    async with RedisLock("job", ttl=1.5, redis=redis) as lock:
        seen = [0.0]

        async def renewed_twice() -> bool:
            seen.append(await lock.get_ttl() or 0.0)
            return sum(later > earlier for earlier, later in pairwise(seen)) >= 3

        await until(renewed_twice)
        assert not lock.lost


async def test_without_renewal_a_lock_ends_and_says_so(redis: Redis) -> None:
    """With ``auto_renewal=False`` the ttl is the limit: then ``lost`` is set, and another gets the lock."""
    async with RedisLock("job", ttl=1, redis=redis, auto_renewal=False) as lock:
        assert not lock.lost
        await soon(lock.lost.wait())
        assert lock.lost
        async with RedisLock("job", redis=redis, wait=None) as other:
            assert other.fence > lock.fence


async def test_an_ended_lock_is_not_released_from_under_another(redis: Redis) -> None:
    """Whose lock has ended deletes nobody's: release says False, and the next holder keeps it."""
    slow = RedisLock("job", ttl=1, redis=redis, auto_renewal=False)
    await slow.acquire()
    async with RedisLock("job", redis=redis, wait=None) as other:
        assert not await slow.release()
        assert await other.renew()


async def test_renewing_puts_the_end_off(redis: Redis) -> None:
    """``renew`` gives another ttl; of a lock that was taken over, it says False and ``lost`` is set."""
    lock = RedisLock("job", ttl=60, redis=redis, auto_renewal=False)
    await lock.acquire()
    await redis.pexpire(lock_key("job"), 5_000)
    assert await lock.renew()
    assert (await lock.get_ttl() or 0) > 5
    await redis.set(lock_key("job"), "somebody else")
    assert not await lock.renew()
    assert lock.lost
    assert not await lock.release()
    assert await redis.get(lock_key("job")) == b"somebody else"


async def test_a_taken_lock_is_lost(redis: Redis) -> None:
    """The next renewal finds that somebody else has the lock, and wakes who waits for ``lost``."""
    async with RedisLock("job", ttl=1, redis=redis) as lock:
        await redis.set(lock_key("job"), "somebody else")
        await soon(lock.lost.wait())
        assert "somebody else" in repr(lock.lost)


async def test_a_restart_loses_the_lock_and_no_fence(frail: tuple[RedisServer, Redis]) -> None:
    """After Redis came back empty, the holder is told at the next renewal, and the next fence is greater."""
    server, client = frail
    async with RedisLock("job", ttl=1, redis=client) as lock:
        await asyncio.to_thread(server.restart)
        await soon(lock.lost.wait())
        async with RedisLock("job", redis=client, wait=None) as other:
            assert other.fence > lock.fence


async def test_a_dead_server_loses_the_lock(frail: tuple[RedisServer, Redis]) -> None:
    """A lock that cannot be renewed is lost when its ttl is over, and leaving its block raises nothing."""
    server, client = frail
    async with RedisLock("job", ttl=1, redis=client) as lock:
        await asyncio.to_thread(server.kill)
        await soon(lock.lost.wait())
    assert "ran out" in repr(lock.lost)


async def test_a_dead_server_is_no_busy_lock(frail: tuple[RedisServer, Redis]) -> None:
    """Where Redis cannot be asked, acquiring raises instead of saying that somebody else has the lock."""
    server, client = frail
    await asyncio.to_thread(server.kill)
    with pytest.raises(LockUnavailable, match="job"):
        async with RedisLock("job", redis=client):
            raise AssertionError("the block ran")
    with pytest.raises(LockUnavailable):
        await RedisLock("job", redis=client).is_locked()


async def test_an_answer_that_comes_too_late_is_none(frail: tuple[RedisServer, Redis]) -> None:
    """A lock that had ended before its acquisition was answered is not held, and nobody is said to have it."""
    server, client = frail
    await client.ping()
    server.pause()
    acquiring = asyncio.create_task(RedisLock("job", ttl=0.001, redis=client).acquire())
    await asyncio.sleep(0.05)  # more than the lock's life
    server.resume()
    with pytest.raises(LockUnavailable, match="longer to answer"):
        await acquiring


async def test_cancelled_while_waiting(redis: Redis) -> None:
    """Who is cancelled while waiting holds nothing, and the holder keeps the lock."""
    async with RedisLock("job", redis=redis) as lock:
        waiting = asyncio.create_task(RedisLock("job", redis=redis, wait=None).acquire())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await lock.renew()
    assert not await lock.is_locked()


async def test_cancelled_while_the_server_answers(frail: tuple[RedisServer, Redis]) -> None:
    """Who is cancelled before the answer came leaves no lock behind, though the server has given it."""
    server, client = frail
    await client.ping()
    lock = RedisLock("job", redis=client)
    server.pause()
    acquiring = asyncio.create_task(lock.acquire())
    for _ in range(5):
        await asyncio.sleep(0)  # the request is on its way
    acquiring.cancel()
    server.resume()
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    assert not lock.acquired
    assert not await lock.is_locked()


async def test_cancelled_at_any_moment(redis: Redis) -> None:
    """Wherever the cancellation comes in, no lock is left behind."""
    for turns in range(100):
        lock = RedisLock("job", redis=redis)
        acquiring = asyncio.create_task(lock.acquire())
        for _ in range(turns):
            await asyncio.sleep(0)
        if acquiring.done():
            await lock.release()
            break
        acquiring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acquiring
        assert not await lock.is_locked()


async def test_cancelled_in_the_block(redis: Redis) -> None:
    """A block that is cancelled lets go of its lock before the cancellation goes on."""
    inside = asyncio.Event()

    async def hold() -> None:
        async with RedisLock("job", redis=redis):
            inside.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    await soon(inside.wait())
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    assert not await RedisLock("job", redis=redis).is_locked()


async def test_dm_6_a_silent_server_does_not_hold_up_the_loop(frail: tuple[RedisServer, Redis]) -> None:
    """While Redis does not answer, the event loop goes on."""
    server, client = frail
    await client.ping()
    server.pause()
    acquiring = asyncio.create_task(RedisLock("job", redis=client).acquire())
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert not acquiring.done()
    server.resume()
    assert await acquiring


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": ""}, EmptyInput),
        ({"name": b"job"}, ValueRefused),
        ({"name": "job", "ttl": 0}, ValueRefused),
        ({"name": "job", "ttl": -1}, ValueRefused),
        ({"name": "job", "ttl": float("nan")}, ValueRefused),
        ({"name": "job", "ttl": True}, ValueRefused),
        ({"name": "job", "wait": -1}, ValueRefused),
        ({"name": "job", "wait": "long"}, ValueRefused),
        ({"name": "job", "redis": "redis://localhost"}, RedisRefused),
        ({"name": "job", "redis": SyncRedis()}, RedisRefused),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], error: type[FastRDBError]) -> None:
    """What cannot be a lock is refused at once, with an error that says what to pass."""
    with pytest.raises(error):
        RedisLock(**arguments)


async def test_contradicting_arguments_are_refused(redis: Redis) -> None:
    """Not to wait, and to wait for a time, is one too many."""
    with pytest.raises(InputError, match="blocking=False"):
        await RedisLock("job", redis=redis).acquire(timeout=1, blocking=False)

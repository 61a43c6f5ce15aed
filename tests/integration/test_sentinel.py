"""A cache whose server a Sentinel watches over: after a failover it finds the new primary, and serves nothing old."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio
from redis.asyncio.sentinel import Sentinel

from fastrdb import Cache
from fastrdb.cache.store import Claim, Fill, Get, Mint
from fastrdb.errors import CacheUnavailable, ServerRefused
from tests.models import named
from tests.servers.cluster import address, role, say
from tests.servers.redis import RedisServer
from tests.servers.sentinel import SERVICE, Watched
from tests.world import ANN, Read, opened, until

LIFE_MS = 60_000
MARK = b'"?r"'


@pytest.fixture
def watched(private_redis: Callable[..., RedisServer]) -> Iterator[Watched]:
    """A primary, a replica, a Sentinel."""
    found = Watched(private_redis)
    yield found
    found.stop()


@asynccontextmanager
async def client_of(watched: Watched) -> AsyncIterator[redis.asyncio.Redis]:
    """Give the client that an application would have."""
    sentinel = Sentinel([watched.address])
    client = sentinel.master_for(SERVICE)
    try:
        yield client
    finally:
        await client.aclose()
        await sentinel.aclose()


async def test_a_killed_primary_is_followed(watched: Watched) -> None:
    """The primary is killed: the cache goes on at the replica, by its name, in another epoch."""
    async with client_of(watched) as client, Cache.from_client(client) as cache:
        store = cache.store
        await store.run([Claim(b"entry", MARK, LIFE_MS), Fill(b"entry", MARK, b"value", LIFE_MS)])
        assert await store.read(b"entry", (), bulk=True) == (b"value", ())
        epoch = store.epoch
        say(watched.primary, "WAIT", 1, 5_000)
        await asyncio.to_thread(watched.primary.kill)
        await until(lambda: writes(cache))
        assert role(watched.replica) == b"master"
        assert await store.read(b"entry", ()) == (b"value", ())
        assert store.epoch not in (epoch, b"")
        assert SERVICE in repr(store)


async def writes(cache: Cache) -> bool:
    """Whether the cache takes commands."""
    try:
        return await cache.run([Mint(b"token", b"t", LIFE_MS)]) == [b"t"]
    except CacheUnavailable:
        return False


async def test_a_primary_that_steps_down_is_left(watched: Watched) -> None:
    """A server that answers READONLY counts as out of reach, not as refused: the next dial asks the Sentinel again."""
    async with client_of(watched) as client, Cache.from_client(client) as cache:
        assert await writes(cache)
        say(watched.primary, "REPLICAOF", *address(watched.replica).split(":"))
        for _ in range(2):  # over the connection that was there, and by a new one
            with pytest.raises(CacheUnavailable):
                await cache.run([Mint(b"token", b"t", LIFE_MS)])
        say(watched.primary, "REPLICAOF", "NO", "ONE")
        await until(lambda: writes(cache))


async def test_a_crud_goes_on_through_a_failover(watched: Watched, sqlite_url: str) -> None:
    """A write before and one during the failover are seen by every process; after it, reads are cached again."""
    async with opened(sqlite_url, watched.primary.url) as world, client_of(watched) as client:
        await world.crud.update(db=world.factory, redis=client, obj_in=named("before"), id=ANN)
        given = {"db": world.factory, "redis": client, "id": ANN}
        assert (await world.crud.get(**given)).name == "before"
        await asyncio.to_thread(watched.primary.kill)
        await world.crud.update(db=world.factory, redis=client, obj_in=named("during"), id=ANN)
        assert (await world.crud.get(**given)).name == "during"
        cache = Cache.from_client(client)
        await until(lambda: writes(cache))
        world.cache = cache

        async def hit() -> bool:
            assert (await world.crud.get(**given)).name == "during"
            return await world.read() == Read("during", from_cache=True)

        await until(hit)
        await cache.aclose()


async def test_replicas_of_a_sentinel_are_refused(watched: Watched) -> None:
    """A client of ``slave_for`` reads from replicas, which lag: it is refused."""
    sentinel = Sentinel([watched.address])
    replicas = sentinel.slave_for(SERVICE)
    async with Cache.from_client(replicas) as cache:
        with pytest.raises(ServerRefused, match="replica"):
            await cache.store.read(b"entry", ())
    await replicas.aclose()
    await sentinel.aclose()


async def test_without_any_sentinel_it_is_unavailable(watched: Watched) -> None:
    """No Sentinel answers: the cache counts as out of reach."""
    watched.stop()
    async with client_of(watched) as client, Cache.from_client(client) as cache:
        with pytest.raises(CacheUnavailable):
            await cache.run([Get(b"entry")])


async def test_a_primary_that_is_demoted_quietly_is_noticed(private_redis: Callable[[], RedisServer]) -> None:
    """A primary that becomes a replica and keeps its connections is left within seconds, also by who only reads."""
    primary, server = private_redis(), private_redis()
    async with Cache.from_url(server.url) as cache:
        await cache.store.read(b"entry", ())
        say(server, "REPLICAOF", *address(primary).split(":"))
        await until(lambda: is_refused(cache), pause_s=0.1)


async def is_refused(cache: Cache) -> bool:
    """Whether reads are refused."""
    try:
        await cache.store.read(b"entry", ())
    except ServerRefused:
        return True
    return False

"""The near tier on real servers: others' writes are seen, own ones at once, and a cut link is bounded."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import pytest
import redis as sync_redis
from redis.asyncio import Redis, RedisCluster

from fastrdb import Cache, ConfigurationError, NearTier, invalidate
from fastrdb.cache.near import Near
from fastrdb.cache.redis import RedisStore
from fastrdb.testing.faults import Proxy
from tests.models import User, UserIn, named
from tests.servers.redis import RedisServer
from tests.world import ANN, BOB, World, opened, until

NEVER_S = 600.0  # so that only what is tested ends a copy


@pytest.fixture
async def world(sqlite_url: str, redis_url: str) -> AsyncIterator[World]:
    """Two users; a cache with a near tier, in which Ann lies."""
    async with opened(sqlite_url, redis_url) as world:
        world.cache = world.another_cache(near=NearTier(max_age_s=NEVER_S))
        await near(world)
        yield world


def tier(world: World) -> Near:
    """The near tier of the world's cache."""
    assert world.cache.near is not None
    return world.cache.near


async def near(world: World, **key: object) -> None:
    """Read a user, Ann by default, until she lies near."""
    await until(lambda: is_near(world, **key))


async def is_near(world: World, **key: object) -> bool:
    """Read; tell whether that needed no Redis."""
    before = world.cache.stats.near_hits
    await world.read(**key)
    return world.cache.stats.near_hits > before


async def shows(world: World, name: str | None, **key: object) -> bool:
    """Tell whether a reader is given this name."""
    return (await world.read(**key)).name == name


async def change(world: World, name: str, cache: Cache | None = None, id: int = ANN) -> None:
    """Change a user's name, by the world's cache or another one."""
    await world.crud.update(db=world.factory, redis=cache or world.cache, obj_in=named(name), id=id)


# What is kept, and what ends it.


async def test_near_hits_ask_nobody(world: World, redis_server: RedisServer) -> None:
    """A near hit sends Redis nothing and SQL nothing, is counted as a hit too, and ``explain`` tells of the copy."""
    with sync_redis.Redis.from_url(redis_server.url) as admin:
        before, hits = admin.info("commandstats").get("cmdstat_mget", {}).get("calls"), world.cache.stats.hits
        for _ in range(100):
            assert (await world.read()).from_cache
        assert admin.info("commandstats")["cmdstat_mget"]["calls"] == before
    assert world.cache.stats.hits == hits + 100
    assert world.cache.stats.snapshot()["near hits"] >= 100
    assert (await world.crud.explain(world.cache, world.factory, id=ANN)).near
    assert not (await world.crud.explain(world.cache, world.factory, id=BOB)).near


async def names_by_keys(world: World, *ids: int) -> list[str | None]:
    """Read users by their keys."""
    found = await world.crud.get_by_keys(world.factory, world.cache, list(ids), missing="none")
    return [user.name if user is not None else None for user in found]


async def test_rows_by_keys_lie_near(world: World) -> None:
    """``get_by_keys`` asks Redis for those only that do not lie near, keeps them, and sees what others write."""
    assert await names_by_keys(world, ANN, BOB) == ["Ann", "Bob"]

    async def asks_nobody() -> bool:
        before = world.cache.stats.near_hits
        assert await names_by_keys(world, BOB, 77, ANN) == ["Bob", None, "Ann"]
        return world.cache.stats.near_hits == before + 3

    await until(asks_nobody)
    hits = world.cache.stats.hits
    assert await names_by_keys(world, ANN, BOB) == ["Ann", "Bob"]
    assert world.cache.stats.hits == hits + 2
    assert await is_near(world, id=BOB), "a read of one finds what a read of many has kept"
    await change(world, "new", world.another_cache(), BOB)

    async def seen() -> bool:
        return await names_by_keys(world, ANN, BOB) == ["Ann", "new"]

    await until(seen)
    await change(world, "newer", id=BOB)
    assert await names_by_keys(world, ANN, BOB) == ["Ann", "newer"]


async def test_writes_of_others_are_seen(world: World) -> None:
    """What another cache writes, as another process would, is read here as soon as Redis has told of it."""
    other = world.another_cache()
    for name in ("one", "two", "three"):
        await change(world, name, other)
        await until(lambda name=name: shows(world, name))
        await near(world)


async def test_own_writes_are_seen_at_once(world: World) -> None:
    """No read after a write of this process gives the row from before it, whether told of or not."""
    for number in range(50):
        await near(world)
        await change(world, f"name {number}")
        assert await shows(world, f"name {number}")


async def test_own_writes_are_seen_without_the_server_telling(world: World) -> None:
    """What a write of this process held and let go is dropped by itself, also where no push ever comes."""
    deaf(world)
    await change(world, "new")
    assert await shows(world, "new")


async def test_own_writes_are_seen_by_readers_on_the_way(world: World) -> None:
    """Readers that go on while this process writes never read back in time, once the write has returned."""
    done, wrong = asyncio.Event(), []
    written = ["Ann"]

    async def read() -> None:
        while not done.is_set():
            least = len(written) - 1
            name = (await world.read()).name
            if name in written and written.index(name) < least:
                wrong.append((name, written[least]))
            await asyncio.sleep(0)

    deaf(world)
    readers = [asyncio.create_task(read()) for _ in range(4)]
    for number in range(60):
        await change(world, f"name {number}")
        written.append(f"name {number}")
        await asyncio.sleep(0)
    done.set()
    await asyncio.gather(*readers)
    assert not wrong


def deaf(world: World) -> None:
    """Let the server's pushes go unread; the link stays open."""
    link = tier(world)._link
    assert link is not None
    assert link._wire is not None
    link._wire.on_push = lambda push: None  # type: ignore[attr-defined]


async def test_lists_lie_near_and_are_dropped(world: World) -> None:
    """A page, and a count, are near hits; a row that another process creates ends both."""

    async def listed() -> tuple[int, int]:
        page = await world.crud.get_multi(world.factory, world.cache, group_id=1)
        return len(page), await world.crud.count(world.factory, world.cache, group_id=1)

    async def both_near() -> bool:
        before = world.cache.stats.near_hits
        assert await listed() == (2, 2)
        return world.cache.stats.near_hits == before + 2

    async def has_three() -> bool:
        return await listed() == (3, 3)

    await until(both_near)
    await world.crud.create(db=world.factory, redis=world.another_cache(), obj_in=UserIn(email="carl@x"))
    await until(has_three)


async def test_that_there_is_no_row_lies_near(world: World) -> None:
    """Nothing found is kept as a row is, and ends when the row is created elsewhere."""
    await near(world, id=3)
    await world.crud.create(db=world.factory, redis=world.another_cache(), obj_in=UserIn(email="carl@x", name="Carl"))
    await until(lambda: shows(world, "Carl", id=3))


async def test_invalidate_and_clear_count(world: World) -> None:
    """After ``invalidate`` and ``clear``, here or elsewhere, the next read here asks SQL."""
    await world.execute("UPDATE users SET name = 'psql' WHERE id = 1")
    assert await shows(world, "Ann")
    await world.crud.invalidate(world.cache, id=ANN)
    assert await shows(world, "psql")
    await near(world)
    await world.execute("UPDATE users SET name = 'again' WHERE id = 1")
    await world.crud.clear(world.cache)
    assert await shows(world, "again")
    await near(world)
    await world.execute("UPDATE users SET name = 'elsewhere' WHERE id = 1")
    await invalidate(world.another_cache(), User)
    await until(lambda: shows(world, "elsewhere"))


async def test_foreign_flush_is_seen(world: World, redis_server: RedisServer) -> None:
    """FLUSHALL from outside ends all copies."""
    with sync_redis.Redis.from_url(redis_server.url) as admin:
        admin.flushall()
    await until(lambda: is_empty(world))


async def is_empty(world: World) -> bool:
    """Tell whether nothing lies near."""
    return not len(tier(world).copies)


async def test_deleted_and_evicted_keys_are_seen(world: World, redis_server: RedisServer) -> None:
    """A key that is deleted, runs out or is evicted ends its copy."""
    with sync_redis.Redis.from_url(redis_server.url) as admin:
        admin.delete("user:id:1")
        await until(lambda: is_empty(world))
        await near(world)
        admin.pexpire("user:id:1", 1)
        await until(lambda: is_empty(world))
        await near(world)
        admin.config_set("maxmemory-policy", "allkeys-lru")
        try:
            admin.config_set("maxmemory", "1")
            with pytest.raises(sync_redis.ResponseError, match="maxmemory"):
                admin.set("more", "x")
            await until(lambda: is_empty(world))
        finally:
            admin.config_set("maxmemory", "0")
            admin.config_set("maxmemory-policy", "noeviction")


# Who may not be answered from here.


async def test_switched_off_cache_serves_nothing_near(world: World) -> None:
    """``serves = False`` asks SQL for everything; switched on again, what was written meanwhile is seen."""
    world.cache.serves = False
    assert not (await world.read()).from_cache
    await change(world, "meanwhile")
    world.cache.serves = True
    assert await shows(world, "meanwhile")


async def test_sessions_that_have_written_read_their_own_work(world: World) -> None:
    """A session with changes is not answered from a copy, another one with none is."""
    async with world.factory() as session:
        assert (await world.read(session)).from_cache
        found = await session.get_one(User, ANN)
        found.name = "pending"
        assert (await world.read(session)).name == "pending"
        await session.rollback()
    assert await shows(world, "Ann")


async def test_kept_invalidations_stop_near_hits(sqlite_url: str, private_redis: Callable[[], RedisServer]) -> None:
    """Where a write could not tell Redis, nothing is served from here until it was told."""
    server = private_redis()
    async with opened(sqlite_url, server.url) as world:
        world.cache = world.another_cache(timeout_s=0.2, near=NearTier(max_age_s=NEVER_S))
        await near(world)
        server.pause()
        await change(world, "unheard")
        assert world.cache.undelivered
        assert await shows(world, "unheard")
        server.resume()
        await until(lambda: is_near(world))
        assert await shows(world, "unheard")


# The link.


@pytest.fixture
async def linked(
    sqlite_url: str, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[float], "Linked"]]:
    """Gives worlds whose near tier, and nothing else, is connected through a proxy."""
    address = urlsplit(valkey_url)
    async with Proxy.to(address.hostname or "", address.port or 0) as proxy, opened(sqlite_url, valkey_url) as world:
        yield lambda max_age_s: Linked(world, proxy, max_age_s, monkeypatch)


class Linked:
    """A world whose cache has a near tier, connected through a proxy; and another cache, connected as ever."""

    def __init__(self, world: World, proxy: Proxy, max_age_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.proxy, self.other = world, proxy, world.another_cache()
        world.cache = world.another_cache(near=NearTier(max_age_s=max_age_s))
        through = RedisStore.factory_from_url(proxy.through(world.redis_url))().dialer
        monkeypatch.setattr(RedisStore, "dialer", through)


async def test_cut_link_ends_all_copies(linked: Callable[[float], Linked]) -> None:
    """When the connection is lost all copies go at once; nothing is kept while it is away; it comes back by itself."""
    there = linked(NEVER_S)
    world = there.world
    await near(world)
    there.proxy.refuses = True
    there.proxy.cut()
    await until(lambda: is_empty(world))
    for _ in range(5):
        assert not await is_near(world)
    there.proxy.refuses = False
    await near(world)


async def test_silent_link_is_noticed(linked: Callable[[float], Linked]) -> None:
    """A link that says nothing more, and is not closed, bounds what is served by ``max_age_s``, and is given up."""
    max_age_s = 1.0
    there = linked(max_age_s)
    world, loop = there.world, asyncio.get_running_loop()
    await near(world)
    there.proxy.stall()
    await change(world, "unheard", there.other)
    written = loop.time()
    while not await shows(world, "unheard"):
        assert loop.time() < written + max_age_s
        await asyncio.sleep(0.005)
    await until(lambda: is_empty(world))
    there.proxy.resume()
    await near(world)


def stop_for(seconds: float) -> None:
    """Stop this process, and let it go on after that time, by the hand of another one."""
    pid = os.getpid()
    subprocess.run(["/bin/sh", "-c", f"kill -STOP {pid}; sleep {seconds}; kill -CONT {pid}"], check=True)


async def test_paused_process_serves_nothing_old(linked: Callable[[float], Linked]) -> None:
    """A process that was stopped for ``max_age_s`` serves no copy from before, not even as the first thing."""
    there = linked(0.3)
    world = there.world
    await near(world)
    stop_for(0.5)
    before = world.cache.stats.near_hits
    await world.read()
    assert world.cache.stats.near_hits == before


async def test_restarted_server_ends_all_copies(sqlite_url: str, private_redis: Callable[[], RedisServer]) -> None:
    """After a restart nothing is served from before it; then the tier works again."""
    server = private_redis()
    async with opened(sqlite_url, server.url) as world:
        world.cache = world.another_cache(near=NearTier(max_age_s=NEVER_S))
        await near(world)
        await asyncio.to_thread(server.restart)
        await until(lambda: is_empty(world))
        await world.execute("UPDATE users SET name = 'after' WHERE id = 1")
        await until(lambda: shows(world, "after"))
        await near(world)


async def test_server_that_refuses_leaves_the_tier_off(
    sqlite_url: str, private_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Where a user may not ask for tracking, reads go on without the tier, and the log says once what is missing."""
    server = private_redis()
    with sync_redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">word", "~*", "&*", "+@all", "-client|tracking")
    async with opened(sqlite_url, server.url.replace("redis://", "redis://app:word@")) as world:
        world.cache = world.another_cache(near=NearTier())
        await world.warm()
        await until(lambda: said(caplog))
        assert (await world.read()).from_cache
        assert world.cache.stats.near_hits == 0
    assert "word" not in caplog.text
    assert sum("+client|tracking" in message for message in caplog.messages) == 1


async def said(caplog: pytest.LogCaptureFixture) -> bool:
    """Tell whether the log says that the tier is off."""
    return any("+client|tracking" in message for message in caplog.messages)


# Life and death.


async def test_cancelled_readers_leave_nothing_behind(world: World) -> None:
    """Readers that are cancelled under way leave the tier working, and right."""
    other = world.another_cache()
    for number in range(30):
        await change(world, f"name {number}", other)
        readers = [asyncio.create_task(world.read()) for _ in range(8)]
        await asyncio.sleep(0)
        for reader in readers[::2]:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await until(lambda number=number: shows(world, f"name {number}"))
    await near(world)


async def test_closed_cache_has_no_connection_left(world: World, redis_server: RedisServer) -> None:
    """``aclose`` ends the tracking connection, too, and its task."""

    async def tracked() -> int:
        async with Redis.from_url(redis_server.url) as admin:
            return sum("t" in each["flags"] or "B" in each["flags"] for each in await admin.client_list())

    async def none_left() -> bool:
        return await tracked() == 0

    assert await tracked() == 1
    link = tier(world)._link
    await world.cache.aclose()
    assert link is not None
    assert link.ended
    await until(none_left)


def test_another_loop_takes_over(sqlite_url: str, valkey_url: str) -> None:
    """When the loop that had the connection has ended, the next one has a tier as well."""
    cache = Cache.from_url(valkey_url, near=NearTier(max_age_s=NEVER_S))

    async def use() -> None:
        async with opened(sqlite_url, valkey_url) as world:
            world.cache = cache
            await near(world)
            await change(world, "new", world.another_cache())
            await until(lambda: shows(world, "new"))
            await world.execute("DROP TABLE users")

    asyncio.run(use())
    asyncio.run(use())
    asyncio.run(cache.aclose())


async def test_loops_of_other_threads_share_the_copies(world: World) -> None:
    """A write in one thread's loop is seen at once in another's, of the same cache, without the server telling."""
    deaf(world)

    async def elsewhere() -> None:
        engine = world.another_engine()
        await world.crud.update(
            db=lambda: world.factory(bind=engine), redis=world.cache, obj_in=named("thread"), id=ANN
        )
        await engine.dispose()

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert await shows(world, "thread")


# Where it cannot be had.


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cache.from_url("memory://", near=NearTier()),
        lambda: Cache.from_url("redis+cluster://127.0.0.1:7000", near=NearTier()),
        lambda: Cache.from_client(RedisCluster(host="127.0.0.1", port=7000), near=NearTier()),
        lambda: NearTier(max_size=1),
        lambda: NearTier(max_age_s=0),
    ],
    ids=["memory", "cluster", "cluster client", "too small", "no age"],
)
async def test_what_it_cannot_do_is_refused(make: Callable[[], object]) -> None:
    """memory://, clusters, and limits that mean nothing are refused where they are given."""
    with pytest.raises(ConfigurationError, match=r"near|max_size|max_age_s"):
        make()


async def test_a_client_can_have_it(world: World, redis_server: RedisServer) -> None:
    """``from_client`` takes it, too, whatever the client's own protocol."""
    client = Redis.from_url(redis_server.url, protocol=2, decode_responses=True)
    cache = Cache.from_client(client, near=NearTier(max_age_s=NEVER_S))
    world.cache = cache
    await near(world)
    await cache.aclose()
    await client.aclose()


async def test_overlapping_prefixes_are_joined(sqlite_url: str, valkey_url: str) -> None:
    """A cache prefix that begins the tokens' own keys works: Redis refuses prefixes that overlap."""
    async with opened(sqlite_url, valkey_url) as world:
        world.cache = world.another_cache(prefix="fastrdb:t:", near=NearTier(max_age_s=NEVER_S))
        await near(world)
        await change(world, "new", world.another_cache(prefix="fastrdb:t:"))
        await until(lambda: shows(world, "new"))

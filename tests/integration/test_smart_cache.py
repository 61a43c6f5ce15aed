"""SmartCache: the same answers on Valkey, on Redis 7 and in this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from fastrdb import Cache, FastRDBError
from fastrdb.caching import SmartCache, get_redis_client
from fastrdb.db import defaults
from fastrdb.errors import (
    ConfigurationError,
    EmptyInput,
    InputError,
    RedisRefused,
    SerializationFailed,
    ValueRefused,
)
from tests.servers.fleet import Fleet
from tests.servers.redis import RedisServer, client, commandstats
from tests.world import until

MANY = 300


class User(BaseModel):
    """A model, as one would cache it."""

    id: int
    born: date


@dataclass
class Point:
    """A dataclass."""

    x: Decimal


@pytest.fixture(params=["valkey", "redis7", "memory"])
def url(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[str]:
    """An emptied server, or none; the keys of the servers are never walked."""
    if request.param == "memory":
        yield "memory://"
        return
    server = fleet.redis(request.param)
    server.clean()
    before = server.forbidden_calls()
    yield server.url
    assert not server.forbidden_calls() - before


@pytest.fixture
async def shared(url: str) -> AsyncIterator[Cache]:
    """What the caches of a test lie in."""
    async with Cache.from_url(url) as cache:
        yield cache


@pytest.fixture
def users(shared: Cache) -> SmartCache:
    """A cache of users."""
    return SmartCache("users", ttl=300, redis=shared)


@pytest.fixture
async def others(valkey_url: str) -> AsyncIterator[list[SmartCache]]:
    """Four caches with connections of their own, as four processes have them."""
    async with AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(Cache.from_url(valkey_url)) for _ in range(4)]
        yield [SmartCache("users", redis=cache) for cache in caches]


@pytest.fixture
async def frail(private_redis: Callable[..., RedisServer]) -> AsyncIterator[tuple[RedisServer, SmartCache]]:
    """A server to pause, kill and restart, and a cache on it."""
    server = private_redis()
    async with Cache.from_url(server.url, timeout_s=0.3) as cache:
        yield server, SmartCache("users", redis=cache)


class Source:
    """What is loaded when the cache has nothing: each load waits to be let through."""

    def __init__(self, value: Any, *, open: bool = True) -> None:
        self.value, self.loads = value, 0
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        if open:
            self.gate.set()

    async def __call__(self) -> Any:
        """Load."""
        self.loads += 1
        value = self.value
        self.begun.set()
        await self.gate.wait()
        return value


async def test_a_value_comes_back(users: SmartCache) -> None:
    """What was set under a kind and an id is given for them, and for no other."""
    assert await users.set("user", 1, {"name": "Ann", "tags": ["a", None]})
    assert await users.get("user", 1) == {"name": "Ann", "tags": ["a", None]}
    assert await users.get("user", 2) is None
    assert await users.get("team", 1) is None


@pytest.mark.parametrize("value", [0, "", [], {}, None, False, "null", "z", [None], 2**70, 0.1, "\N{SNOWMAN}"])
async def test_any_json_value_is_told_from_nothing(users: SmartCache, value: Any) -> None:
    """A false or empty value is a hit: what was set comes back instead of the default."""
    missing = object()
    await users.set("any", "x", value)
    found = await users.get("any", "x", default=missing)
    assert (found, type(found)) == (value, type(value))
    assert await users.get("any", "y", default=missing) is missing
    assert (await users.get_stats()).hits == 1


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (User(id=1, born=date(2000, 1, 2)), {"id": 1, "born": "2000-01-02"}),
        (Point(Decimal("1.50")), {"x": "1.50"}),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2000, 1, 2, tzinfo=UTC), "2000-01-02T00:00:00Z"),
        ((1, 2), [1, 2]),
        ({1: "one"}, {"1": "one"}),
    ],
)
async def test_values_come_back_plain(users: SmartCache, value: Any, plain: Any) -> None:
    """What JSON has no word for comes back as pydantic writes it, from the cache and from a load alike."""
    await users.set("any", 1, value)
    assert await users.get("any", 1) == plain
    assert await users.get_or_load("any", 2, lambda: value) == plain
    assert await users.get_or_load("any", 2, lambda: None) == plain


async def test_values_are_not_shared_with_the_caller(users: SmartCache) -> None:
    """Changing what was given, or what was set, changes nothing in the cache."""
    value = {"tags": ["a"]}
    await users.set("user", 1, value)
    value["tags"].append("b")
    (await users.get("user", 1))["tags"].append("c")
    assert await users.get("user", 1) == {"tags": ["a"]}


@pytest.mark.parametrize("value", [object(), {"x": object()}, b"\xff", "\ud800"])
async def test_what_is_no_json_is_refused(users: SmartCache, value: Any) -> None:
    """A value that has no form in JSON raises, says which one it was, and leaves the old one."""
    await users.set("user", 1, "old")
    with pytest.raises(SerializationFailed, match="user:1"):
        await users.set("user", 1, value)
    with pytest.raises(SerializationFailed):
        await users.multi_set("user", {1: "new", 2: value})
    with pytest.raises(SerializationFailed):
        await users.get_or_load("user", 2, lambda: value)
    assert await users.get("user", 1) == "old"


async def test_a_circle_is_refused(users: SmartCache) -> None:
    """A list that contains itself raises the typed error, too."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(SerializationFailed):
        await users.set("user", 1, circle)


async def test_keys_do_not_collide(users: SmartCache, shared: Cache) -> None:
    """Every pair of kind and id has a value of its own, whatever letters are in them, and so has every namespace."""
    texts = ["a", "a:b", "b", ":", "*", "a*", "%3A", "%", "", " ", "ä", "~", "[a]", "{a}", "x" * 500, "x" * 501]
    pairs = [(kind, id) for kind in texts if kind for id in texts]
    for pair in pairs:
        await users.set(*pair, list(pair))
    for pair in pairs:
        assert await users.get(*pair) == list(pair)
    for other in (
        SmartCache("users:a", redis=shared),
        SmartCache("users", key_prefix="p:", redis=shared),
        SmartCache("*", redis=shared),
    ):
        assert await other.multi_get("a", texts) == {}


async def test_an_int_and_its_text_are_one_id(users: SmartCache) -> None:
    """An id from a path, which is text, names what was set under the number; a UUID likewise."""
    number = uuid4()
    await users.set("user", 1, "one")
    await users.set("user", number, "uuid")
    assert await users.get("user", "1") == "one"
    assert await users.get("user", str(number)) == "uuid"


async def test_caches_of_one_namespace_share(users: SmartCache, shared: Cache) -> None:
    """Another cache object of the same namespace has the values, and its invalidations count."""
    twin = SmartCache("users", redis=shared)
    await users.set("user", 1, "one")
    assert await twin.get("user", 1) == "one"
    await twin.clear_namespace()
    assert await users.get("user", 1) is None


async def test_delete(users: SmartCache) -> None:
    """A deleted value is gone; delete says whether there was one."""
    await users.set("user", 1, None)
    assert await users.exists("user", 1)
    assert await users.delete("user", 1)
    assert not await users.exists("user", 1)
    assert not await users.delete("user", 1)


async def test_nx_stores_where_nothing_is(users: SmartCache) -> None:
    """With nx, a stored value stays; a deleted or an aged one makes room."""
    assert await users.set("user", 1, "first", nx=True)
    assert not await users.set("user", 1, "second", nx=True)
    await users.invalidate_pattern("user:*")
    assert await users.set("user", 1, "third", nx=True)
    await users.delete("user", 1)
    assert await users.set("user", 1, "fourth", nx=True)
    assert await users.get("user", 1) == "fourth"


async def test_xx_stores_where_something_is(users: SmartCache) -> None:
    """With xx, only a stored value is replaced; an aged one counts as none."""
    assert not await users.set("user", 1, "first", xx=True)
    await users.set("user", 1, "second")
    assert await users.set("user", 1, "third", xx=True)
    await users.clear_namespace()
    assert not await users.set("user", 1, "fourth", xx=True)
    assert await users.get("user", 1) is None


@pytest.mark.parametrize("aged", [False, True])
async def test_of_many_nx_one_stores(others: list[SmartCache], aged: bool) -> None:
    """Of many that set with nx at once, from several processes, exactly one is told that it did."""
    if aged:
        await others[0].set("job", 1, "old")
        await others[0].clear_namespace()
    told = await asyncio.gather(*[cache.set("job", 1, "mine", nx=True) for cache in others * 8])
    assert told.count(True) == 1
    assert await others[1].get("job", 1) == "mine"


async def test_ttl_and_expire(users: SmartCache) -> None:
    """Lives are in seconds: the cache's own, a value's own, a changed one; -2 where nothing is."""
    await users.set("user", 1, "one")
    assert await users.ttl("user", 1) == 300
    await users.set("user", 1, "one", ttl=timedelta(minutes=1))
    assert await users.ttl("user", 1) == 60
    assert await users.expire("user", 1, 1_000_000)
    assert await users.ttl("user", 1) == 1_000_000
    assert await users.get("user", 1) == "one"
    assert await users.ttl("user", 2) == -2
    assert not await users.expire("user", 2, 60)
    await users.clear_namespace()
    assert await users.ttl("user", 1) == -2
    assert not await users.expire("user", 1, 60)


async def test_values_end(users: SmartCache) -> None:
    """A value is gone when its life is over."""
    await users.set("user", 1, "one", ttl=0.05)

    async def gone() -> bool:
        return not await users.exists("user", 1)

    await until(gone)


async def test_many_at_once(users: SmartCache) -> None:
    """Many values are set and asked for in one call; those that are missing are left out."""
    values = {id: {"id": id} for id in range(MANY)}
    assert await users.multi_set("user", values)
    assert await users.multi_get("user", [*range(-5, MANY), 0]) == values
    assert await users.multi_get("user", []) == {}
    assert await users.multi_set("user", {})
    stats = await users.get_stats()
    assert (stats.sets, stats.hits, stats.misses) == (MANY, MANY, 5)


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("user:*", {"user"}),
        ("user:1*", {"user"}),
        ("user:?", {"user"}),
        ("user:[12]", {"user"}),
        ("user:a:*", {"user"}),
        ("team:*", {"team", "team:lead"}),
        ("team:lead:*", {"team", "team:lead"}),
        ("team:l*", {"team", "team:lead"}),
        ("us*", {"user", "team", "team:lead"}),
        ("*", {"user", "team", "team:lead"}),
        ("*:1", {"user", "team", "team:lead"}),
        ("nobody:*", set()),
    ],
)
async def test_a_pattern_ages_all_that_it_matches(users: SmartCache, pattern: str, gone: set[str]) -> None:
    """The smallest directory that covers a pattern is aged, and no other."""
    kinds = {"user", "team", "team:lead"}
    for kind in kinds:
        await users.set(kind, 1, kind)
    assert await users.invalidate_pattern(pattern) == 1
    assert {kind for kind in kinds if not await users.exists(kind, 1)} == gone


async def test_a_pattern_without_wildcard_is_one_value(users: SmartCache) -> None:
    """Without a wildcard, the one value is dropped, however its colons are to be read."""
    for kind, id in (("user", 1), ("user", 2), ("team", "a:b"), ("team:a", "b")):
        await users.set(kind, id, "x")
    assert await users.invalidate_pattern("user:1") == 1
    assert await users.invalidate_pattern("team:a:b") == 2
    assert await users.multi_get("user", [1, 2]) == {2: "x"}
    assert not await users.exists("team", "a:b")
    assert not await users.exists("team:a", "b")


async def test_dm_5_an_invalidation_costs_the_same_for_any_number(valkey_server: RedisServer, valkey_url: str) -> None:
    """Invalidating a kind of many values runs one script, and walks no keys."""

    def calls() -> int:
        return commandstats(valkey_url).get("evalsha", 0) + commandstats(valkey_url).get("eval", 0)

    async with Cache.from_url(valkey_url) as shared:
        users = SmartCache("users", redis=shared)
        await users.multi_set("user", dict.fromkeys(range(MANY), "x"))
        await users.invalidate_pattern("user:*")
        await users.multi_set("user", dict.fromkeys(range(MANY), "x"))
        before = calls()
        await users.invalidate_pattern("user:*")
        assert calls() - before == 1
        assert await users.multi_get("user", range(MANY)) == {}


async def test_what_was_invalidated_can_be_set_again(users: SmartCache) -> None:
    """After an invalidation the cache works as before, at once."""
    for turn in range(3):
        await users.set("user", 1, turn)
        assert await users.get("user", 1) == turn
        await users.invalidate_pattern("user:*")
        assert await users.get("user", 1) is None


async def test_other_processes_see_what_was_done(others: list[SmartCache]) -> None:
    """Values, deletes and invalidations of one process hold for all, whatever they had seen before."""
    one, two, *_ = others
    await one.set("user", 1, "a")
    assert await two.get("user", 1) == "a"
    await two.set("user", 1, "b")
    assert await one.get("user", 1) == "b"
    await one.invalidate_pattern("user:*")
    assert await two.get("user", 1) is None
    await two.set("user", 1, "c")
    assert await one.get("user", 1) == "c"
    await one.delete("user", 1)
    assert await two.get("user", 1) is None


async def test_one_load_for_all_who_ask(users: SmartCache) -> None:
    """Many who ask for a missing value at once share one load, and later ones need none."""
    source = Source({"name": "Ann"}, open=False)
    asking = [asyncio.create_task(users.get_or_load("user", 1, source, wait=30)) for _ in range(50)]
    await source.begun.wait()
    source.gate.set()
    assert await asyncio.gather(*asking) == [{"name": "Ann"}] * 50
    assert await users.get_or_load("user", 1, source) == {"name": "Ann"}
    assert source.loads == 1


async def test_one_load_for_all_processes(others: list[SmartCache]) -> None:
    """Processes that ask at once share one load, too."""
    source = Source("Ann", open=False)
    asking = [asyncio.create_task(cache.get_or_load("user", 1, source, wait=30)) for cache in others * 5]
    await source.begun.wait()
    for _ in range(50):  # round trips in which the others find the claim; a load too many would begin here
        await others[0].exists("user", 2)
    source.gate.set()
    assert await asyncio.gather(*asking) == ["Ann"] * 20
    assert source.loads == 1


async def test_a_loaded_none_is_stored(users: SmartCache) -> None:
    """That there is nothing is an answer like any other: it is loaded once."""
    source = Source(None)
    assert await users.get_or_load("user", 1, source) is None
    assert await users.get_or_load("user", 1, source) is None
    assert source.loads == 1


async def overtaken(users: SmartCache, act: Callable[[], Any]) -> None:
    """Load, do something meanwhile, and see that what was loaded is given, and not stored."""
    source = Source("old", open=False)
    loading = asyncio.create_task(users.get_or_load("user", 1, source))
    await source.begun.wait()
    await act()
    source.gate.set()
    assert await loading == "old"


async def test_a_load_that_was_overtaken_is_not_stored(users: SmartCache) -> None:
    """What was loaded before a delete or an invalidation is not there after it."""
    for act in (
        lambda: users.delete("user", 1),
        lambda: users.invalidate_pattern("user:1"),
        lambda: users.invalidate_pattern("user:*"),
        lambda: users.invalidate_pattern("*"),
        users.clear_namespace,
    ):
        await overtaken(users, act)
        assert await users.get("user", 1) is None


@pytest.mark.parametrize("nx", [False, True])
async def test_a_set_wins_over_a_load_that_began_before(users: SmartCache, nx: bool) -> None:
    """What was set while an older value was being loaded stays."""
    await overtaken(users, lambda: users.set("user", 1, "new", nx=nx))
    assert await users.get("user", 1) == "new"


async def test_a_failed_load_fails_its_caller_only(users: SmartCache) -> None:
    """What a load raises goes to its caller; who waited for it loads, and the next one stores."""

    async def fail() -> None:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await users.get_or_load("user", 1, fail)
    assert await users.get_or_load("user", 1, lambda: "Ann") == "Ann"
    assert await users.get("user", 1) == "Ann"


async def test_a_cancelled_load_makes_room(users: SmartCache) -> None:
    """Who waits for a load that is cancelled does not wait for ever, and gets a value."""
    source = Source("Ann", open=False)
    leader = asyncio.create_task(users.get_or_load("user", 1, source))
    await source.begun.wait()
    follower = asyncio.create_task(users.get_or_load("user", 1, lambda: "Bob", wait=60))
    await asyncio.sleep(0)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert await follower == "Bob"


async def test_waiting_for_a_load_is_bounded(others: list[SmartCache]) -> None:
    """Who has waited long enough loads for itself, and stores nothing."""
    slow, fast, *_ = others
    source = Source("slow", open=False)
    loading = asyncio.create_task(slow.get_or_load("user", 1, source, wait=30))
    await source.begun.wait()
    assert await fast.get_or_load("user", 1, lambda: "fast", wait=0.05) == "fast"
    source.gate.set()
    assert await loading == "slow"


async def test_large_values_are_compressed(shared: Cache, url: str) -> None:
    """Above the threshold values are smaller in Redis; caches with and without compression read each other's."""
    packing = SmartCache("users", redis=shared, enable_compression=True, compression_threshold=100)
    plain = SmartCache("users", redis=shared)
    large, small = {"text": "x" * 10_000}, {"text": "x"}
    for writer in (packing, plain):
        for value in (large, small):
            await writer.set("user", 1, value)
            assert await packing.get("user", 1) == value
            assert await plain.get("user", 1) == value
    if url.startswith("redis"):
        key = "fastrdb:s:users:user:1"
        await packing.set("user", 1, large)
        with client(url) as server:
            assert len(server.get(key)) < 200
        await packing.set("user", 1, small)
        with client(url) as server:
            assert json.loads(server.get(key)) == small


async def test_what_does_not_compress_stays_plain(shared: Cache) -> None:
    """A value that compression would not make smaller is stored as it is."""
    packing = SmartCache("users", redis=shared, enable_compression=True, compression_threshold=0)
    await packing.set("user", 1, "ab")
    assert await packing.get("user", 1) == "ab"


async def test_counts(users: SmartCache) -> None:
    """Hits, misses, sets and deletes are counted, as attributes and by name, until they are reset."""
    began = (await users.get_stats()).last_reset
    await users.set("user", 1, "x")
    await users.set("user", 1, "y", nx=True)
    for id in (1, 1, 1, 2):
        await users.get("user", id)
    await users.delete("user", 1)
    await users.delete("user", 1)
    stats = await users.get_stats()
    assert (stats.hits, stats.misses, stats.sets, stats.deletes, stats.errors) == (3, 1, 1, 1, 0)
    assert stats["hit_rate"] == stats.hit_rate == 0.75
    assert f"{stats['hit_rate']:.2%}" == "75.00%"
    assert dict(stats)["error_rate"] == stats.error_rate == 0
    with pytest.raises(KeyError):
        stats["items"]
    await users.reset_stats()
    stats = await users.get_stats()
    assert (stats.hits, stats.hit_rate) == (0, 0)
    assert stats.last_reset > began
    assert stats.last_reset.tzinfo is not None


async def test_counting_can_be_switched_off(shared: Cache) -> None:
    """With ``track_stats=False`` all counts stay at zero."""
    cache = SmartCache("users", redis=shared, track_stats=False)
    await cache.set("user", 1, "x")
    await cache.get("user", 1)
    stats = await cache.get_stats()
    assert (stats.hits, stats.sets) == (0, 0)


async def test_without_redis_reads_give_defaults_and_writes_false(
    frail: tuple[RedisServer, SmartCache], caplog: pytest.LogCaptureFixture
) -> None:
    """While Redis is away nothing raises: reads give their default, writes False; it is counted, and logged once."""
    server, users = frail
    await users.set("user", 1, "x")
    await asyncio.to_thread(server.kill)
    assert await users.get("user", 1, default="none") == "none"
    assert await users.get_or_load("user", 1, lambda: "loaded") == "loaded"
    assert await users.multi_get("user", [1, 2]) == {}
    assert (await users.exists("user", 1), await users.ttl("user", 1)) == (False, -2)
    assert not await users.expire("user", 1, 60)
    assert not await users.set("user", 1, "y")
    assert not await users.set("user", 1, "y", xx=True)
    assert not await users.multi_set("user", {1: "y"})
    assert not await users.delete("user", 1)
    assert not await users.clear_namespace()
    assert await users.invalidate_pattern("user:*") == 0
    stats = await users.get_stats()
    assert stats.errors >= 10
    assert 0 < stats.error_rate <= 1
    lines = [record for record in caplog.records if record.name == "fastrdb.caching"]
    assert len(lines) == 1


async def test_an_invalidation_that_did_not_get_through_is_kept(frail: tuple[RedisServer, SmartCache]) -> None:
    """What was deleted, set or invalidated while Redis hung is not served from it afterwards."""
    server, users = frail
    for id in range(4):
        await users.set("user" if id < 3 else "team", id, "old")
    server.pause()
    assert not await users.delete("user", 0)
    assert not await users.set("user", 1, "new")
    assert await users.invalidate_pattern("team:*") == 0
    server.resume()

    async def works_again() -> bool:
        return await users.get("user", 2) == "old"

    await until(works_again)
    assert await users.multi_get("user", [0, 1]) == {}
    assert await users.get("team", 3) is None


async def test_a_restart_is_survived(frail: tuple[RedisServer, SmartCache]) -> None:
    """After Redis came back empty, the cache fills again by itself."""
    server, users = frail
    await users.set("user", 1, "x")
    await asyncio.to_thread(server.restart)

    async def works_again() -> bool:
        return await users.set("user", 1, "y")

    await until(works_again)

    async def is_read() -> bool:
        return await users.get("user", 1) == "y"

    await until(is_read)


async def test_dm_6_a_silent_server_does_not_hold_up_the_loop(frail: tuple[RedisServer, SmartCache]) -> None:
    """While Redis does not answer, the event loop goes on."""
    server, users = frail
    await users.set("user", 1, "x")
    server.pause()
    asking = asyncio.create_task(users.get("user", 1, default="none"))
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert not asking.done()
    assert await asking == "none"
    server.resume()


async def test_dm_6_a_ttl_of_zero_is_refused(users: SmartCache) -> None:
    """No life of 0 is taken for another one: it raises, and so does a negative one."""
    for ttl in (0, -1, float("nan"), True, "60"):
        bad: Any = ttl
        with pytest.raises(ValueRefused, match="ttl"):
            await users.set("user", 1, "x", ttl=bad)
        with pytest.raises(ValueRefused, match="ttl"):
            await users.expire("user", 1, bad)
        with pytest.raises(ValueRefused, match="ttl"):
            SmartCache("users", ttl=bad)


async def test_dm_5_the_documented_calls_work(redis_url: str) -> None:
    """Only a namespace and a ttl are needed; kind, id and value are three arguments; the rate is had by its name."""
    defaults.configure(redis_url=redis_url)
    try:
        users = SmartCache(namespace="users", ttl=300)
        assert await users.get("user", 1) is None
        await users.set("user", 1, {"name": "A"})
        assert await users.get("user", 1) == {"name": "A"}
        assert await users.get("user", 2) is None
        await users.invalidate_pattern("user:*")
        assert await users.get("user", 1) is None
        stats = await users.get_stats()
        assert f"Hit rate: {stats['hit_rate']:.2%}" == "Hit rate: 25.00%"
        assert isinstance(get_redis_client(), Redis)
        assert get_redis_client() is defaults.redis_client()
    finally:
        await defaults.reset()


async def test_other_names_of_the_arguments(shared: Cache) -> None:
    """``default_ttl`` and ``redis_client`` are taken for ``ttl`` and ``redis``, and not together with them."""
    cache = SmartCache("users", default_ttl=60, redis_client=shared)
    await cache.set("user", 1, "x")
    assert await cache.ttl("user", 1) == 60
    with pytest.raises(InputError, match="ttl"):
        SmartCache("users", 60, default_ttl=60)
    with pytest.raises(InputError, match="redis"):
        SmartCache("users", redis=shared, redis_client=shared)


async def test_two_levels(shared: Cache) -> None:
    """A short-lived level in front of a long-lived one: a value of the second fills the first again."""
    first, second = SmartCache("users", ttl=60, redis=shared), SmartCache("users-l2", ttl=3600, redis=shared)
    source = Source({"name": "Ann"})

    async def user(id: int) -> Any:
        return await first.get_or_load("user", id, lambda: second.get_or_load("user", id, source))

    assert await user(1) == {"name": "Ann"}
    await first.clear_namespace()
    assert await user(1) == {"name": "Ann"}
    assert await first.get("user", 1) == {"name": "Ann"}
    assert (source.loads, await first.ttl("user", 1), await second.ttl("user", 1)) == (1, 60, 3600)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"namespace": ""}, EmptyInput),
        ({"namespace": 1}, ValueRefused),
        ({"namespace": "users", "key_prefix": "a*"}, ConfigurationError),
        ({"namespace": "users", "redis": "redis://localhost"}, RedisRefused),
        ({"namespace": "users", "redis": SyncRedis()}, RedisRefused),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], error: type[FastRDBError]) -> None:
    """What cannot be a cache is refused when it is built."""
    with pytest.raises(error):
        SmartCache(**arguments)


async def test_bad_calls_are_refused(users: SmartCache) -> None:
    """A kind, an id or a pattern that has no meaning raises, and so do nx and xx together."""
    bad: Any
    for bad in (None, True, 1.5, ("a",), b"1"):
        with pytest.raises(ValueRefused, match="id"):
            await users.get("user", bad)
    for bad in (None, 1):
        with pytest.raises(ValueRefused, match="kind"):
            await users.get(bad, 1)
        with pytest.raises(ValueRefused, match="pattern"):
            await users.invalidate_pattern(bad)
    with pytest.raises(EmptyInput):
        await users.set("", 1, "x")
    for pattern in ("", "user", ":", ":1"):
        with pytest.raises(ValueRefused, match="pattern"):
            await users.invalidate_pattern(pattern)
    with pytest.raises(InputError, match="nx and xx"):
        await users.set("user", 1, "x", nx=True, xx=True)

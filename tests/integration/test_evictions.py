"""A Redis that evicts all the time, or is full every other moment: nothing is older than a write that has returned."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import event

from fastrdb.writes.templates import table_keys
from tests.models import User, named
from tests.servers.redis import RedisServer, client, info
from tests.world import PATIENCE_S, World, opened

WRITES = 60  # then it is over
IDS = range(1, 7)
ROOM = 400_000  # bytes for connections, for our keys, and for the ballast that pushes them out
ANY = table_keys(User.__table__, "")[0]


class Storm:
    """Readers and writers of six rows in one group, through three caches, and what was seen.

    Attributes:
        returned: The number that the last write of a row has given it, when that write has returned.
        stale: Reads that were older than that when they began.
        seen: Counts of what happened.
        wanted: What must have happened before it is over.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.caches = [world.cache, world.another_cache(), world.another_cache()]
        self.returned = dict.fromkeys(IDS, 0)
        self.stale: list[str] = []
        self.seen: Counter[str] = Counter()
        self.wanted = ["hits"]
        self._random = random.Random(1)

    @property
    def goes_on(self) -> bool:
        """Whether it is not over: something that may be served must have been stored, too."""
        self.seen["hits"] = sum(cache.stats.hits for cache in self.caches)
        return self.seen["writes"] < WRITES or not all(self.seen[name] for name in self.wanted)

    async def write(self, ids: list[int]) -> None:
        """Number rows upwards, by writes of their own and by joined ones."""
        while self.goes_on:
            id, cache = self._random.choice(ids), self._random.choice(self.caches)
            number = self.returned[id] + 1
            change: dict[str, Any] = {"redis": cache, "obj_in": named(str(number)), "id": id}
            if self._random.random() < 0.5:
                await self.world.crud.update(db=self.world.factory, **change)
            else:
                async with self.world.factory() as session, session.begin():
                    await self.world.crud.update(db=session, **change)
            self.returned[id] = number
            self.seen["writes"] += 1

    async def read_rows(self) -> None:
        """Read one row after the other."""
        while self.goes_on:
            id, cache = self._random.choice(IDS), self._random.choice(self.caches)
            least = self.returned[id]
            found = await self.world.crud.get(db=self.world.factory, redis=cache, id=id)
            self._judge(id, int(found.name), least)

    async def read_lists(self) -> None:
        """Read the group."""
        while self.goes_on:
            cache, least = self._random.choice(self.caches), dict(self.returned)
            for user in await self.world.crud.get_multi(db=self.world.factory, redis=cache, group_id=1):
                self._judge(user.id, int(user.name), least[user.id])

    def _judge(self, id: int, number: int, least: int) -> None:
        self.seen["reads"] += 1
        if number < least:
            self.stale.append(f"row {id}: {number} after {least} had returned")

    async def rage(self, *more: Any) -> None:
        """Let them all run, and whatever else is to happen meanwhile, until the time is over."""
        writers = [self.write([1, 2]), self.write([3, 4]), self.write([5, 6])]
        readers = [*(self.read_rows() for _ in range(6)), *(self.read_lists() for _ in range(2))]
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*writers, *readers, *more)


@pytest.fixture(params=["valkey", "redis7"])
def server(request: pytest.FixtureRequest, private_redis: Callable[..., RedisServer]) -> RedisServer:
    """A server that the test may fill up."""
    return private_redis(request.param)


@pytest.fixture
async def storm(postgres_url: str, server: RedisServer) -> AsyncIterator[Storm]:
    """Six rows, each numbered 0."""
    async with opened(postgres_url, server.url) as world:
        rows = ", ".join(f"({id}, '{id}@y', '0', 1)" for id in IDS)
        await world.execute("DELETE FROM users", f"INSERT INTO users (id, email, name, group_id) VALUES {rows}")
        await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("0"), id=1)  # it is connected
        yield Storm(world)


@pytest.mark.parametrize("policy", ["allkeys-random", "allkeys-lru"])
async def test_evictions_bring_nothing_old_back(storm: Storm, server: RedisServer, policy: str) -> None:
    """Tokens, claims, values and holds vanish at random; no read is older than a write that had returned before it."""

    with client(server.url) as admin:

        def push_out(*_: object) -> None:
            """Put large values, which push other keys out, and look who has lost a hold."""
            with admin.pipeline(transaction=False) as pipeline:
                for number in range(6):
                    pipeline.set(f"ballast:{storm.seen['pushed'] % 20}:{number}", b"x" * 5_000)
                pipeline.get(ANY)
                storm.seen["holds lost"] += pipeline.execute()[-1] is None
            storm.seen["pushed"] += 1

        admin.config_set("maxmemory-policy", policy)
        admin.config_set("maxmemory", str(admin.info("memory")["used_memory"] + ROOM))
        event.listen(storm.world.engine.sync_engine, "commit", push_out)  # after fastrdb's own: all is held
        storm.wanted.append("holds lost")
        await storm.rage()
    assert storm.stale == []
    assert info(server.url, "stats")["evicted_keys"] > WRITES


async def fill_and_free(storm: Storm, server: RedisServer) -> None:
    """Take all memory away and give it back, every few milliseconds, until it is over."""
    async with Redis.from_url(server.url) as admin:
        while storm.goes_on:
            for limit in ("1", "0"):
                await admin.config_set("maxmemory", limit)
                await asyncio.sleep(random.uniform(0, 0.01))


async def test_memory_that_comes_and_goes_leaves_nothing_old(storm: Storm, server: RedisServer) -> None:
    """Whatever is refused while others get through, no read is older than a write that had returned before it."""
    await storm.rage(fill_and_free(storm, server))
    assert storm.stale == []
    reasons = sum((cache.stats.reasons for cache in storm.caches), Counter[str]())
    assert reasons["not stored: out of memory"] > 0
    assert reasons["stored"] > 0
    assert not [reason for reason in reasons if "unreachable" in reason]
    assert not any(cache.undelivered for cache in storm.caches)

"""Eight processes want one lock, while holders are killed and stopped, and Redis is restarted."""

import asyncio
import os
import random
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from redis.asyncio import Redis

from fastrdb.locks import RedisLock
from tests.contender import NAME, Resource
from tests.servers.redis import RedisServer

ROOT = Path(__file__).parents[2]
CONTENDERS = 8
TTL_S = 0.5
LIMIT_S = 180.0  # generous: eight processes have to start, and the machine may be busy

Processes = dict[int, asyncio.subprocess.Process]


class Contest:
    """Contenders for one lock, and the resource that they write to."""

    def __init__(self, server: RedisServer, resource: Resource, ttl_s: float) -> None:
        self.server, self.resource, self.ttl_s = server, resource, ttl_s
        self.processes: Processes = {}

    async def start(self) -> None:
        """Start one more contender."""
        arguments = ["-m", "tests.contender", self.server.url, self.resource.url, str(self.ttl_s)]
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT)
        self.processes[process.pid] = process

    async def end(self, pid: int) -> None:
        """Kill one."""
        process = self.processes.pop(pid)
        process.kill()
        await process.wait()

    async def writes(self) -> int:
        """How many writes the resource has taken."""
        return len(await asyncio.to_thread(self.resource.written))

    async def more(self, count: int) -> None:
        """Wait until that many more writes were taken."""
        wanted = await self.writes() + count
        async with asyncio.timeout(LIMIT_S):
            while await self.writes() < wanted:
                await asyncio.sleep(0.05)

    async def holder(self) -> int:
        """The process that has the lock, or any, if nobody has it just now."""
        async with Redis.from_url(self.server.url) as client:
            holder = await RedisLock(NAME, redis=client).get_lock_holder()
        pid = int(holder.split(":")[1]) if holder else 0
        return pid if pid in self.processes else random.choice(list(self.processes))


@asynccontextmanager
async def contest(server: RedisServer, resource_url: str, ttl_s: float) -> AsyncIterator[Contest]:
    """Eight contenders at work; what they have written is checked when they have ended."""
    with closing(Resource(resource_url)) as resource:
        running = Contest(server, resource, ttl_s)
        try:
            for _ in range(CONTENDERS):
                await running.start()
            await running.more(20)
            yield running
        finally:
            for pid in list(running.processes):
                await running.end(pid)
        check(resource)


def check(resource: Resource) -> None:
    """Every write that was taken counts, in the order of the fences, and no two holders had the same."""
    written = resource.written()
    assert resource.number() == len(written)
    assert [entry.fence for entry in written] == sorted(entry.fence for entry in written)
    holders = defaultdict(set)
    for entry in written:
        holders[entry.fence].add(entry.holder)
    assert all(len(found) == 1 for found in holders.values())


async def test_without_accidents_nobody_is_refused(private_redis: Callable[..., RedisServer], valkey_url: str) -> None:
    """As long as nobody dies or stops, there is one holder at a time: the resource refuses nobody, no count is lost."""
    async with contest(private_redis(), valkey_url, 60) as running:
        await running.more(60)
        assert running.resource.refusals() == 0


async def test_kills_stops_and_restarts_never_let_two_holders_in(
    private_redis: Callable[..., RedisServer], valkey_url: str
) -> None:
    """Under kills, stops and Redis restarts, what the resource takes is ordered by fences that no two holders share."""
    server = private_redis()
    async with contest(server, valkey_url, TTL_S) as running:
        for _ in range(3):
            await running.end(await running.holder())
            await running.start()
            stopped = await running.holder()
            os.kill(stopped, signal.SIGSTOP)
            await running.more(10)  # of others, when its ttl is over
            os.kill(stopped, signal.SIGCONT)
            await running.more(10)
            await asyncio.to_thread(server.restart)
            await running.more(10)  # fences have not gone back, or all would be refused

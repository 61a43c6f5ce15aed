"""A process that wants a lock again and again, and writes to a resource that remembers the greatest fence.

Run as ``python -m tests.contender REDIS_URL RESOURCE_URL TTL_S``; ends when it is killed.
"""

import asyncio
import random
import sys
import uuid
from typing import Any, NamedTuple

from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fastrdb import FastRDBError
from fastrdb.locks import RedisLock

NAME = "contended"


class Written(NamedTuple):
    """One write that the resource took."""

    fence: int
    holder: str


_ENTER = """
local last = tonumber(redis.call('GET', 'resource:fence') or '0')
if tonumber(ARGV[1]) < last then
  redis.call('INCR', 'resource:refused')
  return false
end
redis.call('SET', 'resource:fence', ARGV[1])
return redis.call('GET', 'resource:value') or '0'
"""
_WRITE = """
if redis.call('GET', 'resource:fence') ~= ARGV[1] then return redis.call('INCR', 'resource:refused') end
redis.call('SET', 'resource:value', ARGV[3])
return redis.call('RPUSH', 'resource:written', ARGV[1] .. ' ' .. ARGV[2])
"""


class Resource:
    """A number on a server, which takes writes of the greatest fence it has seen, and no other's.

    Each step is one script there: a process that is killed or stopped in the midst of one holds nobody up.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._server = SyncRedis.from_url(url, decode_responses=True)

    def enter(self, fence: int) -> int | None:
        """Show a fence; give the number, or ``None`` for who is refused."""
        value: Any = self._server.eval(_ENTER, 0, str(fence))
        return None if value is None else int(value)

    def write(self, fence: int, holder: str, value: int) -> None:
        """Set the number, unless a greater fence was shown meanwhile."""
        self._server.eval(_WRITE, 0, str(fence), holder, str(value))

    def refusals(self) -> int:
        """How often somebody was refused."""
        return self._number("resource:refused")

    def number(self) -> int:
        """The number."""
        return self._number("resource:value")

    def written(self) -> list[Written]:
        """All writes."""
        entries: Any = self._server.lrange("resource:written", 0, -1)
        return [Written(int(fence), holder) for fence, holder in map(str.split, entries)]

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _number(self, key: str) -> int:
        value: Any = self._server.get(key)
        return int(value or 0)


async def contend(url: str, resource: Resource, ttl_s: float) -> None:
    """Count, under the lock, until killed."""
    async with Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=2) as client:
        while True:
            try:
                async with RedisLock(NAME, ttl_s, redis=client, wait=None) as lock:
                    await count(resource, lock)
            except FastRDBError:
                await asyncio.sleep(0.01)  # Redis is being restarted


async def count(resource: Resource, lock: RedisLock) -> None:
    """Read the number, take a while, write the next one."""
    assert lock.fence is not None
    value = resource.enter(lock.fence)
    if value is not None:
        await asyncio.sleep(random.uniform(0, 0.01))
        resource.write(lock.fence, uuid.uuid4().hex, value + 1)


if __name__ == "__main__":
    asyncio.run(contend(sys.argv[1], Resource(sys.argv[2]), float(sys.argv[3])))

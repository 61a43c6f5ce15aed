"""One name in Redis: redis-py's lock, whose acquisition also draws a fencing number."""

from __future__ import annotations

import math
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.lock import Lock

from ..keys import encode

_FENCE_LIFE_MS: Final = 7 * 24 * 3600 * 1000

# The number is at least the server's clock in microseconds: where the counter was lost (a restart, an eviction, its
# own end), it goes on above all that it ever gave, because nobody draws more than one a microsecond. Where it was not
# lost, a clock that went back does no harm. Below 2**53 until the year 2255, so that Lua keeps it exactly. To be sent
# twice by a client that got no answer does no harm either: the same token may acquire again.
_ACQUIRE: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return false end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if (tonumber(redis.call('GET', KEYS[2])) or 0) < now then
  redis.call('SET', KEYS[2], string.format('%.0f', now))
end
local fence = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return fence
"""


def lock_key(name: str) -> str:
    """Give the key of a lock; its fencing counter is the same with ``:fence``, in the same slot of a cluster."""
    return f"fastrdb:lock:{{{encode(name)}}}"


class FencedLock(Lock):
    """redis-py's lock with another acquisition: ``fence`` is the number of the last one that succeeded.

    Releasing and renewing are redis-py's own scripts, which compare the token first.

    Args:
        client: Whose server keeps the lock.
        name: The lock's name, as the user gave it.
        ttl_s: Its life in seconds, a millisecond at least.
    """

    def __init__(self, client: Redis | RedisCluster, name: str, ttl_s: float) -> None:
        super().__init__(client, lock_key(name), timeout=math.ceil(ttl_s * 1000) / 1000, thread_local=False)
        self.fence: int | None = None
        self._ttl_ms = math.ceil(ttl_s * 1000)
        self._acquire: Any = client.register_script(_ACQUIRE)

    async def do_acquire(self, token: str | bytes) -> bool:
        """Try once."""
        keys = [self.name, f"{self.name!s}:fence"]
        fence = await self._acquire(keys=keys, args=[token, self._ttl_ms, _FENCE_LIFE_MS + self._ttl_ms])
        if fence is None:
            return False
        self.fence = int(fence)
        return True

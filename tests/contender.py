"""A process that wants a lock again and again, and writes to a resource that remembers the greatest fence.

Run as ``python -m tests.contender REDIS_URL RESOURCE TTL_S``; ends when it is killed.
"""

import asyncio
import random
import sqlite3
import sys
import uuid
from contextlib import closing
from typing import Any, NamedTuple

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


class Resource:
    """A number in a SQLite file, which takes writes of the greatest fence it has seen, and no other's."""

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self) -> None:
        """Make the file; nobody was there yet."""
        self._run("CREATE TABLE number (fence INTEGER, value INTEGER)")
        self._run("CREATE TABLE written (fence INTEGER, holder TEXT)")
        self._run("CREATE TABLE refused (fence INTEGER)")
        self._run("INSERT INTO number VALUES (0, 0)")

    def enter(self, fence: int) -> int | None:
        """Show a fence; give the number, or ``None`` for who is refused."""
        seen = self._run("UPDATE number SET fence = ? WHERE fence <= ? RETURNING value", fence, fence)
        return seen[0][0] if seen else self._refuse(fence)

    def write(self, fence: int, holder: str, value: int) -> None:
        """Set the number, unless a greater fence was shown meanwhile."""
        with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # both or none, should the process be killed here
            if taken := connection.execute("UPDATE number SET value = ? WHERE fence = ?", (value, fence)).rowcount:
                connection.execute("INSERT INTO written VALUES (?, ?)", (fence, holder))
            connection.execute("COMMIT")
        if not taken:
            self._refuse(fence)

    def _refuse(self, fence: int) -> None:
        self._run("INSERT INTO refused VALUES (?)", fence)

    def refusals(self) -> int:
        """How often somebody was refused."""
        count: int = self._run("SELECT count(*) FROM refused")[0][0]
        return count

    def number(self) -> int:
        """The number."""
        value: int = self._run("SELECT value FROM number")[0][0]
        return value

    def written(self) -> list[Written]:
        """All writes."""
        return [Written(*row) for row in self._run("SELECT fence, holder FROM written ORDER BY rowid")]

    def _run(self, statement: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()


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

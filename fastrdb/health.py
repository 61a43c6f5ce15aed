"""Whether every connection of a service works, in one call that never raises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias, cast

import redis.asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from .cache.cache import Cache
from .db import defaults
from .db.manager import DatabaseManager
from .errors import UsageError

DatabaseSource: TypeAlias = AsyncEngine | DatabaseManager | async_sessionmaker[AsyncSession]
RedisSource: TypeAlias = redis.asyncio.Redis | redis.asyncio.RedisCluster | Cache

_GRACE_S = 0.5  # for what was cancelled to close its connection


class Check(NamedTuple):
    """What one connection answered.

    Attributes:
        name: What it was given as, or ``database``, ``redis``, ``cache``, with a number where there are several.
        ok: Whether it answered in time.
        latency_s: Seconds until it answered, or failed.
        reason: Why it is not ok, without passwords; ``None`` where it is.
    """

    name: str
    ok: bool
    latency_s: float
    reason: str | None


class Health(NamedTuple):
    """What all connections answered.

    Attributes:
        ok: Whether every one of them is ok, and there is at least one.
        timeout_s: How long each had, in seconds.
        checks: One for each, databases first.
    """

    ok: bool
    timeout_s: float
    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return self.ok

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain values, for a JSON response."""
        checks = {check.name: {k: v for k, v in check._asdict().items() if k != "name"} for check in self.checks}
        return {"ok": self.ok, "timeout_s": self.timeout_s, "checks": checks}


async def health(
    databases: DatabaseSource | Iterable[DatabaseSource] | Mapping[str, DatabaseSource] | None = None,
    redis: RedisSource | Iterable[RedisSource] | Mapping[str, RedisSource] | None = None,
    timeout_s: float = 2.0,
) -> Health:
    """Ask every connection at once whether it works: ``SELECT 1`` of a database, ``PING`` of a Redis.

    Takes at most half a second longer than *timeout_s*, and never raises: what is no connection at all is not ok.

    Args:
        databases: Engines, managers or factories of sessions: one, several, or several by name.
        redis: Clients or caches: one, several, or several by name.
        timeout_s: Seconds for each.

    Where both are left out, the process-wide defaults are asked, those that are configured or named by the environment.
    """
    probes: dict[str, object] = {}
    if databases is None and redis is None:
        probes = _default_probes()
    for given in (databases, redis):
        for name, thing in _named(given):
            probes[_free(name, probes)] = thing
    checks = await asyncio.gather(*(_check(name, thing, timeout_s) for name, thing in probes.items()))
    return Health(bool(checks) and all(check.ok for check in checks), timeout_s, tuple(checks))


def _default_probes() -> dict[str, object]:
    found: dict[str, object] = {}
    if defaults.database_is_set():
        found["database"] = defaults.engine  # called in the check, where its errors are caught
    if defaults.redis_is_set():
        found["redis"] = defaults.redis_client
    return found


def _named(given: object) -> list[tuple[str, object]]:
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [(str(name), thing) for name, thing in given.items()]
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        return [(_kind(thing), thing) for thing in given]
    return [(_kind(given), given)]


def _kind(thing: object) -> str:
    if isinstance(thing, Cache):
        return "cache"
    return "redis" if isinstance(thing, (redis.asyncio.Redis, redis.asyncio.RedisCluster)) else "database"


def _free(name: str, taken: Mapping[str, object]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} {number}"
    return free


async def _check(name: str, thing: object, timeout_s: float) -> Check:
    began = time.perf_counter()
    task = asyncio.ensure_future(_ask(thing))  # a task of its own: it may hang longer than it was given
    try:
        await asyncio.wait([task], timeout=timeout_s)
    finally:
        late = not task.done()
        task.cancel()  # does nothing to a task that is done
    latency_s = time.perf_counter() - began
    if late:
        await asyncio.wait([task], timeout=_GRACE_S)
        task.add_done_callback(_look_away)
        return Check(name, False, latency_s, f"no answer within {timeout_s:g} s")
    error = task.exception()
    return Check(name, error is None, latency_s, None if error is None else _reason(error, thing))


async def _ask(thing: object) -> None:
    if thing is defaults.engine or thing is defaults.redis_client:
        thing = cast("Callable[[], object]", thing)()
    if isinstance(thing, DatabaseManager):
        thing = thing.engine
    if isinstance(thing, AsyncEngine):
        async with thing.connect() as connection:
            await connection.execute(text("SELECT 1"))
    elif isinstance(thing, async_sessionmaker):
        async with thing() as session:
            await session.execute(text("SELECT 1"))
    elif isinstance(thing, Cache):
        await thing.store.read(b"fastrdb-health", ())
    elif isinstance(thing, (redis.asyncio.Redis, redis.asyncio.RedisCluster)):
        client: Any = thing
        await client.ping()
    else:
        raise UsageError(f"{type(thing).__name__} is no engine, DatabaseManager, sessionmaker, Redis client or Cache")


def _reason(error: BaseException, thing: object) -> str:
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    for secret in _secrets(thing):
        said = said.replace(secret, "***")
    return said


def _secrets(thing: object) -> list[str]:
    """Give the passwords that a driver's message might repeat."""
    if isinstance(thing, async_sessionmaker):
        thing = thing.kw.get("bind")
    found: list[object] = []
    if isinstance(thing, AsyncEngine):
        found.append(thing.url.password)
    elif isinstance(thing, redis.asyncio.Redis):
        found.append(thing.connection_pool.connection_kwargs.get("password"))
    return [secret for secret in found if isinstance(secret, str) and secret]


def _look_away(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        task.exception()

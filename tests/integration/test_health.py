"""Health: every connection, each with latency and reason, and nothing raised."""

import asyncio
import time
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from fastrdb import Cache
from fastrdb.db import DatabaseManager, configure, create_async_engine, create_async_sessionmaker, defaults
from fastrdb.health import health
from tests.servers.redis import RedisServer

SECRET = "hunter2"


async def test_every_connection_is_asked(database_url: str, valkey_url: str) -> None:
    """Engines, factories, managers, clients and caches that answer are ok, each with its latency."""
    engine, client = create_async_engine(database_url), Redis.from_url(valkey_url)
    cache, memory = Cache.from_url(valkey_url), Cache.from_url("memory://")
    async with DatabaseManager(database_url) as manager, cache, memory:
        found = await health([engine, create_async_sessionmaker(engine), manager], [client, cache, memory], 30)
    assert found
    assert [check.name for check in found.checks] == [
        "database", "database 2", "database 3", "redis", "cache", "cache 2",
    ]  # fmt: skip
    assert all(check.ok and 0 < check.latency_s < 30 and check.reason is None for check in found.checks)
    await engine.dispose()
    await client.aclose()


async def test_dead_ones_are_named_with_a_reason() -> None:
    """What does not answer is not ok, says why without its password, and spoils the whole."""
    dead = create_async_engine(f"postgresql://ann:{SECRET}@127.0.0.1:1/none")
    alive = create_async_engine("sqlite://")
    client: Redis = Redis.from_url(f"redis://:{SECRET}@127.0.0.1:1/0")
    cache = Cache.from_url(f"redis://:{SECRET}@127.0.0.1:1/0")
    not_started = DatabaseManager("sqlite://")
    databases = {"main": dead, "side": alive, "manager": not_started, "wrong": SECRET}
    found = await health(databases, {"redis": client, "cache": cache}, 30)  # type: ignore[arg-type]  # "wrong" is
    assert not found
    assert {check.name for check in found.checks if not check.ok} == {"main", "manager", "wrong", "redis", "cache"}
    assert all(check.reason for check in found.checks if not check.ok)
    assert SECRET not in str(found.as_dict())
    assert "startup" in found.as_dict()["checks"]["manager"]["reason"]
    for engine in (dead, alive):
        await engine.dispose()
    await client.aclose()
    await cache.aclose()


async def test_silent_server_takes_no_longer_than_its_timeout(private_redis: Callable[..., RedisServer]) -> None:
    """A server that accepts and never answers is not ok after the timeout, and is ok when it answers again."""
    server = private_redis()
    client: Redis = Redis.from_url(server.url)
    assert await health(redis=client, timeout_s=30)
    server.pause()
    began = time.monotonic()
    found = await health(redis=client, timeout_s=0.2)
    assert time.monotonic() - began < 20
    assert found.checks[0].reason == "no answer within 0.2 s"
    assert found.checks[0].latency_s >= 0.2
    server.resume()
    assert await health(redis=client, timeout_s=30)
    await client.aclose()


async def test_exhausted_pool_is_not_healthy(database_url: str) -> None:
    """A pool without a free connection counts as no answer, and the check leaves nothing behind."""
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
    async with engine.connect():
        found = await health(engine, timeout_s=0.1)
        assert found.checks[0].reason == "no answer within 0.1 s"
    assert await health(engine, timeout_s=30)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool
    await engine.dispose()


async def test_defaults_are_asked(monkeypatch: pytest.MonkeyPatch, sqlite_url: str, valkey_url: str) -> None:
    """Without arguments the defaults that exist are asked; without any, nothing is healthy."""
    for name in ("DATABASE_URL", "DB_HOST", "DB_NAME", "DB_USER", "DB_PASSWORD", "DB_PORT", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    assert (await health()).checks == ()
    assert not await health()
    configure(url=sqlite_url)
    assert [check.name for check in (await health()).checks] == ["database"]
    monkeypatch.setenv("REDIS_URL", valkey_url)
    assert [(check.name, check.ok) for check in (await health()).checks] == [("database", True), ("redis", True)]
    await defaults.reset()
    monkeypatch.setenv("DATABASE_URL", f"nonsense://ann:{SECRET}@h/d")
    found = await health()
    assert SECRET not in str(found)
    assert [check.ok for check in found.checks] == [False, True]
    await defaults.reset()


async def test_cancelled_health_cancels_its_checks(private_redis: Callable[..., RedisServer]) -> None:
    """A caller that is cancelled waits for nothing."""
    server = private_redis()
    client: Redis = Redis.from_url(server.url)
    server.pause()
    task = asyncio.create_task(health(redis=client, timeout_s=3600))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.resume()
    await client.aclose()
